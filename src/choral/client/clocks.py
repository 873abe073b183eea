"""Which clock is off, when the aggregator refuses a request for its time (§7.4)."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

NOTICED = 30.0  # seconds between two clocks that are worth a word
_JUMP = 5.0  # seconds that a clock may gain on the steady one without having been set


class Clocks:
    """This machine's clock and the aggregator's, as the `Date` of its answers shows it.

    Args:
        wall: seconds since 1970, as this machine has them.
        steady: seconds that nobody sets.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall, self._steady = wall, steady
        self._good: tuple[float, float, float | None] | None = None

    def good(self, date: str | None) -> None:
        """A request was answered well: both clocks were good enough by now."""
        self._good = self._wall(), self._steady(), _seconds(date)

    def apart(self, date: str | None) -> float | None:
        """Seconds that the aggregator's clock is ahead of this machine's, if its answer tells."""
        found = _seconds(date)
        return None if found is None else found - self._wall()

    def blame(self, date: str | None) -> str | None:
        """What to tell a person about two clocks that differ; None if they do not, or nothing is known."""
        apart = self.apart(date)
        if apart is None or abs(apart) < NOTICED:
            return None
        both = f"this machine says {_clock(self._wall())}, the aggregator {_clock(self._wall() + apart)}"
        if self._good is None:
            return f"{both}: one of the two clocks is wrong"
        wall, steady, their = self._good
        passed = self._steady() - steady
        mine = self._wall() - wall - passed
        theirs = None if their is None else self._wall() + apart - their - passed
        if abs(mine) > _JUMP:
            return f"{both}: this machine's clock was moved by {mine:+.0f} s since the last good answer"
        if theirs is not None and abs(theirs) > _JUMP:
            return f"{both}: the aggregator's clock was moved by {theirs:+.0f} s since its last good answer"
        return f"{both}: one of the two clocks is wrong"


def _seconds(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
