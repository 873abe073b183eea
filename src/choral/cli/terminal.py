"""How things look in a terminal: errors with hints, logs, a member's events as lines."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TypeVar

import click
import structlog
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from choral.binding.text import printable
from choral.errors import ChoralError
from choral.service.logs import bounded

T = TypeVar("T")
_SLOW = 1.0  # seconds after which a person wants to see that something happens


class Harmless(Console):
    """A console that shows text and nothing else: what others wrote cannot move the cursor or set a title."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.replace("\n", "").isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)


# in a pipe or a file there is no edge to wrap at
console = Harmless(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Harmless(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)


def say(template: str, *values: Any, to: Console | None = None) -> None:
    """Print a line of markup in which `{}` stands for a value: a path or a name in it is text, not markup."""
    texts = (escape(str(value)) if isinstance(value, str | os.PathLike) else value for value in values)
    (to or console).print(template.format(*texts), soft_wrap=True)


def complain(error: ChoralError) -> None:
    """An error as a sentence, the culprits, a hint."""
    click.secho(f"error: {printable(error.reason)}", fg="red", err=True)
    for name in ("culprits", "missing"):
        if names := getattr(error, name, ()):
            click.echo(f"  {name}: {printable(', '.join(names))}", err=True)
    if error.hint:
        click.echo(f"  hint: {printable(error.hint)}", err=True)


def leave(error: ChoralError) -> NoReturn:
    """End the process with a sentence: code 75 (sysexits' EX_TEMPFAIL) for what may pass, else 1.

    Whoever restarts processes need not restart one that a person has to look at first.
    """
    complain(error)
    sys.exit(75 if error.passes else 1)


def set_up_logs(form: str) -> None:
    """Logs to standard error: readable on a terminal, JSON elsewhere, or as `form` says."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    last: Any = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the pretty one shows variables
        )
        if text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            bounded,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar with an estimate on a terminal, once something takes over a second; call what it gives with
    how much was done. Without a total, the time that went by.
    """
    told = TextColumn("{task.description}", markup=False)
    if total is None:
        progress = Progress(SpinnerColumn(), told, TimeElapsedColumn(), console=errors, transient=True)
    else:
        columns = (told, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=errors, transient=True)
    task = progress.add_task(what, total=total)
    timer = threading.Timer(_SLOW, progress.start)
    timer.daemon = True
    if errors.is_terminal:
        timer.start()
    try:
        yield lambda done: progress.advance(task, done)
    finally:
        timer.cancel()
        if timer.ident:  # there is a terminal; without one, even stopping would print a line
            timer.join()
            progress.stop()


def working(what: str) -> AbstractContextManager[Any]:
    """The same for what cannot be estimated: a sign of life, and the time that went by."""
    return bar(what, None)


def steps(things: Iterable[T], what: str, total: int) -> Iterator[T]:
    """`things`, one after the other, under a `bar`."""
    with bar(what, total) as advance:
        for thing in things:
            yield thing
            advance(1)


def version(text: str) -> int | str:
    """A model version as a person names it: a number, `best` or `newest`."""
    return text if text in ("best", "newest") else int(text)


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def show(event: str, **details: Any) -> None:
    """Print what a member does: the `report` of `choral join`, and of a script of one's own."""
    if line := member_line(event, details):
        console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {line}")


def member_line(event: str, details: dict[str, Any]) -> str | None:
    """What a member's event means to a person; None for those that only a machine wants."""
    form = _EVENTS.get(event)
    return form({key: _escaped(value) for key, value in details.items()}) if form else None


def _escaped(value: Any) -> Any:
    """Text as it is: what an aggregator or a member says is not markup."""
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def _version(d: dict[str, Any]) -> str:
    if d["version"] == 0:
        return "[dim]version 0: the initial model[/]"
    share = "with this member's update" if d["mine"] else "without this member's update"
    before = f", version {d['version'] - 1} was {percent(d['accuracy_before'])} right on held-out data"
    return f"[green]version {d['version']}[/] from {len(d['survivors'])} members, {share}{before}"


def _trained(d: dict[str, Any]) -> str:
    notes = [f"{d['clipped']} coordinates clipped"] if d["clipped"] else []
    notes += ["weight capped"] if d["capped"] else []
    here = f"; the model was {percent(d['accuracy'])} right here" if d["accuracy"] is not None else ""
    return f"trained on {d['examples']} examples from version {d['version']}{here}" + "".join(
        f" ({note})" for note in notes
    )


_EVENTS: dict[str, Any] = {
    "warning": lambda d: f"[yellow]warning:[/] {d['reason']}",
    "version": _version,
    "trained": _trained,
    "waiting": lambda d: f"[dim]waiting: {d['reason']}[/]",
    "awaiting": lambda d: (
        f"waiting for {', '.join(d['missing']) or 'the cohort to close'}"
        + (f" and {d['more']} more" if d["more"] else "")
        + ("" if d["connected"] or not d["missing"] else " (not connected)")
        + f": {d['got']} of at least {d['needed']} members are in"
    ),
    "stopped": lambda d: "stopped",
    "resting": lambda d: (
        f"waiting {d['seconds']:.0f} s, or for a changed model: {d['sent']} updates were sent from this one"
    ),
    "spent": lambda d: (
        f"[yellow]all {d['sent']} updates of this task are sent[/], following the log;"
        " spare_sends in federation.toml allows more"
    ),
    "nothing to add": lambda d: f"nothing to add to version {d['version']}: sending zeros",
    "not measured": lambda d: f"[yellow]not measured:[/] {d['reason']}",
    "kept out": lambda d: (
        f"[red]kept out of cohorts:[/] {d['reason']}"
        + (f"; {d['hint']}" if d["hint"] else "")
        + ". This process waits, and asks again every few minutes"
    ),
    "let back in": lambda d: "[green]let back in:[/] a cohort took this member again",
    "too large": lambda d: f"[red]not sent:[/] {d['reason']}; {d['hint']}",
    "aborted": lambda d: (
        f"[yellow]round aborted:[/] {d['reason']}"
        + (f" (missing: {', '.join(d['missing'])})" if d["missing"] else "")
        + (", training again" if d["spent"] else "")
    ),
    "refused": lambda d: (
        f"[red]refused:[/] {d['reason']}"
        + (f" (accused: {', '.join(d['culprits'])})" if d["culprits"] else "")
        + (f"; asking for cohorts without {', '.join(d['avoided'])}" if d.get("avoided") else "")
    ),
    "unreachable": lambda d: f"[yellow]{d['url']} cannot be reached[/] ({d['reason']}), trying on",
    "put off": lambda d: f"[yellow]not now:[/] {d['reason']}; trying on",
    "last outcome": lambda d: (
        f"the update sent last is in version {d['version']}"
        if d["state"] == "done" and d["version"]
        else f"the update sent last, from version {d['base']}, is in no model ({d['state']})"
    ),
    "done": lambda d: (
        f"[bold green]training is over[/] at version {d['version']}"
        + (
            f", {percent(d['accuracy'])} right on this member's held-out data"
            if d["accuracy"] is not None
            else ""
        )
    ),
}
