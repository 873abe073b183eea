"""A member's events: typed here, a name and details for scripts, a line for people."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from choral.cli.member_lines import member_line
from choral.client import _both, events
from choral.client.events import Event, calling, named

EVENTS = [
    events.Warned("tolerates nobody"), events.Stopped(), events.Unreachable("http://a", "refused", "tls"),
    events.PutOff("http://a", "full", "no-room"),
    events.Version(3, ("m1", "m2"), True, 0.5), events.Trained(2, 90, 0.25, 3, True),
    events.NotMeasured("the loss is nan"), events.NothingToAdd(2), events.Awaiting(("m2",), 1, False, 1, 3),
    events.Phase("roster"), events.Waiting("superseded"), events.TooLarge("413", "a proxy", 60.0),
    events.Aborted("m2 was missing", ("m2",), True), events.Refused("a lie", ("m2",), ("m2",), 2.0),
    events.ComplaintNotTaken("over"), events.KeptOut("wrong shares", "ask"), events.LetBackIn(3),
    events.LastOutcome(2, "done", 3), events.Resting(2, 4, 60.0), events.Spent(2, 20), events.Done(9, 0.75),
]  # fmt: skip
# a script that was written for 0.1.0 reads these
TOLD = {
    "warning": ["reason"], "stopped": [], "unreachable": ["url", "reason", "problem"],
    "put off": ["url", "reason", "problem"],
    "version": ["version", "survivors", "mine", "accuracy_before"],
    "trained": ["version", "examples", "accuracy", "clipped", "capped"], "not measured": ["reason"],
    "nothing to add": ["version"], "awaiting": ["missing", "more", "connected", "got", "needed"],
    "phase": ["got"], "waiting": ["reason"], "too large": ["reason", "hint", "seconds"],
    "aborted": ["reason", "missing", "spent"], "refused": ["reason", "culprits", "avoided", "seconds"],
    "complaint not taken": ["reason"], "kept out": ["reason", "hint"], "let back in": ["refusals"],
    "last outcome": ["base", "state", "version"], "resting": ["version", "sent", "seconds"],
    "spent": ["version", "sent"], "done": ["version", "accuracy"],
}  # fmt: skip


def told(event: Event) -> tuple[str, dict[str, Any]]:
    found: list[tuple[str, dict[str, Any]]] = []
    calling(lambda name, **details: found.append((name, details)))(event)
    (one,) = found
    return one


def test_every_event_has_the_name_and_the_details_that_scripts_know():
    assert {type(event) for event in EVENTS} == set(Event.__subclasses__())
    assert {name: list(details) for name, details in map(told, EVENTS)} == TOLD


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_what_a_script_is_told_is_plain_and_leads_back_to_the_event(event):
    name, details = told(event)
    assert all(isinstance(value, str | int | float | bool | list | None) for value in details.values())
    assert named(name, details) == event


def test_an_event_of_another_version_is_none_of_these():
    assert named("struck by lightning", {"volts": 3}) is None


@pytest.mark.parametrize("event", [event for event in EVENTS if fields(event)], ids=lambda event: event.name)
def test_an_event_cannot_be_changed_by_one_that_is_told(event):
    with pytest.raises(FrozenInstanceError):
        setattr(event, fields(event)[0].name, None)


def test_both_ways_of_being_told_are_told():
    typed: list[Event] = []
    named_: list[str] = []
    tell = _both(typed.append, lambda event, **_: named_.append(event))
    for event in EVENTS:
        tell(event)
    assert typed == EVENTS
    assert named_ == list(TOLD)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            EVENTS[4],
            "[green]version 3[/] from 2 members, with this member's update, version 2 was 50.0% right on",
        ),
        (EVENTS[5], "trained on 90 examples from version 2; the model was 25.0% right here (3 coordinates"),
        (EVENTS[8], "waiting for m2 and 1 more (not connected): 1 of at least 3 members are in"),
        (EVENTS[12], "[yellow]round aborted:[/] m2 was missing (missing: m2), training again"),
        (EVENTS[13], "[red]refused:[/] a lie (accused: m2); asking for cohorts without m2"),
        (
            events.LastOutcome(2, "aborted", None),
            "the update sent last, from version 2, is in no model (aborted)",
        ),
        (events.Done(9, None), "[bold green]training is over[/] at version 9"),
    ],
    ids=lambda found: getattr(found, "name", ""),
)
def test_a_person_reads_a_line(event, line):
    assert (member_line(event) or "").startswith(line)


def test_only_what_a_machine_wants_is_no_line_and_names_are_no_markup():
    assert {event.name for event in EVENTS if member_line(event) is None} == {"phase", "complaint not taken"}
    assert member_line(events.Waiting("[red]x[/]")) == r"[dim]waiting: \[red]x\[/][/]"
    assert r"\[b]m2" in (member_line(events.Aborted("x", ("[b]m2",), False)) or "")
