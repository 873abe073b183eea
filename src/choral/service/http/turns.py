"""What one member can have of the aggregator at once (§7.3): requests, uploads, and a model in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from choral.service.http.problems import Refused

OPEN_REQUESTS = 6
UPLOAD_BYTES = 512 << 20  # of masked vectors that are held at once, where more than `LEAST_UPLOADS` fit
LEAST_UPLOADS = 4
K = TypeVar("K")


@dataclass(eq=False)
class _Visit:
    header: str
    hang_up: Callable[[], None]


class Visits:
    """Open requests by member. One too many ends another one, so that a member whose connections broke
    unseen is not kept out by them.

    Whoever overhears a header can replay it, and a member in a loop repeats itself: of requests with the
    same header the oldest ends first.
    """

    def __init__(self, most: int = OPEN_REQUESTS) -> None:
        self._most = most
        self._open: dict[str, list[_Visit]] = {}

    def enter(self, member: str, header: str, hang_up: Callable[[], None]) -> Callable[[], None]:
        """A request begins; call what it gives when its answer is out."""
        visit = _Visit(header, hang_up)
        visits = self._open.setdefault(member, [])
        visits.append(visit)
        if len(visits) > self._most:
            often = Counter(entry.header for entry in visits)
            oldest = max(visits[:-1], key=lambda entry: often[entry.header])  # the first of equals
            visits.remove(oldest)
            oldest.hang_up()

        def leave() -> None:
            if visit in visits:
                visits.remove(visit)
            if not visits and self._open.get(member) is visits:
                del self._open[member]

        return leave

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))


class Uploads:
    """Turns to send a masked vector: a bounded number at once, one a member.

    A second upload of a member takes over: the line of the first is likely broken.

    Attributes:
        most: that are held at once.
        held, waiting: that are held now, that wait for their turn.
    """

    def __init__(self, vector_bytes: int) -> None:
        self.most = max(LEAST_UPLOADS, UPLOAD_BYTES // max(1, vector_bytes))
        self.held = self.waiting = 0
        self._room = asyncio.Semaphore(self.most)
        self._of: dict[str, Callable[[], None]] = {}

    @asynccontextmanager
    async def turn(self, member: str, hang_up: Callable[[], None], until: float) -> AsyncIterator[None]:
        """While a vector of `member` is in memory; `until` is on the event loop's clock.

        Raises:
            Refused: it was not its turn by then.
        """
        if member in self._of:
            self._of[member]()
        self._of[member] = hang_up
        try:
            self.waiting += 1
            try:
                async with asyncio.timeout_at(until):
                    await self._room.acquire()
            except TimeoutError:
                raise Refused(
                    408,
                    "too-slow",
                    f"{self.most} other vectors were on their way all the time",
                    "the aggregator's phase_seconds is short for so many members",
                ) from None
            finally:
                self.waiting -= 1
            self.held += 1
            try:
                yield
            finally:
                self.held -= 1
                self._room.release()
        finally:
            if self._of.get(member) is hang_up:
                del self._of[member]


@dataclass(eq=False)
class _Loan:
    loading: asyncio.Future[bytes]
    users: int = 0


@dataclass
class Lending(Generic[K]):
    """Bytes that many are sent at once, in memory once, and only while somebody is."""

    _loans: dict[K, _Loan] = field(default_factory=dict)

    async def lend(
        self, key: K, load: Callable[[], bytes], at_end: Callable[[Callable[[], None]], None]
    ) -> bytes:
        """What `load` gives in a thread; kept until what `at_end` is handed was called by all who have it."""
        loan = self._loans.get(key)
        if loan is None:
            loan = self._loans[key] = _Loan(asyncio.ensure_future(asyncio.to_thread(load)))
        loan.users += 1

        def give_back() -> None:
            loan.users -= 1
            if not loan.users and self._loans.get(key) is loan:
                del self._loans[key]

        at_end(give_back)
        return await asyncio.shield(loan.loading)

    def __len__(self) -> int:
        return len(self._loans)
