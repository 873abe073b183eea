"""Takes each round from its first member to the next model version: when a phase is over, and what then.

One event loop owns every round. Heavy work (vectors, unmasking, SQLite) goes to threads, one at a
time for a round under its lock. Several cohorts can be open at once, also from one model version.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from choral.errors import ChoralError, Ending, RoundAborted, ShuttingDown, Superseded
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.protocol.aggregator import AggregatorRound, Phase, Total
from choral.protocol.messages import Advertise
from choral.protocol.rounds import PHASES
from choral.service.rounds.events import (
    CohortClosed,
    CohortEnded,
    Events,
    Moved,
    PhaseOver,
    RoundFailed,
    SharesDisputed,
    SumMade,
    VersionMade,
)
from choral.service.rounds.forming import Forming
from choral.service.rounds.live import DISPUTES, LiveRound, or_timeout
from choral.service.rounds.presence import Presence
from choral.service.rounds.room import UNSAVED, Room
from choral.service.settings import Settings
from choral.service.state.facts import LONGEST, RoundRow, born
from choral.service.state.sqlite import Store
from choral.service.training import Training
from choral.vectors.fixed_point import LARGEST_COHORT
from choral.vectors.histogram import close_up, histogram

_TICK = 0.25  # seconds after which a vanished member is noticed without an event
_OVERSLEPT = 1.0  # seconds: a tick that took so much longer was no tick
_REASONS_KEPT = 64
_TELLING = 1.0  # seconds in which the survivors fetch what their round led to
_WRONG = "shares that it dealt or revealed are proven wrong by those of the others"
_LATE_NAMED = 256  # members of a federation of which those that came late are remembered by name

log = structlog.get_logger("choral.rounds")


class Conductor:
    """All open rounds of one aggregator.

    Attributes:
        forming: cohorts that can still be joined, by ctx.
        running: rounds whose cohort is closed, by round id.
        joined: by member, its newest advertisement and which of them that went into.
        ended: why the last rounds ended without a sum, by round id.
        progress: notified when a round moves.
        draining: no new members are taken.
        events: what happens is told there.
        cohorts: who may be in one, and when one can close.
        room: whether there is room for what a cohort leads to.
        rounds_over: moves whenever there is something new about rounds that have ended.
        stopped: set once nothing is going to happen any more.
        version_born: when the newest version was made, wall clock.
    """

    def __init__(
        self,
        aggregator: Participant,
        settings: Settings,
        training: Training,
        store: Store,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        events: Events,
    ) -> None:
        self.settings = settings
        self.training = training
        self._me = aggregator
        self._store = store
        self._clock = clock
        self._wall = wall
        self.forming: dict[bytes, LiveRound] = {}
        self.running: dict[bytes, LiveRound] = {}
        self.joined: dict[str, tuple[Advertise, LiveRound]] = {}
        self.ended: dict[bytes, ChoralError] = {}
        self.draining = False
        self.events = events
        self.rounds_over = 0
        self.stopped = asyncio.Event()
        self.version_born = born(store.rounds(), training.head.version) or wall()
        self.progress = asyncio.Condition()
        self.presence = Presence(
            aggregator.federation.members,
            clock,
            gone_seconds=settings.gone_seconds,
            startup_seconds=settings.startup_seconds,
            changed=self._wake_all,
        )
        self.room = Room(store, self._room_needed, clock)
        self.cohorts = Forming(aggregator, settings, store, self.presence, self.room, clock=clock, wall=wall)
        self._one_at_a_time = asyncio.Lock()
        self._drivers: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._not_before = 0.0  # no cohort closes earlier: the pace

    def _room_needed(self) -> int:
        return self.training.next_bytes * (1 + len(self.running))

    def open(self, base: Record) -> LiveRound:
        """A new cohort for updates that start from `base`.

        Raises:
            NoRoom: what it leads to could not be saved.
        """
        self.room.check()
        machine = AggregatorRound(
            self._me.federation.pinned,
            self._me.parameters,
            base.context,
            sealing=self._me.sealing,
            threads=self.settings.threads,
        )
        now = self._clock()
        live = LiveRound(machine, base, self._wall(), now, now + self.settings.join_seconds)
        self.forming[base.context] = live
        live.driver = asyncio.create_task(self._drive(live))
        self._drivers.add(live.driver)
        live.driver.add_done_callback(self._drivers.discard)
        return live

    def lives(self) -> tuple[LiveRound, ...]:
        """Rounds that are going on."""
        return tuple(live for live in (*self.forming.values(), *self.running.values()) if not live.over)

    def awaited(self, live: LiveRound) -> list[str]:
        """Whose messages the open phase lacks and is worth waiting for."""
        if live.machine.phase is Phase.ADVERTISE:
            return self.cohorts.awaited(live, self._busy())
        return [name for name in live.machine.awaited if self.presence.waited_for(name)]

    def missing(self, live: LiveRound) -> list[str]:
        """The same, for a person: of a cohort below its minimum all that could join it."""
        if live.machine.phase is Phase.ADVERTISE:
            return self.cohorts.missing(live, self._busy())
        return self.awaited(live)

    def seconds_left(self, live: LiveRound) -> float | None:
        """Until the open phase is over, or None where no deadline counts."""
        short = live.machine.phase is Phase.ADVERTISE and self.cohorts.short(live)
        return None if short or live.summing else max(0.0, live.deadline - self._clock())

    def _busy(self) -> set[str]:
        return {name for live in self.running.values() for name in live.machine.received(PHASES[0])}

    async def drain(self, seconds: float) -> None:
        """Take no new members, let running rounds end, abort what is left after `seconds`."""
        self.draining = True
        await self._announce()
        for live in self.forming.values():
            live.failure = ShuttingDown("the aggregator is stopping")
            if live.driver:
                live.driver.cancel()
        if running := [live.driver for live in self.running.values() if live.driver]:
            await asyncio.wait(running, timeout=seconds)
        left = [*self._drivers, *self._settling]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.stopped.set()
        self.events.say(Moved())

    # ----- one round --------------------------------------------------------------------------

    async def _settle(self, round_id: bytes, gave: Counter[str]) -> None:
        """Save what went out in a round: its last answers do so after its end was saved."""
        try:
            await asyncio.sleep(_TELLING)
        except asyncio.CancelledError:
            self._store.count_sent(round_id, dict(gave))
            raise
        try:
            await asyncio.to_thread(self._store.count_sent, round_id, dict(gave))
        except UNSAVED:  # it is a figure to look at
            log.warning("the bytes of a round could not be saved", round=round_id.hex()[:12])
        self.rounds_over += 1
        self.events.say(Moved())

    async def _drive(self, live: LiveRound) -> None:
        machine = live.machine
        try:
            for phase in PHASES:
                began = self._clock()
                live.at = phase
                await self._collect(live, phase)
                live.seconds[phase.value] = self._clock() - began
                self.events.say(PhaseOver(phase.value, live.seconds[phase.value]))
                if phase is Phase.UNMASK:
                    await self._finish(live)
                else:
                    async with live.lock:
                        machine.close()
                if phase is Phase.ADVERTISE:
                    await self._closed_cohort(live)
                live.deadline = self._clock() + self.settings.phase_seconds
                live.closed[phase].set()
                await self._announce()
        except ChoralError as error:
            await self._fail(live, error)
        except asyncio.CancelledError:
            await self._fail(live, RoundAborted("the aggregator stopped", ending=Ending.STOPPING))
            raise
        except Exception:
            log.exception("a round failed", round=live.short)
            why = RoundAborted("the aggregator failed; its log says why", ending=Ending.INTERNAL)
            await self._fail(live, why)
        finally:
            self._forget(live)
            for event in live.closed.values():
                event.set()
            await self._announce()

    async def _collect(self, live: LiveRound, phase: Phase) -> None:
        """Until everybody that is waited for has sent its message, or the deadline.

        While this process does not run (suspended, paused, moved) no time passes for a phase: what its
        members sent meanwhile waits in the sockets, and is read after the next look at the deadline.
        """
        looked = self._clock()
        while True:
            live.wake.clear()
            looked, before = self._clock(), looked
            if (slept := looked - before - _TICK) > _OVERSLEPT:
                live.deadline += slept
                self.presence.slept(before, looked)
                log.warning(
                    "the aggregator did not run for a while", round=live.short, seconds=round(slept, 1)
                )
            over = self._clock() >= live.deadline
            if phase is Phase.ADVERTISE:
                if self._cohort_complete(live, over=over):
                    return
            elif over or not self.awaited(live):
                return
            await or_timeout(live.wake.wait(), _TICK)

    def _cohort_complete(self, live: LiveRound, *, over: bool) -> bool:
        if self.cohorts.withdraw_the_gone(live) == 0:
            raise RoundAborted("every member that had joined went away")
        if self.training.over or self.training.head.version > live.base.version:
            raise Superseded(f"version {self.training.head.version} came first")
        if self._clock() < self._not_before:
            return False
        return self.cohorts.complete(live, self._busy(), over=over)

    async def _closed_cohort(self, live: LiveRound) -> None:
        # without a pause between the two: whoever joins now must find the one or the other
        self.forming.pop(live.machine.ctx, None)
        self.running[live.id] = live
        roster = live.machine.received(Phase.ADVERTISE)
        if len(live.machine.pinned) <= _LATE_NAMED:
            rest = [name for name in live.machine.pinned if name not in roster and name not in live.apart]
            live.late = [name for name in rest if self.presence.connected(name)]
        row = live.row("open", live.facts())
        try:
            await asyncio.to_thread(self._store.put_round, row)  # saved before it is answered
        except UNSAVED as error:
            told, _ = self.room.failed(error)
            raise told from error
        self.room.worked()
        threshold = live.machine.threshold
        self.events.say(CohortClosed(live.id, live.base.version, tuple(roster), threshold))

    async def _finish(self, live: LiveRound) -> None:
        live.summing = True
        async with live.lock:
            began = self._clock()
            await asyncio.to_thread(live.machine.close)
            live.seconds["sum"] = self._clock() - began
            total, live.machine.total = live.machine.total, None
            assert total is not None  # noqa: S101  (close() of the last phase gave it or raised)
            live.culprits, live.disputes = total.culprits, total.disputes[:DISPUTES]
            # proven is proven, also where there is a sum
            await asyncio.to_thread(self.cohorts.keep_out, live, total.culprits, _WRONG)
            if live.disputes:
                self.events.say(SharesDisputed(live.id, live.disputes, len(total.disputes)))
            self.events.say(SumMade(live.id, total.main))
            whole = tuple(await asyncio.to_thread(histogram, total.main))
            near = tuple(await asyncio.to_thread(close_up, total.main))
            live.saw = replace(live.saw, sum=whole, close_up=near)
            given = [total]
            del total  # held by nobody else: its memory is free once the mean is in the model
            oldest = max(live.stale(given[0].survivors).values(), default=0)
        live.record = await self._saved(live, given, oldest)
        self._not_before = self._clock() + self.settings.pace_seconds
        self.version_born = self._wall()
        record, seconds = live.record, self._clock() - live.began
        self.events.say(VersionMade(live.id, record.version, record.survivors, live.culprits, seconds))

    async def _saved(self, live: LiveRound, given: list[Total], oldest: int) -> Record:
        """The record that a sum leads to. One that cannot be saved now is kept, and tried again: its members
        have spent their updates. No other sum becomes a model meanwhile, so there is one in memory.
        """

        def row(record: Record) -> RoundRow:
            seconds = self._clock() - live.began
            facts = replace(live.facts(), version=record.version, culprits=live.culprits)
            return live.row("done", facts, seconds)

        def step() -> Record:
            if given:
                return self.training.apply(given.pop(), live.base, live.id, row, oldest=oldest)
            return self.training.save()

        async with self._one_at_a_time:
            while True:
                try:
                    record = await asyncio.to_thread(step)
                except UNSAVED as error:
                    live.trouble, pause = self.room.failed(error)
                    await asyncio.sleep(pause)
                else:
                    self.room.worked()
                    return record

    async def _fail(self, live: LiveRound, error: ChoralError) -> None:
        phase = live.at.value
        # a copy has no traceback, and so keeps no frame and no vector alive
        live.failure = live.failure or copy.copy(error)
        missing, culprits = (self._enrolled(getattr(error, what, ())) for what in ("missing", "culprits"))
        if isinstance(live.failure, RoundAborted):
            live.failure.missing, live.failure.culprits = missing, culprits
        if not live.id:  # a cohort that never closed has no name
            self.events.say(CohortEnded(live.base.version, error.reason, error.ending))
            return
        self.events.say(RoundFailed(live.id, phase, error.reason, error.ending, missing, culprits))
        await asyncio.to_thread(self.cohorts.keep_out, live, getattr(error, "proven", ()), error.reason)
        self.ended[live.id] = live.failure
        while len(self.ended) > _REASONS_KEPT:
            del self.ended[next(iter(self.ended))]
        facts = replace(
            live.facts(), reason=error.reason[:LONGEST], kind=error.ending, phase=phase,
            missing=missing, culprits=culprits,
        )  # fmt: skip
        row = live.row("aborted", facts, self._clock() - live.began)
        try:
            await asyncio.to_thread(self._store.put_round, row)
        except UNSAVED as trouble:  # the members have to be told all the same
            self.room.failed(trouble)

    def _enrolled(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of them that are members, each once and not more than a cohort has: others sent them."""
        found = dict.fromkeys(name for name in names if name in self._me.federation.members)
        return tuple(found)[:LARGEST_COHORT]

    def _forget(self, live: LiveRound) -> None:
        if live.record is not None:  # the round itself is let go of meanwhile
            settling = asyncio.create_task(self._settle(live.id, live.gave))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
        self.rounds_over += 1
        if self.forming.get(live.machine.ctx) is live:
            del self.forming[live.machine.ctx]
        self.running.pop(live.id, None)
        self.joined = {name: found for name, found in self.joined.items() if found[1] is not live}

    # ----- around -----------------------------------------------------------------------------

    def _wake_all(self) -> None:
        for live in (*self.forming.values(), *self.running.values()):
            live.wake.set()
        self.events.say(Moved())

    async def _announce(self) -> None:
        self.events.say(Moved())
        async with self.progress:
            self.progress.notify_all()
