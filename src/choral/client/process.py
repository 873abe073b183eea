"""What a member's process owes to whoever runs it: a heartbeat, a way to stop, a word while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from choral.client.events import Awaiting, Stopped, Tell
from choral.client.exchange import Aggregator
from choral.errors import ChoralError
from choral.ping import HEARTBEAT

_BEAT = 5.0
_SILENT = 3.0  # seconds a cohort may take to close before a person wants to know why
_ASK = 5.0
_SELDOM = 60.0
_NAMED = 5  # so many absent members are named, the others counted


async def beat(state: Path) -> None:
    """Touch the heartbeat for ever: `choral.ping` looks at it."""
    while True:
        with contextlib.suppress(OSError):
            (state / HEARTBEAT).touch()
        await asyncio.sleep(_BEAT)


def stop_on_sigterm(tell: Tell) -> None:
    """SIGTERM ends the process as Ctrl-C does, and without a traceback; also process 1 of a container.

    Nothing is lost: what must not be forgotten is in the journal already.
    """

    def stop() -> None:
        tell(Stopped())
        raise SystemExit(128 + signal.SIGTERM)

    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)


@contextlib.asynccontextmanager
async def telling(
    aggregator: Aggregator, member: str, enrolled: Collection[str], tell: Tell
) -> AsyncIterator[None]:
    """While a cohort is open for long: say for whom it waits, whenever that changes."""

    async def look() -> None:
        await asyncio.sleep(_SILENT)
        said: Awaiting | None = None
        pause = _ASK
        while True:
            with contextlib.suppress(ChoralError, ValueError, LookupError, TypeError, AttributeError):
                found = absent(await aggregator.status(), member, enrolled)
                if found and found != said:
                    tell(found)
                    said = found
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SELDOM)  # a thousand that wait are not to keep the aggregator busy

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def absent(status: dict[str, Any], member: str, enrolled: Collection[str]) -> Awaiting | None:
    """Who of the `enrolled` is missing in the open cohort that `member` is in, by the aggregator's status."""
    for cohort in status["cohorts"]:
        got = [name for name in enrolled if name in cohort["in"][cohort["phase"]]]
        if cohort["phase"] != "advertise" or member not in got:
            continue
        away = [name for name in enrolled if name not in got]
        awaited = [name for name in away if name in cohort["awaited"]]
        # below the minimum anybody who is enrolled would do
        missing = awaited or (away if len(got) < cohort["needed"] else [])
        return Awaiting(
            missing=tuple(missing[:_NAMED]),
            more=max(0, len(missing) - _NAMED),
            connected=any(status["members"][name]["connected"] is True for name in missing),
            got=len(got),
            needed=int(cohort["needed"]),
        )
    return None
