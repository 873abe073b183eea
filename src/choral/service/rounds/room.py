"""Whether what a cohort leads to can be saved: asked before it is opened, and before it is closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import structlog

from choral.errors import NoRoom
from choral.service.state.sqlite import Store

UNSAVED = (sqlite3.OperationalError, OSError)  # the disk is full, locked, gone: it may pass
PAUSES = (1.0, 30.0)  # seconds after a save that failed; the first, doubling up to the second

log = structlog.get_logger("choral.rounds")


class Room:
    """The disk as rounds need it. A line in the log when it becomes too small and when that is over.

    Args:
        needed: bytes that the cohorts of now would take.
        clock: seconds, monotonic.
    """

    def __init__(self, store: Store, needed: Callable[[], int], clock: Callable[[], float]) -> None:
        self._store = store
        self._needed = needed
        self._clock = clock
        self._pause = 0.0
        self._until = 0.0
        self._trouble: NoRoom | None = None

    def check(self) -> None:
        """Raises `NoRoom` if there is none, or if saving failed a moment ago."""
        if self._trouble is not None and self._clock() < self._until:
            raise self._again(self._trouble)
        try:
            self._store.room(self._needed())
        except NoRoom as error:
            self._say(error)
            raise
        except OSError as error:  # the folder itself is gone, or cannot be looked at
            self._say(told := unsaved(error))
            raise told from error
        if not self._pause:
            self._over()

    def failed(self, error: Exception) -> tuple[NoRoom, float]:
        """Saving failed: what members are told, and the seconds after which it is worth another try."""
        least, most = PAUSES
        self._pause = min(most, 2 * self._pause) if self._pause else least
        self._until = self._clock() + self._pause
        told = unsaved(error)
        self._say(told)
        return told, self._pause

    def worked(self) -> None:
        """Something was saved."""
        self._pause = 0.0
        self._over()

    def _say(self, error: NoRoom) -> None:
        if self._trouble is None:
            log.error("nothing can be saved", reason=error.reason, hint=error.hint)
        self._trouble = self._again(error)

    def _over(self) -> None:
        if self._trouble is not None:
            log.info("what is made can be saved again")
        self._trouble = None

    @staticmethod
    def _again(error: NoRoom) -> NoRoom:
        return NoRoom(error.reason, hint=error.hint)  # without a traceback, and so without frames


def unsaved(error: Exception) -> NoRoom:
    """What members are told when the disk or the database refuses."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return NoRoom(f"the aggregator cannot save anything now: {why[:200]}", hint=WAIT)


WAIT = "members wait and go on by themselves; whoever runs the aggregator looks at its disk and its log"
