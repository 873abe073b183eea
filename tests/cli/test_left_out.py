"""Who takes no part for now is named with the reason and the way back, by `status` and by `watch`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from choral.cli import federation, terminal, watch
from choral.service.page.feed import Feed
from choral.service.state.sqlite import Kept
from choral.service.training import Training
from direct import Direct
from house import until

HTML = "[bold]\x1b[2J<b>its shares do not fit</b>"


@pytest.fixture
def trouble(tmp_path):
    """Of six m6 is kept out, m5 has sent all that it may, m4 pauses, m1 asks to be without m2."""

    @contextlib.asynccontextmanager
    async def found() -> AsyncIterator[tuple[Direct, dict[str, Any], dict[str, Any]]]:
        async with Direct(tmp_path, 6, minimum=5) as home, asyncio.timeout(60):
            home.store.keep_out("m6", Kept(b"r" * 32, HTML, 1e9))
            home.rounds.presence.rest("m5", "spent")
            home.rounds.presence.rest("m4", "pause")
            joining = [
                asyncio.create_task(home.join(home.machine(name), without=without))
                for name, without in (("m1", ["m2"]), ("m2", []))
            ]
            home.now += 1  # who is kept out is looked up once a second
            await until(lambda: [len(live.sessions) for live in home.conductor.lives()] == [2])
            feed = Feed(home.aggregator, home.rounds, home.store, clock=lambda: home.now)
            yield home, home.rounds.status(), json.loads(await feed.snapshot())
            for task in joining:
                task.cancel()

    return found


LINES = (
    "stuck: 4 of 6 members can send, a cohort needs 5 (kept out: m6; have used up what they may send: m5)",
    "kept out: m6, since round 727272727272: [bold]?[2J<b>its shares do not fit</b>; find out why, then let"
    " it back in: choral readmit FOLDER m6, with the aggregator's folder",
    "kept apart: m2 waits for another cohort: m1 asked for cohorts without it",
    "resting: m5: all that may be sent in this task is sent",
    "resting: m4: waiting for a changed model, or for the time to send from this one again",
)


async def test_both_name_each_kind_with_its_reason_and_the_way_back(trouble, capsys):
    async with trouble() as (_, status, picture):
        federation._print_status(json.loads(json.dumps(status)))
        said = capsys.readouterr().out
        terminal.console.print(watch.drawn(picture))
        drawn = capsys.readouterr().out
    for line in LINES:
        assert f"  {line}\n" in said
        assert line in " ".join(drawn.split())


async def test_who_cannot_take_part_is_not_said_to_be_training(trouble):
    async with trouble() as (home, _, picture):
        assert picture["live"]["training"]["names"] == ["m3"]
        assert picture["live"]["connected"] == len(home.names)


async def test_when_training_is_over_only_who_is_kept_out_is_worth_a_word(trouble, capsys, monkeypatch):
    async with trouble() as (home, *_):
        monkeypatch.setattr(Training, "over", True)
        feed = Feed(home.aggregator, home.rounds, home.store, clock=lambda: home.now)
        federation._print_status(home.rounds.status())
        terminal.console.print(watch.drawn(json.loads(await feed.snapshot())))
        said = capsys.readouterr().out
    assert said.count("kept out: m6") == 2
    for word in ("stuck", "resting", "kept apart:"):
        assert word not in said.replace("◇ kept apart", ""), word


def test_of_many_some_are_named_and_the_others_counted():
    names = [f"m{i}" for i in range(20)]
    standing = federation.Standing(
        stuck="", spent=names, pause=[], kept_out=[(name, "r", "why") for name in names],
        apart=[(name, "why") for name in names],
    )  # fmt: skip
    lines = [line for _, line in federation.left_out(standing)]
    assert "kept out: 8 more" in lines
    assert "kept apart: 8 more" in lines
    assert lines[-1].startswith("resting: m0, m1, ")
    assert " m11 and 8 more: " in lines[-1]
