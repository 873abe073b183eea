"""What members ask of rounds: to join, to hand in a message, to learn what it led to (§7)."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from choral.errors import (
    OutOfPhase,
    PeerError,
    RoundAborted,
    ShuttingDown,
    Superseded,
    TwoProcesses,
    UnknownRound,
    WireError,
)
from choral.federation.enrolment import Participant
from choral.protocol import wire
from choral.protocol.aggregator import Phase
from choral.protocol.messages import (
    Advertise,
    Complaint,
    Consistency,
    FromMember,
    MaskedVector,
    Reveal,
    Shares,
)
from choral.protocol.rounds import STEP_OF
from choral.service.metrics import Metrics
from choral.service.rounds.apart import MOST_NAMED
from choral.service.rounds.conductor import Conductor
from choral.service.rounds.events import AnswerOut, Events, MemberLeft, MessageIn, Moved, VectorTaken
from choral.service.rounds.lines import write_lines
from choral.service.rounds.live import LiveRound, StillWaiting, or_timeout
from choral.service.rounds.status import status_of
from choral.service.rounds.witness import keep_what_is_seen
from choral.service.settings import Settings
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import Store
from choral.service.training import Training
from choral.vectors.histogram import histogram

_OVERDUE = 60.0  # seconds after its deadline at which a phase counts as hung


class Rounds:
    """The rounds of one aggregator, as its members see them. Answers are encoded messages.

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
        self.events = Events()
        write_lines(self.events)
        if witness is not None:
            keep_what_is_seen(self.events, witness)
        self.conductor = Conductor(
            aggregator, settings, training, store, clock=clock, wall=wall, events=self.events
        )
        self.metrics = Metrics(wall=wall)
        self.metrics.follow(self.events)
        self.metrics.watch(self)
        self.metrics.reads("state_free_bytes", "Free on the disk that the state is on.", store.free)
        self.presence = self.conductor.presence
        self.progress = self.conductor.progress
        self._taking: set[asyncio.Task[None]] = set()

    @property
    def rounds_wanted(self) -> int:
        return self._me.task.rounds

    @property
    def members_needed(self) -> int:
        return self._me.parameters.minimum

    @property
    def stuck(self) -> str:
        """Why no version can come before somebody does something, in words; empty while one can."""
        if self.training.over:
            return ""
        late = [live for live in self.conductor.running.values() if not (live.summing or live.over)]
        for live in late:
            over = self._clock() - live.deadline
            if over > _OVERDUE:
                return f"phase {live.at.value} of round {live.short} should have ended {over:.0f} s ago"
        return self.conductor.cohorts.stuck

    @property
    def draining(self) -> bool:
        return self.conductor.draining

    async def drain(self, seconds: float) -> None:
        """Take no new members, let running rounds end, abort what is left after `seconds`."""
        await self.conductor.drain(seconds)

    # ----- joining ----------------------------------------------------------------------------

    async def join(self, message: Advertise, session: str, size: int, without: Collection[str] = ()) -> bytes:
        """Take a member into the cohort of its base; the roster once the cohort is closed.

        Args:
            without: whom the member asks not to be in a cohort with.

        Raises:
            StillWaiting: the cohort is not closed yet.
            OutOfPhase: it closed without this member, and why.
            KeptOut: this member is kept out of cohorts.
            ChoralError: why it cannot take part.
        """
        member = message.member
        apart = self._named(member, without)
        self.conductor.cohorts.refuse_kept_out(member)
        self._one_process(member, session)
        self.presence.rest(member, None)
        before, live = self.conductor.joined.get(member, (None, None))
        if live is None or before != message:
            live = await self._cohort_for(message)
        if live.machine.phase is Phase.ADVERTISE:  # again, if it was thought gone and is back
            self._enter(live, message, session, size, apart)
        answer = await self._answer(live, Phase.ADVERTISE, live.machine.roster)
        if message not in live.machine.roster().members:
            why = live.apart.get(member)
            raise OutOfPhase(
                f"the cohort closed without {member}: {why}"
                if why
                else f"the cohort closed without {member}, which was away",
                hint="join the next one",
            )
        return answer

    def _named(self, member: str, without: Collection[str]) -> frozenset[str]:
        """Raises `WireError` unless they are few, and enrolled."""
        if len(without) > MOST_NAMED:
            raise WireError(f"found {len(without)} names under `without`, expected at most {MOST_NAMED}")
        if strangers := [name for name in without if name not in self._me.federation.members]:
            raise WireError(f"found {strangers[0]!r:.70} under `without`, which is no member")
        return frozenset(without) - {member}

    def _one_process(self, member: str, session: str) -> None:
        for live in (*self.conductor.forming.values(), *self.conductor.running.values()):
            before = live.sessions.get(member, session)
            if before != session and self.presence.connected(member, before):
                raise TwoProcesses(
                    f"another process has joined with the key of {member} and is still connected",
                    culprits=[member],
                    hint="run one process a member; if a member moved, stop the old one first",
                )

    async def _cohort_for(self, message: Advertise) -> LiveRound:
        """The open cohort on a member's record; waits for a running round that it would collide with.

        A cohort is opened on the newest version only. Its members may have started from older ones, up to
        `max_staleness`: they say so, and have discounted their updates.
        """
        until = self._clock() + self.settings.wait_seconds
        while True:
            if self.draining:
                raise ShuttingDown("the aggregator is stopping")
            base = self.training.base(message.ctx)
            if base is None:
                raise PeerError(
                    f"{message.member} starts from a model or a task that is not of this federation,"
                    " or from a version long past",
                    culprits=[message.member],
                    hint="compare the digests in `choral status` with those of your own folder",
                )
            newest = self.training.head
            if self.training.over:
                raise Superseded(f"the training is over at version {newest.version}")
            if newest.version > base.version:
                raise Superseded(
                    f"the cohort on version {base.version} is over, the newest is {newest.version}",
                    hint="join on the newest version, with an update that is not too old for it",
                )
            if message.ctx in self.conductor.forming:
                return self.conductor.forming[message.ctx]
            running = [live for live in self.conductor.running.values() if live.base == base]
            if not running or self._me.task.max_staleness > 0:
                return self.conductor.open(base)
            if (left := until - self._clock()) <= 0:
                raise StillWaiting
            await or_timeout(running[0].closed[Phase.UNMASK].wait(), left)

    def _enter(
        self, live: LiveRound, message: Advertise, session: str, size: int, apart: frozenset[str]
    ) -> None:
        member = message.member
        live.without.pop(member, None)
        if apart:
            live.without[member] = apart
        if message in live.machine.roster().members:
            return
        # whoever sends another advertisement than before has lost what belongs to the first one
        live.machine.withdraw(member)
        live.machine.receive(message)
        live.sessions[member] = session
        self._count(live, Phase.ADVERTISE.value, size)
        self.conductor.joined[member] = (message, live)  # the newest only: the one before is lost to it
        live.wake.set()
        self.events.say(Moved())

    # ----- messages and answers ---------------------------------------------------------------

    async def share(self, message: Shares, size: int) -> bytes:
        """The member's inbox, once the phase is closed. Raises as `join`."""
        live = await self._take(message.round_id, message, size)
        return await self._answer(live, Phase.SHARE, lambda: live.machine.inbox(message.member), own=True)

    async def mask(self, message: MaskedVector, size: int) -> LiveRound:
        """The round that took the vector; whoever sent it need not hold it any longer. Raises as `join`."""
        live = await self._take(message.head.round_id, message, size)
        if live.saw.masked is None:
            live.saw = replace(live.saw, masked=())  # one is enough: of the first to come
            masked = await asyncio.to_thread(histogram, message.main)
            live.saw = replace(live.saw, masked=tuple(masked))
        self.events.say(VectorTaken(live.id, message.head.member, message.main))
        return live

    async def survivors(self, live: LiveRound) -> bytes:
        """The survivors, once phase mask is closed. Raises as `join`."""
        return await self._answer(live, Phase.MASK, live.machine.survivors)

    def has_masked(self, round_id: bytes, member: str) -> LiveRound:
        """The round, if the vector of `member` is in: it need not send it again to ask for the answer."""
        live = self.find(round_id)
        if member not in live.machine.received(Phase.MASK):
            raise PeerError(f"{member} has not sent its masked vector", culprits=[member])
        return live

    async def endorse(self, message: Consistency, size: int) -> bytes:
        """The signatures, once the phase is closed. Raises as `join`."""
        live = await self._take(message.round_id, message, size)
        return await self._answer(live, Phase.CONSISTENCY, live.machine.endorsements)

    async def reveal(self, message: Reveal, size: int) -> bytes:
        """The new model record, also long after the round. Raises as `join`."""
        try:
            live = await self._take(message.round_id, message, size)
        except (UnknownRound, OutOfPhase, RoundAborted):
            known = await asyncio.to_thread(self._store.record_of, message.round_id)
            if known is not None and message.member in known.survivors:
                return wire.encode(known)
            waiting = self.conductor.running.get(message.round_id)
            if (
                waiting is None
                or waiting.trouble is None
                or message.member not in waiting.machine.received(Phase.MASK)
            ):
                raise
            live = waiting
        return await self._answer(live, Phase.UNMASK, lambda: live.record)

    async def complain(self, message: Complaint, size: int) -> None:
        """A member leaves the round and says why."""
        live = await self._take(message.round_id, message, size)
        roster = live.machine.received(Phase.ADVERTISE)
        accused = tuple(name for name in message.culprits if name in roster)
        self.events.say(MemberLeft(live.id, message.member, message.reason, accused))

    def find(self, round_id: bytes) -> LiveRound:
        """A round that is going on.

        Raises:
            RoundAborted: it ended without a sum a moment ago.
            UnknownRound: it is over, or never was; `GET /v1/rounds/{id}` knows the outcome.
        """
        live = self.conductor.running.get(round_id)
        if live is None:
            if ended := self.conductor.ended.get(round_id):
                raise copy.copy(ended)
            raise UnknownRound(
                f"round {round_id.hex()[:12]} is not going on",
                hint="ask for its outcome; unless your update is in it, train again and join the next. If it"
                " happens every time, compare `tolerated` in the federation files: it names rounds too",
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
        live = self.conductor.running.get(round_id)
        if live is not None:
            return live
        row = await asyncio.to_thread(self._store.round, round_id)
        if row is None:
            raise UnknownRound(f"there was no round {round_id.hex()[:12]}")
        return row

    async def _take(self, round_id: bytes, message: FromMember, size: int) -> LiveRound:
        live = self.find(round_id)
        kind = "complaint" if isinstance(message, Complaint) else STEP_OF[type(message)].phase.value
        self._count(live, kind, size)
        # shielded: a sender that hangs up must not let go of the lock while its vector is being added
        task = asyncio.create_task(live.take(message))
        self._taking.add(task)
        task.add_done_callback(self._taken)
        await asyncio.shield(task)
        return live

    def _count(self, live: LiveRound, kind: str, size: int) -> None:
        live.got[kind] += size
        self.events.say(MessageIn(kind, size))

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking.discard(task)
        self.events.say(Moved())
        if not task.cancelled():
            task.exception()  # looked at, also when its sender is gone

    async def _answer(
        self, live: LiveRound, phase: Phase, answer: Callable[[], Any], *, own: bool = False
    ) -> bytes:
        """What `phase` led to, once it is closed; `own`: not the same for everybody.

        Raises:
            StillWaiting: not within `wait_seconds`.
            NoRoom: not either, and why: what the round led to cannot be saved yet.
            RoundAborted: the round ended without a sum.
        """
        await or_timeout(live.closed[phase].wait(), self.settings.wait_seconds)
        if live.failure is not None:
            raise copy.copy(live.failure)
        if not live.closed[phase].is_set():
            if live.trouble is not None:
                raise copy.copy(live.trouble)
            raise StillWaiting
        if own:
            data = wire.encode(answer())
        else:
            data = live.answers.get(phase) or live.answers.setdefault(phase, wire.encode(answer()))
        live.gave[phase.value] += len(data)
        self.events.say(AnswerOut(phase.value, len(data)))
        return data

    # ----- around -----------------------------------------------------------------------------

    async def newer_than(self, version: int) -> None:
        """Wait for a model version above `version`, if that is the newest.

        Raises:
            StillWaiting: not within `wait_seconds`.
            ShuttingDown: there will be none; an empty answer would be asked again at once.
        """

        def moved() -> bool:
            return self.training.head.version != version

        if moved():
            return
        async with self.progress:
            await or_timeout(
                self.progress.wait_for(lambda: moved() or self.draining), self.settings.wait_seconds
            )
        if not moved():
            raise ShuttingDown("the aggregator is stopping") if self.draining else StillWaiting

    def status(self) -> dict[str, Any]:
        """What everybody in the federation may know: never a vector, never a single member's figure."""
        return status_of(self, self._me)
