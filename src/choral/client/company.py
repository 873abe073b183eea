"""With whom a member stands in a cohort: whose messages it had to refuse, and how long it waits (§4.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

MOST = 16  # names that a member may ask to be without
_TWICE = 2  # refusals over one member before it is one too many: once may be an accident on the way
_AVOIDED = 600.0  # seconds, doubling with every time up to a day
_DAY = 86400.0
_LONGEST = 60.0


class Company:
    """What a member remembers of its refusals. It never ends, and nobody is avoided for ever.

    Args:
        others: enrolled members that may be avoided; accusations of anybody else are not heeded.
        minimum: smallest cohort that this member takes part in: so many stay, itself included.
        clock: seconds, monotonic.
    """

    def __init__(self, others: Collection[str], minimum: int, clock: Callable[[], float]) -> None:
        self._others = frozenset(others)
        self._most = max(0, min(MOST, 1 + len(self._others) - minimum))
        self._clock = clock
        self._named: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._until: dict[str, float] = {}
        self._in_a_row = 0

    def well(self) -> None:
        """A round went well."""
        self._in_a_row = 0

    def refused(self, culprits: Iterable[str]) -> list[str]:
        """A round was refused, over these members; who is avoided from now on because of it."""
        self._in_a_row += 1
        found = []
        for name in self._others.intersection(culprits):
            self._named[name] += 1
            if self._named[name] >= _TWICE and self._most:
                found.append(self._avoid(name))
        return found

    def _avoid(self, name: str) -> str:
        seconds = min(_DAY, _AVOIDED * 2.0 ** min(self._times[name], 16))
        self._times[name] += 1
        self._named[name] = _TWICE - 1  # once more, after the time is over, is enough
        self._until[name] = self._clock() + seconds
        while len(self._until) > self._most:
            del self._until[min(self._until, key=lambda other: (self._times[other], self._until[other]))]
        self._in_a_row = 0
        return name

    @property
    def without(self) -> tuple[str, ...]:
        """Whom this member asks cohorts to be without, sorted."""
        self._until = {name: until for name, until in self._until.items() if until > self._clock()}
        return tuple(sorted(self._until))

    @property
    def pause(self) -> float:
        """Seconds before this member joins again; they grow while nothing helps."""
        return 0.0 if not self._in_a_row else min(_LONGEST, 2.0 ** min(self._in_a_row - 1, 10))
