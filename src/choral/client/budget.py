"""How many masked vectors a member sends, and how fast from one model (§5.1)."""

from __future__ import annotations

from collections.abc import Callable

from choral.client.journal import Journal
from choral.federation.records import Record

FIRST_WAIT = 60.0
LONGEST_WAIT = 3600.0


class Budget:
    """What is left to send. It is counted by the journal, so a restart gives nothing back.

    Args:
        total: masked vectors over the whole task.
        per_model: that say something of this member's data, from one model, before there is a wait.
        clock: seconds, monotonic.
    """

    def __init__(self, journal: Journal, *, total: int, per_model: int, clock: Callable[[], float]) -> None:
        self._journal = journal
        self.total = total
        self._per_model = per_model
        self._clock = clock
        self._waiting: tuple[tuple[bytes, int], float] | None = None  # for what, until when

    @property
    def spent(self) -> bool:
        return self._journal.sent() >= self.total

    def wait(self, base: Record) -> float:
        """Seconds before another update of this model may go out; they pass while they are asked for.

        The wait before the first one above `per_model` is 60 s, then it doubles up to an hour. It begins
        when it is first asked for, again in every process: restarts do not shorten it.
        """
        sent = self._journal.told(base)
        if sent < self._per_model:
            return 0.0
        what = base.parameters, sent
        if self._waiting is None or self._waiting[0] != what:
            seconds = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(sent - self._per_model, 16))
            self._waiting = what, self._clock() + seconds
        return max(0.0, self._waiting[1] - self._clock())
