"""A federation without a socket, in time that is not waited for: real members, a real `AggregatorRound`.

`Federation.seat` is a `client.exchange.Aggregator`; what goes wrong is scripted by overriding it, or by
`Federation.fails`. To be run by `virtual.run`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from choral.client.events import calling
from choral.client.journal import Journal
from choral.client.member import Member
from choral.errors import ChoralError, OutOfPhase, Superseded, UnknownRound
from choral.federation import records
from choral.federation.enrolment import INITIAL, Participant
from choral.federation.records import PAGE, Record, Records
from choral.learning import Softmax, model_file
from choral.learning.update import flatten, unflatten
from choral.protocol.aggregator import AggregatorRound, Phase
from choral.protocol.messages import Advertise, Complaint
from choral.protocol.transcript import sign
from choral.vectors import fixed_point
from choral.vectors.totals import Totals
from house import CLASSES, FEATURES, examples, make_folder
from virtual import now, run

__all__ = ["Federation", "Seat", "now", "run"]

PHASES = (Phase.ADVERTISE, Phase.SHARE, Phase.MASK, Phase.CONSISTENCY, Phase.UNMASK)
SECONDS = 5.0  # that a cohort or a phase waits for somebody
POLL = 20.0


class Live:
    """One cohort: a machine, who drives it, and an event a phase."""

    def __init__(self, machine: AggregatorRound, base: Record) -> None:
        self.machine, self.base = machine, base
        self.closed = {phase: asyncio.Event() for phase in PHASES}
        self.woken = asyncio.Event()
        self.failure: ChoralError | None = None
        self.record: Record | None = None


class Federation:
    """The aggregator of `n` members, and their folders.

    Attributes:
        fails: asked before each phase is closed, with the number of the round and the phase; an error aborts.
        sums: the totals of every sum that was made.
        vectors: (member, version, weight of the anchor's model) of each masked vector that came in.
    """

    def __init__(self, root: Path, n: int = 3, **task: Any) -> None:
        self.folder = make_folder(root / "fed", n, **task)
        self.me = Participant.load(self.folder / "aggregator")
        initial = (self.folder / "aggregator" / INITIAL).read_bytes()
        self.models = {model_file.digest(initial): initial}
        first = records.first(self.me.identity, self.me.task.digest, model_file.digest(initial), bytes(32))
        self.log = [first]
        self.fails: Callable[[int, Phase], ChoralError | None] = lambda number, phase: None
        self.rounds = 0
        self.forming: list[Live] = []
        self.live: dict[bytes, Live] = {}
        self.sums: list[Totals] = []
        self.vectors: list[tuple[str, int]] = []
        self.apart: dict[str, frozenset[str]] = {}
        self.resting: dict[str, str | None] = {}
        self.here: set[str] = set()
        self.complaints: list[Complaint] = []
        self.events: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._moved = asyncio.Event()

    @property
    def head(self) -> Record:
        return self.log[-1]

    def seat(self, name: str) -> Seat:
        return Seat(self, name)

    def told(self, name: str, event: str) -> list[dict[str, Any]]:
        return [details for kind, details in self.events.get(name, []) if kind == event]

    @contextmanager
    def member(self, name: str, trainer: Any = None, seat: Any = None, data: Any = None) -> Iterator[Member]:
        """A real member with its real journal."""
        me = Participant.load(self.folder / name)
        journal = Journal(self.folder / name / "state")
        events = self.events.setdefault(name, [])
        try:
            yield Member(
                me, trainer or Softmax(FEATURES, CLASSES, epochs=1, batch=8),
                data or examples(int(name[1:])), seat or self.seat(name), journal, random=os.urandom,
                tell=calling(lambda event, **details: events.append((event, {"at": now()} | details))),
            )  # fmt: skip
        finally:
            journal.close()

    async def train(self, **members: Any) -> list[Record]:
        """All members to their ends; `members` may say what `member` is called with, by name."""

        async def one(name: str) -> Record:
            with self.member(name, **members.get(name, {})) as found:
                return await found.run()

        return await asyncio.gather(*(one(name) for name in self.me.federation.members))

    # ----- rounds -------------------------------------------------------------------------------

    async def drive(self, live: Live) -> None:
        self.rounds += 1
        number, machine = self.rounds, live.machine
        try:
            for phase in PHASES:
                await self._collect(live, phase)
                if phase is Phase.ADVERTISE:
                    self.forming.remove(live)
                if error := self.fails(number, phase):
                    raise error
                machine.close()
                if phase is Phase.ADVERTISE:
                    self.live[machine.round_id] = live
                if phase is Phase.UNMASK:
                    live.record = self._commit(live)
                live.closed[phase].set()
        except ChoralError as error:
            live.failure = error
            if live in self.forming:
                self.forming.remove(live)
            for event in live.closed.values():
                event.set()

    async def _collect(self, live: Live, phase: Phase) -> None:
        deadline = now() + SECONDS
        while live.machine.awaited:
            in_time = now() < deadline
            if phase is Phase.ADVERTISE:
                if self.head is not live.base:
                    raise Superseded("another version came first")
                if not in_time and len(live.machine.received(phase)) >= live.machine.needed:
                    return
            elif not in_time:
                return
            live.woken.clear()
            try:
                async with asyncio.timeout(deadline - now() if in_time else SECONDS):
                    await live.woken.wait()
            except TimeoutError:
                pass

    def _commit(self, live: Live) -> Record:
        total, task = live.machine.total, self.me.task
        assert total is not None
        totals = Totals.decode(total.auxiliary)
        self.sums.append(totals)
        base = model_file.decode(self.models[live.base.parameters], task.arrays)
        mean = fixed_point.decode(total.main, totals.weight, task.plan)
        data = model_file.encode(unflatten(flatten(base, task.arrays) + mean, task.arrays))
        self.models[model_file.digest(data)] = data
        record = replace(
            live.base, version=live.base.version + 1, previous=live.base.digest, base=live.base.digest,
            parameters=model_file.digest(data), round_id=live.machine.round_id or b"",
            survivors=tuple(total.survivors), totals=tuple(int(word) for word in total.auxiliary),
        )  # fmt: skip
        self.log.append(sign(self.me.identity, record))
        self._moved.set()
        self._moved = asyncio.Event()
        return self.head

    async def newer(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            pass


class Seat:
    """One member's `client.exchange.Aggregator`."""

    def __init__(self, federation: Federation, name: str) -> None:
        self.federation = federation
        self.name = name

    async def task(self) -> bytes:
        return self.federation.me.task.encode()

    async def records(self, after: int, resting: str | None = None) -> Records:
        federation = self.federation
        federation.resting[self.name] = resting
        if federation.head.version == after:
            await federation.newer(POLL)
        log = federation.log
        return Records(log[-1].version, tuple(log[after + 1 : after + 1 + PAGE]))

    async def model(self, digest: bytes) -> bytes:
        return self.federation.models[digest]

    async def outcome(self, round_id: bytes) -> Any:
        for record in self.federation.log:
            if record.round_id == round_id:
                survivors = list(record.survivors)
                return {"state": "done", "details": {"version": record.version, "survivors": survivors}}
        if round_id in self.federation.live:
            return {"state": "aborted"}
        raise UnknownRound("no such round")

    async def status(self) -> Any:
        return None

    async def join(self, advertise: Advertise, without: Any) -> Any:
        federation = self.federation
        federation.apart[self.name] = frozenset(without)
        base = federation.head
        if advertise.ctx != base.context or base.version >= federation.me.task.rounds:
            raise Superseded("the newest is another")
        for live in federation.forming:
            if self._fits(live):
                break
        else:
            machine = AggregatorRound(federation.me.federation.pinned, federation.me.parameters, base.context)
            live = Live(machine, base)
            federation.forming.append(live)
            live.driver = asyncio.create_task(federation.drive(live))  # type: ignore[attr-defined]
        live.machine.withdraw(self.name)
        return await self._answer(live, advertise, Phase.ADVERTISE, live.machine.roster)

    def _fits(self, live: Live) -> bool:
        apart = self.federation.apart
        there = live.machine.received(Phase.ADVERTISE)
        return not any(other in apart[self.name] or self.name in apart.get(other, ()) for other in there)

    async def share(self, shares: Any) -> Any:
        live = self._find(shares.round_id)
        return await self._answer(live, shares, Phase.SHARE, lambda: live.machine.inbox(self.name))

    async def mask(self, vector: Any) -> Any:
        live = self._find(vector.head.round_id)
        self.federation.vectors.append((self.name, live.base.version))
        return await self._answer(live, vector, Phase.MASK, live.machine.survivors)

    async def endorse(self, consistency: Any) -> Any:
        live = self._find(consistency.round_id)
        return await self._answer(live, consistency, Phase.CONSISTENCY, live.machine.endorsements)

    async def reveal(self, reveal: Any) -> Any:
        live = self._find(reveal.round_id)
        return await self._answer(live, reveal, Phase.UNMASK, lambda: live.record)

    async def complain(self, complaint: Complaint) -> None:
        self.federation.complaints.append(complaint)
        live = self._find(complaint.round_id)
        live.machine.receive(complaint)
        live.woken.set()

    def _find(self, round_id: bytes) -> Live:
        if round_id not in self.federation.live:
            raise UnknownRound("no such round")
        return self.federation.live[round_id]

    async def _answer(self, live: Live, message: Any, phase: Phase, answer: Callable[[], Any]) -> Any:
        if live.failure:
            raise live.failure
        if not live.closed[phase].is_set():
            live.machine.receive(message)
            live.woken.set()
        waiting: Awaitable[Any] = live.closed[phase].wait()
        await waiting
        if live.failure:
            raise live.failure
        if phase is Phase.ADVERTISE and message not in live.machine.roster().members:
            raise OutOfPhase("the cohort closed without this member")
        return answer()
