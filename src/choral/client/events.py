"""What a member tells whoever runs it: events, fit for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from choral.binding import text as binding

Report = Callable[..., None]
"""Told what happens, as `report(event, **details)`."""

_MOST = 256  # entries of one list: a cohort has no more members


def printable(text: object) -> str:
    """What somebody else wrote, without what moves a cursor, and not for ever."""
    return binding.printable(str(text)[: binding.TEXT])


@dataclass(frozen=True)
class Event:
    """Something that happened to a member.

    All text in it is `printable`: names, reasons and states come from the aggregator.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _clean(getattr(self, each.name)))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return tuple(_clean(item) for item in value[:_MOST])
    return value


Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Warned(Event):
    """What the federation file says that a person should know."""

    name = "warning"
    reason: str


@dataclass(frozen=True)
class Stopped(Event):
    """By a signal."""

    name = "stopped"


@dataclass(frozen=True)
class Unreachable(Event):
    """The aggregator, for now. `problem` is the kind of error."""

    name = "unreachable"
    url: str
    reason: str
    problem: str


@dataclass(frozen=True)
class PutOff(Event):
    """The aggregator answers, and cannot do now what is asked; `problem` as it names it (§7.5)."""

    name = "put off"
    url: str
    reason: str
    problem: str


@dataclass(frozen=True)
class Version(Event):
    """A new model version. `accuracy_before` is that of the version before, over all that measured it."""

    name = "version"
    version: int
    survivors: tuple[str, ...]
    mine: bool
    accuracy_before: float | None


@dataclass(frozen=True)
class Trained(Event):
    """From `version`, whose accuracy on this member's held-out data is told if it is known."""

    name = "trained"
    version: int
    examples: int
    accuracy: float | None
    clipped: int
    capped: bool


@dataclass(frozen=True)
class NotMeasured(Event):
    name = "not measured"
    reason: str


@dataclass(frozen=True)
class NothingToAdd(Event):
    name = "nothing to add"
    version: int


@dataclass(frozen=True)
class Awaiting(Event):
    """An open cohort that this member is in: who is missing, at most five by name."""

    name = "awaiting"
    missing: tuple[str, ...]
    more: int
    connected: bool
    got: int
    needed: int


@dataclass(frozen=True)
class Phase(Event):
    """One is over; `got` is the kind of the aggregator's answer."""

    name = "phase"
    got: str


@dataclass(frozen=True)
class Waiting(Event):
    """No cohort can be joined now."""

    name = "waiting"
    reason: str


@dataclass(frozen=True)
class TooLarge(Event):
    """Something on the way takes no vector of this size; tried again after `seconds`."""

    name = "too large"
    reason: str
    hint: str | None
    seconds: float


@dataclass(frozen=True)
class Aborted(Event):
    """A round without a sum. `spent`: the update went out, and is not sent again."""

    name = "aborted"
    reason: str
    missing: tuple[str, ...]
    spent: bool


@dataclass(frozen=True)
class Refused(Event):
    """A message or an answer broke a rule. `avoided`: with whom no cohort is joined for a while."""

    name = "refused"
    reason: str
    culprits: tuple[str, ...]
    avoided: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class ComplaintNotTaken(Event):
    name = "complaint not taken"
    reason: str


@dataclass(frozen=True)
class KeptOut(Event):
    """Of cohorts, until a person lets this member back in."""

    name = "kept out"
    reason: str
    hint: str | None


@dataclass(frozen=True)
class LetBackIn(Event):
    name = "let back in"
    refusals: int


@dataclass(frozen=True)
class LastOutcome(Event):
    """Of a round whose answer was lost; `version` if the update from `base` is in one."""

    name = "last outcome"
    base: int
    state: str
    version: int | None


@dataclass(frozen=True)
class Resting(Event):
    """`sent` updates went out from this model: the next one waits for `seconds`, or for a changed model."""

    name = "resting"
    version: int
    sent: int
    seconds: float


@dataclass(frozen=True)
class Spent(Event):
    """All updates that this member sends in this task are sent."""

    name = "spent"
    version: int
    sent: int


@dataclass(frozen=True)
class Done(Event):
    """Training is over. `accuracy` on this member's held-out data, if it is known."""

    name = "done"
    version: int
    accuracy: float | None


def silent(event: Event) -> None:
    """Nobody is told."""


def calling(report: Report) -> Tell:
    """Events as `report(event, **details)`: the name, and each field under its own; lists are lists."""

    def tell(event: Event) -> None:
        details = {each.name: _plain(getattr(event, each.name)) for each in fields(event)}
        report(event.name, **details)

    return tell


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def named(name: str, details: dict[str, Any]) -> Event | None:
    """The event that was told as `report(name, **details)`; None for one that there is not.

    Raises:
        TypeError: details that are not those of the event.
    """
    kind = _KINDS.get(name)
    return kind(**details) if kind else None


_KINDS: dict[str, type[Event]] = {kind.name: kind for kind in Event.__subclasses__()}
