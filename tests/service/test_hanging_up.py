"""A client that hangs up at the very end of its poll leaves everything as it was for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from choral.client.events import silent
from choral.client.journal import Journal
from choral.client.model_log import ModelLog
from choral.federation.enrolment import Participant
from choral.service.rounds.live import or_timeout
from choral.service.rounds.requests import Rounds
from choral.service.state.sqlite import Store
from choral.service.training import Training
from house import House, make_folder

POLL = 0.01  # seconds

Poll = tuple[asyncio.Condition, Callable[[], Awaitable[object]]]


@pytest.fixture(params=["the aggregator's records", "a member's log"])
async def poll(request, tmp_path) -> AsyncIterator[Poll]:
    """What a long poll waits on, and the wait."""
    home = House(make_folder(tmp_path / "fed", 3), wait_seconds=POLL)
    if request.param == "a member's log":
        journal = Journal(tmp_path / "journal")
        me = Participant.load(home.root / "m1")
        log = ModelLog(me, None, journal, silent)  # type: ignore[arg-type]
        yield log._moved, lambda: log.newer_within(0, POLL)
        journal.close()
        return
    store = Store(home.settings.state)
    rounds = Rounds(home.aggregator, home.settings, Training(home.aggregator, store), store)
    yield rounds.progress, lambda: rounds.newer_than(0)
    store.close()


async def test_a_condition_stays_usable_when_a_waiting_client_hangs_up_at_the_end_of_its_poll(poll):
    condition, wait = poll
    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    await condition.acquire()  # whoever has news
    await asyncio.sleep(3 * POLL)  # the poll is over: it wants the lock back to say so
    waiting.cancel()
    condition.release()  # between this and the poll's turn to take it, the client is gone
    await asyncio.gather(waiting, return_exceptions=True)
    for _ in range(5):
        await asyncio.sleep(0)
    async with asyncio.timeout(1), condition:
        condition.notify_all()


async def test_a_task_that_is_told_to_stop_just_when_its_wait_is_over_stops():
    """Otherwise an aggregator that is told to stop waits for ever for a round that never heard of it."""
    event = asyncio.Event()
    went_on = False

    async def drive() -> None:
        nonlocal went_on
        await or_timeout(event.wait(), 60)
        await asyncio.sleep(0)
        went_on = True

    driving = asyncio.create_task(drive())
    await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    assert not went_on
