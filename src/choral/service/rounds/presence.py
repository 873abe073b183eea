"""Who is there: a member is waited for while it has a connection open, or had one moments ago (§7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

RESTING = ("spent", "pause")


class Presence:
    """Connections of members over time.

    Args:
        members: names of all that are enrolled.
        clock: seconds, monotonic.
        gone_seconds: after this long without a connection a member counts as gone.
        startup_seconds: members never heard from are waited for this long after the start.
        changed: called when a connection opens or closes.
    """

    def __init__(
        self,
        members: Iterable[str],
        clock: Callable[[], float],
        *,
        gone_seconds: float,
        startup_seconds: float,
        changed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._gone = gone_seconds
        self._startup_over = clock() + startup_seconds
        self._slept_until = clock()
        self._changed = changed
        self._open: dict[str, Counter[str]] = {name: Counter() for name in members}
        self._heard: dict[str, float] = {}
        self._resting: dict[str, str] = {}

    @contextmanager
    def connection(self, member: str, session: str) -> Iterator[None]:
        """While a request of `member` is being answered; `session` tells its processes apart."""
        sessions = self._open[member]
        sessions[session] += 1
        self._heard[member] = self._clock()
        self._changed()
        try:
            yield
        finally:
            sessions[session] -= 1
            if not sessions[session]:
                del sessions[session]
            self._heard[member] = self._clock()
            self._changed()

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self._open)

    def connected(self, member: str, session: str | None = None) -> bool:
        """Whether the member (or one of its processes) has a request open."""
        sessions = self._open[member]
        return session in sessions if session else bool(sessions)

    def seconds_since(self, member: str) -> float | None:
        """How long ago the member was heard from; 0 while connected, None if never."""
        if self.connected(member):
            return 0.0
        return self._clock() - self._heard[member] if member in self._heard else None

    def state(self, member: str) -> str:
        """connected, away or never-seen, as a person is told; short gaps between requests do not count."""
        since = self.seconds_since(member)
        if since is None:
            return "never-seen"
        return "connected" if since < self._gone else "away"

    def rest(self, member: str, kind: str | None) -> None:
        """What a member says about itself: it cannot send for now (`spent`, `pause`), or it can (None)."""
        if self._resting.get(member) == kind:
            return
        if kind in RESTING:
            self._resting[member] = kind
        else:
            self._resting.pop(member, None)
        self._changed()

    def resting(self, member: str) -> str | None:
        """What it said last, while it is there: of one that went away nothing is known."""
        return self._resting.get(member) if self.state(member) == "connected" else None

    def states(self) -> list[str]:
        """`state` of every enrolled member."""
        return [self.state(member) for member in self._open]

    def slept(self, since: float, until: float) -> None:
        """Nobody could be heard from `since` to `until`: it counts for nobody. May be said twice."""
        since = max(since, self._slept_until)
        if until <= since:
            return
        self._slept_until = until
        self._startup_over += until - since if self._startup_over > since else 0.0
        for member, heard in self._heard.items():
            self._heard[member] = heard + until - max(since, min(heard, until))

    def waited_for(self, member: str) -> bool:
        """Whether a round should wait for this member."""
        since = self.seconds_since(member)
        if since is None:
            return self._clock() < self._startup_over
        return since < self._gone
