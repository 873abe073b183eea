"""What happens in rounds, told to whoever subscribed: log lines, figures, the page, the witness of a demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import structlog

from choral.errors import Ending

log = structlog.get_logger("choral.rounds")


@dataclass(frozen=True, slots=True)
class Moved:
    """Something is not as it was that a person may be looking at."""


@dataclass(frozen=True, slots=True)
class MessageIn:
    """A member's message: the phase that it belongs to, or `complaint`; bytes."""

    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class AnswerOut:
    """What a phase led to, to one member; bytes."""

    phase: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class VectorTaken:
    """A masked vector that is in. It is lent: nobody may keep it, or change it."""

    round: bytes
    member: str
    vector: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class SumMade:
    """The sum, masks off. It is lent, too."""

    round: bytes
    vector: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class SharesDisputed:
    """Shares did not fit, and nothing proves whose fault it was: dealer and holder, the first of `count`."""

    round: bytes
    pairs: tuple[tuple[str, str], ...]
    count: int


@dataclass(frozen=True, slots=True)
class PhaseOver:
    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CohortClosed:
    round: bytes
    base: int
    members: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class CohortEnded:
    """One that never closed, and so is no round. `kind` is why."""

    base: int
    reason: str
    kind: Ending


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """By a complaint. `accused` are members of the cohort."""

    round: bytes
    member: str
    reason: str
    accused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionMade:
    """A round's sum is in a model. `culprits` revealed wrong shares; `seconds` since its first member."""

    round: bytes
    version: int
    survivors: tuple[str, ...]
    culprits: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """A round ended without a sum; `missing` and `culprits` are enrolled."""

    round: bytes
    phase: str
    reason: str
    kind: Ending
    missing: tuple[str, ...]
    culprits: tuple[str, ...]


E = TypeVar("E")


class Events:
    """Any number of subscribers, by the class of what they want to be told. In the event loop only."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Any], list[Callable[[Any], None]]] = {}

    def subscribe(self, kind: type[E], told: Callable[[E], None]) -> None:
        """Call `told` with every event of this class from now on, in the order of subscription."""
        self._subscribers.setdefault(kind, []).append(told)

    def say(self, event: object) -> None:
        """Tell its subscribers. One that fails is a line in the log: no round and no other depends on it."""
        for told in self._subscribers.get(type(event), ()):
            try:
                told(event)
            except Exception:
                log.exception("an event was lost on one that wanted it", kind=type(event).__name__)
