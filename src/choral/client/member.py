"""The member's loop: fetch, train, join when the update is ready, one round, again.

What is trusted is this member's own folder. Everything from the aggregator goes through
`federation.records.follow` or the protocol's member machine, or is compared with a digest. What reaches the
aggregator, and how, is the business of an `exchange.Aggregator`.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from choral.client import events
from choral.client.budget import Budget
from choral.client.company import Company
from choral.client.events import Tell, silent
from choral.client.exchange import Aggregator, Repeats, Unwelcome, play
from choral.client.journal import Journal
from choral.client.learner import Learner, Update, discounted, nothing_new
from choral.client.model_log import ModelLog
from choral.client.process import telling
from choral.client.refusals import TooLarge
from choral.data.examples import Examples
from choral.errors import (
    ChoralError,
    KeptOut,
    OutOfPhase,
    ParameterError,
    PeerError,
    RoundAborted,
    ShuttingDown,
    Superseded,
    TwoProcesses,
    UnknownRound,
    WireError,
)
from choral.federation import enrolment
from choral.federation.records import Record
from choral.learning.trainer import Trainer
from choral.primitives.entropy import RandomBytes
from choral.protocol import phases
from choral.protocol.member import MemberRound
from choral.protocol.transcript import signed_by

Vector = NDArray[np.uint32] | None
_PAUSE = 1.0
_AGAIN = 0.2  # seconds after an aborted round; doubling while they all abort
_LONGEST = 30.0
_OUTCOME = 10.0  # seconds to wait for a version that a lost answer would have brought
_ASKING = 30.0  # seconds in which the aggregator may say what became of a round
_OTHER_PARTS = 3  # other nine tenths that are tried when an update was sent from this model before
_STATES = ("open", "done", "aborted")
_TOO_LARGE = 60.0  # seconds after a proxy's limit was met; doubling up to an hour
_KEPT_OUT = 5.0  # seconds before a member that is kept out asks again; doubling up to five minutes
_LONGEST_OUT = 300.0
# A header that somebody recorded is good for 300 s either way of the aggregator's clock (§7.4). A second
# process that is still there after that is none that is being stopped, and no echo of this one.
_TWO_PROCESSES = 900.0


class Member:
    """One member of a federation, from its folder to the last model version.

    Args:
        me: the member's folder, loaded.
        trainer: the model; its arrays must be the task's.
        examples: this member's data; a part of it, `task.holdout`, only measures the model.
        aggregator: what it is asked through.
        journal: open.
        random: for keys and shares.
        seed: for training; the same seed, data and versions give the same updates.
        tell: called with what happens.
        witness: folder to write every update to, in the clear, for demonstrations.
        clock: seconds, monotonic; by default that of the event loop.
    """

    def __init__(
        self,
        me: enrolment.Participant,
        trainer: Trainer,
        examples: Examples,
        aggregator: Aggregator,
        journal: Journal,
        *,
        random: RandomBytes,
        seed: int | None = None,
        tell: Tell = silent,
        witness: Path | None = None,
        threads: int = 1,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._me = me
        self._task = me.task
        self._journal = journal
        self._random = random
        self._tell = tell
        self._witness = witness
        self._threads = threads
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._learner = Learner(me, trainer, examples, seed, tell)
        _ = me.sealing  # keys that are missing are said now, not after the first training
        self.aggregator = aggregator
        self.log = ModelLog(me, aggregator, journal, tell)
        federation = me.federation
        self.budget = Budget(
            journal, total=me.task.rounds + federation.spare_sends, per_model=federation.sends_per_model,
            clock=self._clock,
        )  # fmt: skip
        self.company = Company(federation.pinned.keys() - {me.name}, federation.minimum, self._clock)
        self._repeats = Repeats()
        self._aborted = 0  # rounds in a row
        self._too_large = 0
        self._kept_out = 0  # refusals in a row
        self._doubled: float | None = None  # since when another process has this member's place

    async def run(self) -> Record:
        """Take part until the task's rounds are done; the newest record.

        Raises:
            ChoralError: what keeps this member from taking part.
        """
        await self._check_task()
        if last := self._journal.last():
            await self._outcome(last.round_id, last.base)
        await self.log.catch_up()
        watch = asyncio.create_task(self.log.watch())
        work = asyncio.create_task(self._work())
        try:
            # the watch only ever ends by an error, and then there is nothing to work from
            await asyncio.wait([watch, work], return_when=asyncio.FIRST_COMPLETED)
            return await (work if work.done() else watch)
        finally:
            for task in (watch, work):
                task.cancel()
            await asyncio.gather(watch, work, return_exceptions=True)

    @property
    def head(self) -> Record:
        """The newest record that this member has verified."""
        assert self.log.head is not None  # noqa: S101  (the log is caught up with before anything else)
        return self.log.head

    async def _check_task(self) -> None:
        wanted = hashlib.sha256(self._task.encode()).digest()
        for _ in range(2):  # one damaged answer is no other task
            if hashlib.sha256(await self.aggregator.task()).digest() == wanted:
                return
        raise ParameterError(
            "the aggregator serves another task than the one in this member's folder",
            hint="wrong address, another federation's folder, or one side's task.toml was edited",
        )

    async def _outcome(self, round_id: bytes, base: int) -> bool:
        """§5: whether the update of a round whose answer was lost is in the model. Not to know is no end."""
        state, version, mine = "told in no way that can be read", None, False
        try:
            async with asyncio.timeout(_ASKING):
                found = await self.aggregator.outcome(round_id)
            if found["state"] in _STATES:
                state, version = found["state"], found.get("details", {}).get("version")
                mine = state == "done" and self._me.name in found["details"]["survivors"]
        except UnknownRound:
            state = "unknown"
        except (ChoralError, TimeoutError, ValueError, LookupError, TypeError, AttributeError):
            pass
        version = version if mine and isinstance(version, int) else None
        self._tell(events.LastOutcome(base=base, state=state, version=version))
        return mine

    # ----- what is sent, and when (§5.1) --------------------------------------------------------

    async def _work(self) -> Record:
        while not self.log.over:
            head = self.head
            if self.budget.spent:
                await self._rest(head)
                continue
            update = await self._update(head)
            if not update.nothing and (seconds := self.budget.wait(head)):
                await self._pause(head, seconds)
                if self.head is not head or self.log.over:
                    continue
            await self.contribute(head, update)
        head = self.head
        measured = await asyncio.to_thread(self._learner.measure, await self.log.model(head))
        known = measured.examples and measured.classified
        self._tell(events.Done(version=head.version, accuracy=measured.accuracy if known else None))
        return head

    async def _rest(self, base: Record) -> None:
        """All that this member sends in this task is sent: it follows the log."""
        self._tell(events.Spent(version=base.version, sent=self.budget.total))
        with self.log.rest("spent"):
            while not self.log.over:
                await self.log.newer_than(self.head.version)

    async def _pause(self, base: Record, seconds: float) -> None:
        self._tell(events.Resting(base.version, self._journal.attempts(base), seconds))
        with self.log.rest("pause"):
            await self.log.changed_within(base, seconds)

    async def _update(self, base: Record) -> Update:
        """An update that was not sent from this model before; if there is none, one that says nothing."""
        attempt = self._journal.attempts(base)
        model = await self.log.model(base)
        for again in range(1 + (_OTHER_PARTS if attempt else 0)):
            update = await asyncio.to_thread(self._learner.train, model, base, attempt, again)
            if not self._journal.spent(base, update.digest):
                return update
        self._tell(events.NothingToAdd(base.version))
        return nothing_new(self._task.dimension)

    # ----- one update, until it is in or spent ------------------------------------------------

    async def contribute(self, base: Record, update: Update) -> None:
        """Offer an update to cohorts until it was sent once or is too old."""
        while self._fresh(base):
            anchor = self.head  # what the cohort stands on; the update may start from an older version
            staleness = anchor.version - base.version
            offered = discounted(update, staleness)
            known = phases.Member(
                self._me.name, self._me.identity, self._me.federation.pinned, self._me.parameters,
                anchor.context, self._me.sealing, staleness,
            )  # fmt: skip
            machine = MemberRound(
                known,
                offered.vector,
                offered.totals.encode(),
                self._random,
                threads=self._threads,
                owned=True,
            )
            plain = offered.vector.copy() if self._witness else None
            spent: list[bytes] = []

            def spend(round_id: bytes, spent: list[bytes] = spent, plain: Vector = plain) -> None:
                self._journal.spend(round_id, base, update.digest)
                spent.append(round_id)
                self._bear_witness(round_id, plain)

            try:
                record = await play(
                    self.aggregator,
                    machine,
                    spend=spend,
                    check=functools.partial(self._due, machine=machine, anchor=anchor),
                    without=self.company.without,
                    waiting=telling(self.aggregator, self._me.name, self._me.federation.members, self._tell),
                    repeats=self._repeats,
                    tell=self._tell,
                )
            except ChoralError as error:
                await self._failed(error, machine, base, spent=bool(spent))
            else:
                self.company.well()
                self._welcome()
                self._aborted, self._too_large, self._doubled = 0, 0, None
                self.log.promise(record)
                await self.log.newer_than(record.version - 1)
                return
            if spent or machine.masked:
                return  # §5: never again; train anew from the current model

    async def _failed(self, error: ChoralError, machine: MemberRound, base: Record, *, spent: bool) -> None:
        """A round that led to nothing: say so, wait as long as it makes sense, or end.

        Raises:
            ChoralError: `error`, if no round can be hoped for.
        """
        if not isinstance(error, TwoProcesses):
            self._doubled = None
        if machine.round_id:
            self._welcome()
        if isinstance(error, KeptOut):
            await self._wait_outside(error)
        elif isinstance(error, Superseded | ShuttingDown | Unwelcome):
            self._tell(events.Waiting(error.reason))
            await self._newer_or_pause(base, _PAUSE)
        elif isinstance(error, TooLarge):
            self._too_large += 1
            seconds = min(3600.0, _TOO_LARGE * 2.0 ** min(self._too_large - 1, 16))
            self._tell(events.TooLarge(error.reason, error.hint, seconds))
            await asyncio.sleep(seconds)
        elif isinstance(error, RoundAborted | UnknownRound | OutOfPhase):
            self._aborted += 1
            missing = tuple(getattr(error, "missing", ()))
            self._tell(events.Aborted(error.reason, missing, spent))
            if spent and machine.round_id and await self._outcome(machine.round_id, base.version):
                await self.log.newer_within(base.version, _OUTCOME)
            else:
                await self._newer_or_pause(base, min(_LONGEST, _AGAIN * 2.0 ** min(self._aborted - 1, 16)))
        elif isinstance(error, PeerError | WireError):
            await self._refused(machine, error)
        else:
            raise error

    async def _wait_outside(self, error: KeptOut) -> None:
        """§4.6: only a person can let this member back in. It says so once, and goes on asking."""
        seconds = min(_LONGEST_OUT, _KEPT_OUT * 2.0 ** min(self._kept_out, 16))
        if not self._kept_out:
            self._tell(events.KeptOut(error.reason, error.hint))
        self._kept_out += 1
        await self.log.over_within(seconds)

    def _welcome(self) -> None:
        """A cohort took this member."""
        if self._kept_out:
            self._tell(events.LetBackIn(self._kept_out))
        self._kept_out = 0

    async def _refused(self, machine: MemberRound, error: PeerError | WireError) -> None:
        """A rule was broken: say so, tell the others, keep away from who broke it, go on."""
        culprits = tuple(name for name in getattr(error, "culprits", ()) if name != self._me.name)
        avoided = self.company.refused(culprits)
        pause = self.company.pause
        if isinstance(error, TwoProcesses):
            # another process with this key may be one that is just being stopped, or an echo of it
            now = self._clock()
            self._doubled = now if self._doubled is None else self._doubled
            if now - self._doubled > _TWO_PROCESSES:
                raise error
            pause = min(_LONGEST, 4 * pause)
        self._tell(events.Refused(error.reason, culprits, tuple(avoided), pause))
        if (complaint := machine.complaint(error)) is not None:
            try:
                await self.aggregator.complain(complaint)
            except ChoralError as failed:
                self._tell(events.ComplaintNotTaken(failed.reason))
        await asyncio.sleep(_PAUSE * pause)

    def _due(self, record: Record, machine: MemberRound, anchor: Record) -> None:
        """Raises `PeerError` unless the record can be what this round led to (§5.2)."""
        behind = record.version - 1 - anchor.version
        if (
            record.round_id != machine.round_id
            or record.survivors != machine.survivors
            or record.task != self._task.digest
            or record.base != anchor.digest
            or not 0 <= behind <= self._task.max_staleness - machine.me.staleness
            or not signed_by(record, self._me.federation.aggregator_key)
        ):
            raise PeerError("the aggregator's outcome is not that of the round that this member signed")

    def _bear_witness(self, round_id: bytes, vector: Vector) -> None:
        """For demonstrations only: what was sent, in the clear."""
        if self._witness is not None and vector is not None:
            folder = self._witness / round_id.hex()[:16]
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{self._me.name}.update.npy", vector)

    def _fresh(self, base: Record) -> bool:
        return not self.log.over and self.head.version - base.version <= self._task.max_staleness

    async def _newer_or_pause(self, base: Record, seconds: float) -> None:
        if self._fresh(base):
            await self.log.newer_within(self.head.version, seconds)
