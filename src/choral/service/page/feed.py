"""One picture of the federation, made once when something changes and handed to every page that is open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from choral.federation.enrolment import Participant
from choral.federation.progress import Measurement, Progress, note
from choral.protocol.aggregator import Phase
from choral.service.http.problems import Refused
from choral.service.page import view
from choral.service.rounds.events import Moved
from choral.service.rounds.live import or_timeout
from choral.service.rounds.requests import Rounds
from choral.service.state.facts import made
from choral.service.state.sqlite import Store

PAGES = 200  # open at once, at most
ROUNDS = 40  # columns of the grid
VERSIONS = 40  # lines of the log
_APART = 0.3  # seconds between two pictures, at least
_LOOK = 1.0  # seconds after which somebody who went away is noticed
_BEAT = 15.0  # seconds of silence after which a page is told that the line is open
log = structlog.get_logger("choral.feed")
_RETRY = b"retry: 1000\n\n"


class Feed:
    """Pictures as server-sent events. While no page is open it does nothing at all.

    A picture has two halves: `state` changes when a round ends, `live` whenever a message comes in.
    """

    def __init__(
        self,
        aggregator: Participant,
        rounds: Rounds,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me = aggregator
        self._rounds = rounds
        self._conductor = rounds.conductor
        self._store = store
        self._clock = clock
        self._pages: set[asyncio.Event] = set()
        self._poked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._updating = asyncio.Lock()
        self._read = -1
        self._measured: dict[int, Measurement] = {}
        self._progress = Progress()
        self._key: tuple[int, int] = (-1, -1)
        self._state, self._live = b"", b""
        self._counts = [0, 0]
        rounds.events.subscribe(Moved, lambda _: self._poked.set())
        rounds.metrics.reads("dashboard_pages", "Dashboards that are open.", self.__len__)

    def __len__(self) -> int:
        return len(self._pages)

    def room(self) -> None:
        """Raises `Refused` if too many pages are open."""
        if len(self._pages) >= PAGES:
            raise Refused(503, "too-many-pages", f"{PAGES} dashboards are open already", "close some of them")

    async def versions(self, before: int) -> bytes:
        """A page of the model log as JSON, newest first, from the version below `before` on."""
        await self._update()  # what was measured is known up to the newest record
        return await asyncio.to_thread(self._page, before)

    def _page(self, before: int) -> bytes:
        start = max(-1, before - 1 - VERSIONS)
        found = self._store.records(start, before - 1 - start)
        rows = [self._store.round(record.round_id) for record in found]
        when = made(row for row in rows if row is not None)
        best = self._progress.best
        lines = [view.version_of(record, self._measured, best, when) for record in reversed(found)]
        return json.dumps(lines).encode()

    async def pictures(self) -> AsyncIterator[bytes]:
        """The whole picture at once, then each half when it has changed."""
        page = asyncio.Event()
        self._pages.add(page)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            await self._update()
            seen = list(self._counts)
            yield _RETRY + self._event("state") + self._event("live")
            while not self._conductor.stopped.is_set():
                await or_timeout(page.wait(), _BEAT)
                page.clear()
                fresh = [self._counts[i] != seen[i] for i in range(2)]
                seen = list(self._counts)
                parts = [self._event(name) for name, new in zip(("state", "live"), fresh, strict=True) if new]
                yield b"".join(parts) or b"event: beat\ndata: 0\n\n"
        finally:
            self._pages.discard(page)

    async def snapshot(self) -> bytes:
        """The whole picture as one JSON object."""
        await self._update()
        return b'{"state":' + self._state + b',"live":' + self._with_clock() + b"}"

    # ----- making pictures --------------------------------------------------------------------

    async def _look(self) -> None:
        while self._pages and not self._conductor.stopped.is_set():
            await or_timeout(self._poked.wait(), _LOOK)
            self._poked.clear()
            before = list(self._counts)
            try:
                await self._update()
            except Exception:  # the next one may be there
                log.exception("no picture for the dashboards")
            if self._counts != before:
                self._tell()
            await asyncio.sleep(_APART)
        self._tell()

    def _tell(self) -> None:
        for page in self._pages:
            page.set()

    async def _update(self) -> None:
        async with self._updating:
            key = (self._rounds.training.head.version, self._conductor.rounds_over)
            if key != self._key:
                state = await asyncio.to_thread(self._history)
                self._key = key
                if state != self._state:
                    self._state = state
                    self._counts[0] += 1
            live = json.dumps(self.live(), separators=(",", ":")).encode()
            if live != self._live:
                self._live = live
                self._counts[1] += 1

    def _history(self) -> bytes:
        fresh = self._store.records(self._read)
        for record in fresh:
            self._progress = self._progress.after(record)
            note(self._measured, self._progress.latest)
            self._read = record.version
        newest = self._store.records(self._read - VERSIONS)
        rows = self._store.rounds(ROUNDS)
        found = view.history(self._me, self._measured, newest, rows, self._progress)
        return json.dumps(found, separators=(",", ":")).encode()

    def live(self) -> dict[str, Any]:
        """What is going on now. Deadlines are on the clock that goes out beside it."""
        presence, conductor = self._rounds.presence, self._conductor
        here = {name: presence.state(name) for name in self._me.federation.members}
        lives = [live for live in conductor.lives() if live.machine.phase in view.STATION]
        busy = {name for live in lives for name in live.machine.received(Phase.ADVERTISE)}
        cohorts = conductor.cohorts
        apart = {live: cohorts.kept_apart(live) for live in lives}
        kept, rest = cohorts.kept_out, {name: presence.resting(name) for name in here}
        idle = busy.union(kept, *apart.values(), (name for name, kind in rest.items() if kind))
        training = [name for name, state in here.items() if state == "connected" and name not in idle]
        states = list(here.values())
        return {
            "version": self._rounds.training.head.version,
            "over": self._rounds.training.over,
            "stopping": conductor.draining,
            "members": "".join(state[0] for state in states[: view.NAMED]),
            "connected": states.count("connected"),
            "enrolled": len(states),
            "training": view.some(training),
            "cohorts": [view.cohort(live, conductor.awaited(live), here, apart[live]) for live in lives],
            "stuck": self._rounds.stuck or None,
            "kept_out": view.shut_out(kept),
            "resting": view.resting(rest),
        }

    def _with_clock(self) -> bytes:
        return b'{"clock":%.1f,' % self._clock() + self._live[1:]

    def _event(self, name: str) -> bytes:
        data = self._state if name == "state" else self._with_clock()
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
