"""Drives the protocol's aggregator machine: who may join, who is waited for, when a phase is over.

One event loop owns every round. Heavy work (vectors, unmasking, SQLite) goes to threads, one at a
time for a round under its lock. Several cohorts can be open at once, also from one model version.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog

from choral.errors import (
    ChoralError,
    PeerError,
    RoundAborted,
    ShuttingDown,
    Superseded,
    TwoProcesses,
    UnknownRound,
)
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.protocol.aggregator import AggregatorRound, Phase
from choral.protocol.messages import (
    Advertise,
    Complaint,
    Consistency,
    Endorsements,
    FromMember,
    Inbox,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)
from choral.service.live import PHASES, LiveRound, StillWaiting
from choral.service.presence import Presence
from choral.service.settings import Settings
from choral.service.store import RoundRow, Store
from choral.service.training import Training

T = TypeVar("T")
_TICK = 0.25  # seconds after which a vanished member is noticed without an event

log = structlog.get_logger("choral.rounds")


class Rounds:
    """All open rounds of one aggregator.

    Args:
        witness: folder to write every masked vector and every sum to, for demonstrations.
    """

    def __init__(
        self,
        aggregator: Participant,
        settings: Settings,
        training: Training,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        witness: Path | None = None,
    ) -> None:
        self.training = training
        self.settings = settings
        self._me = aggregator
        self._store = store
        self._clock = clock
        self._wall = wall
        self._witness = witness
        self._forming: dict[bytes, LiveRound] = {}
        self._running: dict[bytes, LiveRound] = {}
        self._joined: dict[bytes, LiveRound] = {}
        self._drivers: set[asyncio.Task[None]] = set()
        self.draining = False
        self._not_before = 0.0
        self.progress = asyncio.Condition()
        self.presence = Presence(
            aggregator.federation.members,
            clock,
            gone_seconds=settings.gone_seconds,
            startup_seconds=settings.startup_seconds,
            changed=self._wake_all,
        )

    # ----- what members ask for ---------------------------------------------------------------

    async def join(self, message: Advertise, session: str, size: int) -> Roster:
        """Take a member into the cohort of its base; the roster once the cohort is closed."""
        live = self._joined.get(message.nonce)
        if live is None:
            live = await self._cohort_for(message)
            self._enter(live, message, session)
            live.bytes_in += size
        return await self._answer(live, Phase.ADVERTISE, live.machine.roster)

    async def share(self, message: Shares, size: int) -> Inbox:
        live = await self._take(message.round_id, message, size)
        return await self._answer(live, Phase.SHARE, lambda: live.machine.inbox(message.member))

    async def mask(self, message: MaskedVector, size: int) -> Survivors:
        live = await self._take(message.head.round_id, message, size)
        return await self.survivors(live.id, message.head.member)

    async def survivors(self, round_id: bytes, member: str) -> Survivors:
        """The answer to *mask*, also for a member that asks without sending its vector again."""
        live = self.find(round_id)
        if member not in live.machine.received(Phase.MASK):
            raise PeerError(f"{member} has not sent its masked vector", culprits=[member])
        return await self._answer(live, Phase.MASK, live.machine.survivors)

    async def endorse(self, message: Consistency, size: int) -> Endorsements:
        live = await self._take(message.round_id, message, size)
        return await self._answer(live, Phase.CONSISTENCY, live.machine.endorsements)

    async def reveal(self, message: Reveal, size: int) -> Record:
        known = await asyncio.to_thread(self._store.record_of, message.round_id)
        if known is not None and message.member in known.survivors:
            return known
        live = await self._take(message.round_id, message, size)
        await self._answer(live, Phase.UNMASK, lambda: None)
        assert live.record is not None  # noqa: S101  (the phase is closed, and it did not fail)
        return live.record

    async def complain(self, message: Complaint, size: int) -> None:
        live = await self._take(message.round_id, message, size)
        log.warning(
            "a member left the round",
            round=live.id.hex()[:12],
            member=message.member,
            reason=message.reason,
            accused=list(message.culprits),
        )

    def find(self, round_id: bytes) -> LiveRound:
        """A round that is going on.

        Raises:
            UnknownRound: it is over, or never was; `GET /v1/rounds/{id}` knows the outcome.
        """
        live = self._running.get(round_id)
        if live is None:
            raise UnknownRound(
                f"round {round_id.hex()[:12]} is not going on",
                hint="ask for its outcome; unless your update is in it, train again and join the next",
            )
        return live

    def in_roster(self, round_id: bytes, member: str) -> LiveRound:
        """The round, if `member` may still send its vector: asked before a large body is read."""
        live = self.find(round_id)
        if member not in live.machine.expected(Phase.MASK):
            raise PeerError(f"{member} did not deal shares in this round", culprits=[member])
        return live

    async def outcome(self, round_id: bytes) -> RoundRow | LiveRound:
        """What became of a round, or the round while it is going on.

        Raises:
            UnknownRound: there never was one.
        """
        live = self._running.get(round_id)
        if live is not None:
            return live
        row = await asyncio.to_thread(self._store.round, round_id)
        if row is None:
            raise UnknownRound(f"there was no round {round_id.hex()[:12]}")
        return row

    # ----- joining ----------------------------------------------------------------------------

    async def _cohort_for(self, message: Advertise) -> LiveRound:
        """The open cohort for a member's base; waits for a running round that it would collide with."""
        until = self._clock() + self.settings.wait_seconds
        while True:
            if self.draining or self.training.over:
                raise ShuttingDown("the training is over" if self.training.over else "stopping")
            base = self.training.base(message.ctx)
            if base is None:
                raise PeerError(
                    f"{message.member} starts from a model or a task that is not of this federation",
                    culprits=[message.member],
                    hint="compare the digests in `choral status` with those of your own folder",
                )
            behind = self.training.head.version - base.version
            if behind > self._me.task.max_staleness:
                raise Superseded(
                    f"the update starts from version {base.version}, the newest is"
                    f" {self.training.head.version}",
                    hint="train again from the newest model",
                )
            if message.ctx in self._forming:
                return self._forming[message.ctx]
            running = [live for live in self._running.values() if live.base == base]
            if not running or self._me.task.max_staleness > 0:
                return self._open(base)
            if (left := until - self._clock()) <= 0:
                raise StillWaiting
            await _or_timeout(running[0].closed[Phase.UNMASK].wait(), left)

    def _open(self, base: Record) -> LiveRound:
        machine = AggregatorRound(
            self._me.federation.pinned,
            self._me.parameters,
            base.context,
            threads=self.settings.threads,
        )
        now = self._clock()
        live = LiveRound(machine, base, self._wall(), now, now + self.settings.join_seconds)
        self._forming[base.context] = live
        task = asyncio.create_task(self._drive(live))
        self._drivers.add(task)
        task.add_done_callback(self._drivers.discard)
        return live

    def _enter(self, live: LiveRound, message: Advertise, session: str) -> None:
        member = message.member
        before = live.sessions.get(member)
        if before is not None and before != session:
            if self.presence.connected(member, before):
                raise TwoProcesses(
                    f"another process has joined this cohort with the key of {member} and is still connected",
                    culprits=[member],
                    hint="run one process a member; if a member moved, stop the old one first",
                )
            live.machine.withdraw(member)  # it was restarted while the cohort is open
        live.machine.receive(message)
        live.sessions[member] = session
        self._joined[message.nonce] = live
        live.wake.set()

    # ----- messages and answers ---------------------------------------------------------------

    async def _take(self, round_id: bytes, message: FromMember, size: int) -> LiveRound:
        live = self.find(round_id)
        live.bytes_in += size
        async with live.lock:
            if isinstance(message, MaskedVector):
                await asyncio.to_thread(live.machine.receive, message)
                if self._witness:
                    self._keep(live, f"{message.head.member}.masked", message.main)
            else:
                live.machine.receive(message)
        live.wake.set()
        return live

    async def _answer(self, live: LiveRound, phase: Phase, answer: Callable[[], T]) -> T:
        """What `phase` led to, once it is closed.

        Raises:
            StillWaiting: not within `wait_seconds`.
            RoundAborted: the round ended without a sum.
        """
        await _or_timeout(live.closed[phase].wait(), self.settings.wait_seconds)
        if live.failure is not None:
            raise live.failure
        if not live.closed[phase].is_set():
            raise StillWaiting
        return answer()

    # ----- one round --------------------------------------------------------------------------

    async def _drive(self, live: LiveRound) -> None:
        machine = live.machine
        try:
            for phase in PHASES:
                began = self._clock()
                await self._collect(live, phase)
                live.seconds[phase.value] = self._clock() - began
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
            await self._fail(live, RoundAborted("the aggregator stopped"))
            raise
        except Exception as error:
            log.exception("a round failed")
            await self._fail(live, RoundAborted(f"the aggregator failed: {type(error).__name__}"))
        finally:
            self._forget(live)
            for event in live.closed.values():
                event.set()
            await self._announce()

    async def _collect(self, live: LiveRound, phase: Phase) -> None:
        """Until everybody that is waited for has sent its message, or the deadline."""
        while True:
            live.wake.clear()
            over = self._clock() >= live.deadline
            if phase is Phase.ADVERTISE:
                if self._cohort_complete(live, over=over):
                    return
            elif over or not self.awaited(live):
                return
            await _or_timeout(live.wake.wait(), _TICK)

    def _cohort_complete(self, live: LiveRound, *, over: bool) -> bool:
        """Whether a cohort can close. Below the minimum it stays open: nothing is lost by waiting."""
        machine = live.machine
        for member in machine.received(Phase.ADVERTISE):
            if not self.presence.waited_for(member):
                machine.withdraw(member)
        got = len(machine.received(Phase.ADVERTISE))
        if got == 0:
            raise RoundAborted("every member that had joined went away")
        if self.training.head.version - live.base.version > self._me.task.max_staleness:
            raise Superseded(f"version {self.training.head.version} came first")
        if self._clock() < self._not_before:
            return False
        target = min(self.settings.cohort or len(machine.pinned), machine.parameters.plan.n_max)
        enough = got >= machine.needed and (over or not self.awaited(live))
        return got >= max(target, machine.needed) or enough

    def awaited(self, live: LiveRound) -> list[str]:
        """Whose messages the open phase lacks and is worth waiting for."""
        busy = set()
        if live.machine.phase is Phase.ADVERTISE:
            busy = {name for other in self._running.values() for name in other.machine.received(PHASES[0])}
        return [name for name in live.machine.awaited if name not in busy and self.presence.waited_for(name)]

    async def _closed_cohort(self, live: LiveRound) -> None:
        self._forming.pop(live.machine.ctx, None)
        await asyncio.to_thread(self._store.put_round, live.row("open"))  # saved before it is answered
        self._running[live.id] = live
        log.info(
            "a cohort closed", round=live.id.hex()[:12], base=live.base.version,
            members=live.machine.received(Phase.ADVERTISE), threshold=live.machine.threshold,
        )  # fmt: skip

    async def _finish(self, live: LiveRound) -> None:
        async with live.lock:
            began = self._clock()
            await asyncio.to_thread(live.machine.close)
            live.seconds["sum"] = self._clock() - began
            total = live.machine.total
            assert total is not None  # noqa: S101  (close() of the last phase gave it or raised)
            if self._witness:
                self._keep(live, "sum", total.main)
            live.record = await asyncio.to_thread(
                self.training.apply,
                total,
                live.base,
                live.id,
                lambda record: live.row(
                    "done", self._clock() - live.began, version=record.version, culprits=list(total.culprits)
                ),
            )
            self._not_before = self._clock() + self.settings.pace_seconds
            live.machine.total = None  # the vectors are in the model now
        log.info(
            "a new model version", round=live.id.hex()[:12], version=live.record.version,
            survivors=list(total.survivors), culprits=list(total.culprits),
            seconds=round(self._clock() - live.began, 3),
        )  # fmt: skip

    async def _fail(self, live: LiveRound, error: ChoralError) -> None:
        phase = live.machine.phase.value
        live.failure = error
        missing = list(getattr(error, "missing", ()))
        culprits = list(getattr(error, "culprits", ()))
        if live.id:
            row = live.row(
                "aborted", self._clock() - live.began, reason=error.reason, missing=missing, culprits=culprits
            )
            await asyncio.to_thread(self._store.put_round, row)
        log.warning(
            "a round aborted", round=live.id.hex()[:12], phase=phase, reason=error.reason,
            missing=missing, culprits=culprits,
        )  # fmt: skip

    def _forget(self, live: LiveRound) -> None:
        if self._forming.get(live.machine.ctx) is live:
            del self._forming[live.machine.ctx]
        self._running.pop(live.id, None)
        self._joined = {nonce: other for nonce, other in self._joined.items() if other is not live}

    def _keep(self, live: LiveRound, name: str, vector: np.ndarray[Any, Any]) -> None:
        assert self._witness is not None  # noqa: S101
        folder = self._witness / live.id.hex()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", vector)

    # ----- around -----------------------------------------------------------------------------

    def _wake_all(self) -> None:
        for live in (*self._forming.values(), *self._running.values()):
            live.wake.set()

    async def _announce(self) -> None:
        async with self.progress:
            self.progress.notify_all()

    async def drain(self, seconds: float) -> None:
        """Take no new members, let running rounds end, abort what is left after `seconds`."""
        self.draining = True
        await self._announce()
        for live in list(self._forming.values()):
            live.failure = ShuttingDown("the aggregator is stopping")
        drivers = list(self._drivers)
        if drivers and self._running:
            await asyncio.wait(drivers, timeout=seconds)
        for task in drivers:
            task.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """What everybody in the federation may know: never a vector, never a single member's figure."""
        now = self._clock()
        head = self.training.head
        metrics = head.metrics
        return {
            "federation": self._me.federation.name,
            "task": self._me.task.digest.hex(),
            "version": head.version,
            "rounds": self._me.task.rounds,
            "over": self.training.over,
            "record": head.digest.hex(),
            "survivors": list(head.survivors),
            "accuracy_before": metrics.accuracy if metrics else None,
            "loss_before": metrics.mean_loss if metrics else None,
            "members": {
                name: {
                    "connected": self.presence.connected(name),
                    "seconds_since": self.presence.seconds_since(name),
                }
                for name in self._me.federation.members
            },
            "cohorts": [
                {
                    "round": live.id.hex(),
                    "base": live.base.version,
                    "phase": live.machine.phase.value,
                    "in": {phase.value: live.machine.received(phase) for phase in PHASES},
                    "awaited": self.awaited(live),
                    "needed": live.machine.needed,
                    "seconds_left": round(max(0.0, live.deadline - now), 3),
                    "bytes_in": live.bytes_in,
                }
                for live in (*self._forming.values(), *self._running.values())
                if not live.over and live.machine.phase in PHASES
            ],
        }


async def _or_timeout(waiting: Any, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waiting, seconds)
