"""How things look in a terminal: errors with hints, logs, a member's events as lines."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TextIO, TypeVar, cast

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
from choral.service.logs import Lossy, bounded

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
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Lossy(sys.stderr))),
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
    """Print what a member does: the `report` of a script of one's own."""
    from choral.cli.member_lines import show_event  # noqa: PLC0415  (it needs this module)
    from choral.client.events import named  # noqa: PLC0415

    if (found := named(event, details)) is not None:
        show_event(found)
