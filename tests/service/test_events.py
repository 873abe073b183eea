"""What happens in rounds is told to whoever subscribed, and no round depends on who did."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from choral.errors import Ending
from choral.protocol.rounds import LABELS
from choral.service.metrics import Metrics
from choral.service.rounds.events import (
    AnswerOut,
    CohortClosed,
    Events,
    MessageIn,
    Moved,
    PhaseOver,
    RoundFailed,
    SumMade,
    VectorTaken,
    VersionMade,
)
from house import house, until

TOLD = (CohortClosed, VectorTaken, SumMade, PhaseOver, VersionMade, RoundFailed)


def recorded(events: Events, *kinds: type[Any]) -> list[Any]:
    found: list[Any] = []
    for kind in kinds:
        events.subscribe(kind, found.append)
    return found


def test_every_subscriber_is_told_of_its_events_in_order_and_of_no_others():
    events, told = Events(), []
    events.subscribe(PhaseOver, lambda event: told.append(("first", event.phase)))
    events.subscribe(PhaseOver, lambda event: told.append(("second", event.phase)))
    events.subscribe(Moved, lambda event: told.append(("moved", "")))
    events.say(PhaseOver("share", 1.0))
    events.say(MessageIn("share", 3))
    events.say(Moved())
    assert told == [("first", "share"), ("second", "share"), ("moved", "")]


def test_an_event_cannot_be_changed_by_one_that_is_told():
    with pytest.raises(FrozenInstanceError):
        PhaseOver("share", 1.0).phase = "mask"


def test_one_that_fails_is_a_line_and_the_others_are_told():
    events, told = Events(), []

    def fail(event: Moved) -> None:
        raise OSError("the disk of the witness is full")

    events.subscribe(Moved, fail)
    events.subscribe(Moved, told.append)
    with capture_logs() as lines:
        events.say(Moved())
    assert told == [Moved()]
    assert [(line["log_level"], line["kind"]) for line in lines] == [("error", "Moved")]


async def test_a_round_is_told_as_it_goes_and_is_none_the_worse_for_who_fails(tmp_path):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as players:
        events = home.rounds.events

        def fail(event: object) -> None:
            raise KeyError("whatever")

        for kind in TOLD:
            events.subscribe(kind, fail)
        told = recorded(events, *TOLD)
        bytes_ = recorded(events, MessageIn, AnswerOut)
        (record, *_) = await asyncio.gather(*(player.play(home.head) for player in players))
        await until(lambda: not home.rounds.conductor.running)
    names = {"m1", "m2", "m3"}
    vectors = [event for event in told if isinstance(event, VectorTaken)]
    told = [event for event in told if event not in vectors]  # the first may wait for its histogram
    over = [PhaseOver] * (len(LABELS) - 1)
    assert [type(event) for event in told] == [PhaseOver, CohortClosed, *over, SumMade, VersionMade]
    closed, made = told[1], told[-1]
    assert (closed.round, closed.base, set(closed.members)) == (record.round_id, 0, names)
    assert (made.round, made.version, made.survivors) == (record.round_id, 1, record.survivors)
    assert [event.phase for event in told if isinstance(event, PhaseOver)] == list(LABELS)
    assert {event.member for event in vectors} == names
    assert {event.kind for event in bytes_ if isinstance(event, MessageIn)} == set(LABELS)
    assert {event.phase for event in bytes_ if isinstance(event, AnswerOut)} == set(LABELS)


async def test_a_round_that_fails_says_why_in_one_of_few_words(tmp_path):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as players:
        told = recorded(home.rounds.events, RoundFailed, VersionMade)
        playing = [asyncio.create_task(player.play(home.head)) for player in players[1:]]
        machine, _ = await players[0].play(home.head, until="mask")
        await players[0].leave()
        await asyncio.gather(*playing, return_exceptions=True)
        row = home.store.round(machine.round_id)
    (failed,) = told
    assert (failed.round, failed.phase, failed.kind) == (machine.round_id, "mask", Ending.MISSING_MEMBERS)
    assert failed.missing == row.facts.missing == ("m1",)
    assert (row.facts.kind, row.facts.reason) == (failed.kind, failed.reason)


def test_a_vector_is_lent_and_not_copied():
    vector = np.zeros(3, np.uint32)
    events = Events()
    told = recorded(events, VectorTaken)
    events.say(VectorTaken(b"r" * 32, "m1", vector))
    assert told[0].vector is vector


def test_a_figure_of_something_else_is_read_when_asked_and_the_newest_under_its_name_counts():
    metrics, pages = Metrics(wall=lambda: 0.0), [1]

    def gone() -> float:
        raise OSError("the disk is gone")

    metrics.reads("dashboard_pages", "x", lambda: 7.0)
    metrics.reads("dashboard_pages", "Dashboards that are open.", lambda: pages[0])
    metrics.reads("state_free_bytes", "Free.", gone)
    pages[0] = 2
    assert list(metrics.readings()) == [
        ("dashboard_pages", "Dashboards that are open.", 2),
        ("state_free_bytes", "Free.", None),
    ]
