"""A member's events as lines in a terminal."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from functools import singledispatch
from typing import Any

from rich.markup import escape

from choral.cli.terminal import console, percent
from choral.client import events
from choral.client.events import Event


def show_event(event: Event) -> None:
    """Print what a member does: the `tell` of `choral join`."""
    if line := member_line(event):
        console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {line}")


def member_line(event: Event) -> str | None:
    """What a member's event means to a person; None for those that only a machine wants."""
    return _line(replace(event, **{each.name: _escaped(getattr(event, each.name)) for each in fields(event)}))


def _escaped(value: Any) -> Any:
    """Text as it is: what an aggregator or a member says is not markup."""
    if isinstance(value, tuple):
        return tuple(_escaped(item) for item in value)
    return escape(value) if isinstance(value, str) else value


@singledispatch
def _line(event: Event) -> str | None:
    return None


@_line.register
def _(event: events.Warned) -> str:
    return f"[yellow]warning:[/] {event.reason}"


@_line.register
def _(event: events.Stopped) -> str:
    return "stopped"


@_line.register
def _(event: events.Unreachable) -> str:
    return f"[yellow]{event.url} cannot be reached[/] ({event.reason}), trying on"


@_line.register
def _(event: events.PutOff) -> str:
    return f"[yellow]not now:[/] {event.reason}; trying on"


@_line.register
def _(event: events.Version) -> str:
    if event.version == 0:
        return "[dim]version 0: the initial model[/]"
    share = "with this member's update" if event.mine else "without this member's update"
    before = f", version {event.version - 1} was {percent(event.accuracy_before)} right on held-out data"
    return f"[green]version {event.version}[/] from {len(event.survivors)} members, {share}{before}"


@_line.register
def _(event: events.Trained) -> str:
    notes = [f"{event.clipped} coordinates clipped"] if event.clipped else []
    notes += ["weight capped"] if event.capped else []
    here = f"; the model was {percent(event.accuracy)} right here" if event.accuracy is not None else ""
    return f"trained on {event.examples} examples from version {event.version}{here}" + "".join(
        f" ({note})" for note in notes
    )


@_line.register
def _(event: events.NotMeasured) -> str:
    return f"[yellow]not measured:[/] {event.reason}"


@_line.register
def _(event: events.NothingToAdd) -> str:
    return f"nothing to add to version {event.version}: sending zeros"


@_line.register
def _(event: events.Awaiting) -> str:
    return (
        f"waiting for {', '.join(event.missing) or 'the cohort to close'}"
        + (f" and {event.more} more" if event.more else "")
        + ("" if event.connected or not event.missing else " (not connected)")
        + f": {event.got} of at least {event.needed} members are in"
    )


@_line.register
def _(event: events.Waiting) -> str:
    return f"[dim]waiting: {event.reason}[/]"


@_line.register
def _(event: events.TooLarge) -> str:
    return f"[red]not sent:[/] {event.reason}; {event.hint}"


@_line.register
def _(event: events.Aborted) -> str:
    return (
        f"[yellow]round aborted:[/] {event.reason}"
        + (f" (missing: {', '.join(event.missing)})" if event.missing else "")
        + (", training again" if event.spent else "")
    )


@_line.register
def _(event: events.Refused) -> str:
    return (
        f"[red]refused:[/] {event.reason}"
        + (f" (accused: {', '.join(event.culprits)})" if event.culprits else "")
        + (f"; asking for cohorts without {', '.join(event.avoided)}" if event.avoided else "")
    )


@_line.register
def _(event: events.KeptOut) -> str:
    return (
        f"[red]kept out of cohorts:[/] {event.reason}"
        + (f"; {event.hint}" if event.hint else "")
        + ". This process waits, and asks again every few minutes"
    )


@_line.register
def _(event: events.LetBackIn) -> str:
    return "[green]let back in:[/] a cohort took this member again"


@_line.register
def _(event: events.LastOutcome) -> str:
    if event.state == "done" and event.version:
        return f"the update sent last is in version {event.version}"
    return f"the update sent last, from version {event.base}, is in no model ({event.state})"


@_line.register
def _(event: events.Resting) -> str:
    return (
        f"waiting {event.seconds:.0f} s, or for a changed model: {event.sent} updates were sent from this one"
    )


@_line.register
def _(event: events.Spent) -> str:
    return (
        f"[yellow]all {event.sent} updates of this task are sent[/], following the log;"
        " spare_sends in federation.toml allows more"
    )


@_line.register
def _(event: events.Done) -> str:
    right = f", {percent(event.accuracy)} right on this member's held-out data"
    return f"[bold green]training is over[/] at version {event.version}" + (
        right if event.accuracy is not None else ""
    )
