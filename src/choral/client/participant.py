"""The member's loop: fetch, train, join when the update is ready, four phases, again.

What is trusted is this member's own folder. Everything from the aggregator goes through
`federation.records.follow` or the protocol's member machine, or is compared with a digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from choral.client.journal import Journal
from choral.client.learner import Learner, Update, discounted
from choral.client.log import ModelLog
from choral.client.process import telling
from choral.client.transport import Report, Transport
from choral.data.examples import Examples
from choral.errors import (
    ChoralError,
    OutOfPhase,
    ParameterError,
    PeerError,
    RoundAborted,
    ShuttingDown,
    Superseded,
    TwoProcesses,
    UnknownRound,
)
from choral.federation import enrolment
from choral.federation.records import Record
from choral.learning.trainer import Trainer
from choral.primitives.entropy import RandomBytes
from choral.protocol import phases, wire
from choral.protocol.member import MemberRound
from choral.protocol.messages import (
    Complaint,
    Endorsements,
    FromAggregator,
    Inbox,
    Roster,
    Survivors,
)
from choral.protocol.transcript import sign, signed_by

PATIENCE_WITH_PEERS = 5  # refused rounds in a row before a member gives up and says so
_PAUSE = 1.0
_OUTCOME = 10.0  # seconds to wait for a version that a lost answer would have brought


class Member:
    """One member of a federation, from its folder to the last model version.

    Args:
        me: the member's folder, loaded.
        trainer: the model; its arrays must be the task's.
        examples: this member's data; a part of it, `task.holdout`, only measures the model.
        transport: to the aggregator.
        journal: open.
        random: for keys and shares.
        seed: for training; the same seed, data and versions give the same updates.
        report: told what happens.
        witness: folder to write every update to, in the clear, for demonstrations.
    """

    def __init__(
        self,
        me: enrolment.Participant,
        trainer: Trainer,
        examples: Examples,
        transport: Transport,
        journal: Journal,
        *,
        random: RandomBytes,
        seed: int | None = None,
        report: Report = lambda event, **details: None,
        witness: Path | None = None,
        threads: int = 1,
    ) -> None:
        self._me = me
        self._task = me.task
        self._transport = transport
        self._journal = journal
        self._random = random
        self._report = report
        self._witness = witness
        self._threads = threads
        self._learner = Learner(me, trainer, examples, seed, report)
        _ = me.sealing  # keys that are missing are said now, not after the first training
        self.log = ModelLog(me, transport, journal, report)
        self._refusals = 0

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
        digest = hashlib.sha256(await self._transport.get("/v1/task")).digest()
        if digest != hashlib.sha256(self._task.encode()).digest():
            raise ParameterError(
                "the aggregator serves another task than the one in this member's folder",
                hint="wrong address, another federation's folder, or one side's task.toml was edited",
            )

    async def _outcome(self, round_id: bytes, base: int) -> bool:
        """§5: whether the update of a round whose answer was lost is in the model."""
        try:
            found = json.loads(await self._transport.get(f"/v1/rounds/{round_id.hex()}"))
            state, version = str(found["state"]), found.get("details", {}).get("version")
            mine = state == "done" and self._me.name in found["details"]["survivors"]
        except UnknownRound:
            state, version, mine = "unknown", None, False
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            state, version, mine = "told in no way that can be read", None, False
        self._report("last outcome", base=base, state=state, version=version if mine else None)
        return mine

    async def _work(self) -> Record:
        while not self.log.over:
            head = self.head
            attempt = self._journal.attempts(head)
            if attempt >= self._me.federation.sends_per_model:
                await self._rest(head)
                continue
            model = await self.log.model(head)
            update = await asyncio.to_thread(self._learner.train, model, head, attempt)
            await self._contribute(head, update)
        head = self.head
        measured = await asyncio.to_thread(self._learner.measure, await self.log.model(head))
        known = measured.examples and measured.classified
        self._report("done", version=head.version, accuracy=measured.accuracy if known else None)
        return head

    async def _rest(self, base: Record) -> None:
        self._report("resting", version=base.version, sent=self._journal.attempts(base))
        await self.log.newer_than(base.version)

    # ----- one update, until it is in or spent ------------------------------------------------

    async def _contribute(self, base: Record, update: Update) -> None:
        """Offer an update to cohorts until it was sent once or is too old."""
        if self._journal.spent(update.digest):
            await self._rest(base)
            return
        while self._fresh(base):
            anchor = self.head  # what the cohort stands on; the update may start from an older version
            staleness = anchor.version - base.version
            offered = discounted(update, staleness)
            machine = MemberRound(
                phases.Member(
                    self._me.name,
                    self._me.identity,
                    self._me.federation.pinned,
                    self._me.parameters,
                    anchor.context,
                    self._me.sealing,
                    staleness,
                ),
                offered.vector,
                offered.totals.encode(),
                self._random,
                threads=self._threads,
            )
            round_ = _Round(self, machine, base, anchor, offered, update.digest)
            try:
                record = await round_.run()
                self._refusals = 0
                self.log.promise(record)
                await self.log.newer_than(record.version - 1)
                return
            except (Superseded, ShuttingDown) as error:
                self._report("waiting", reason=error.reason)
                await self._newer_or_pause(base, _PAUSE)
            except (RoundAborted, UnknownRound, OutOfPhase) as error:
                self._report(
                    "aborted",
                    reason=error.reason,
                    missing=list(getattr(error, "missing", ())),
                    spent=round_.spent,
                )
                known = machine.round_id if round_.spent else None
                if known and await self._outcome(known, base.version):
                    await self.log.newer_within(base.version, _OUTCOME)
                else:
                    await self._newer_or_pause(base, 0.2)
            except PeerError as error:
                await self._refused(machine, error)
            if round_.spent:
                return  # §5: never again; train anew from the current model

    async def _refused(self, machine: MemberRound, error: PeerError) -> None:
        """A rule was broken: say so, tell the others, and do not go on for ever."""
        self._report("refused", reason=error.reason, culprits=list(error.culprits))
        self._refusals += 1
        if machine.round_id is not None:
            complaint = Complaint(
                self._me.name, machine.round_id, error.reason[:500], error.culprits, bytes(64)
            )
            try:
                await self._transport.send(
                    "POST",
                    f"/v1/rounds/{machine.round_id.hex()}/complaint",
                    wire.encode(sign(self._me.identity, complaint)),
                )
            except ChoralError as failed:
                self._report("complaint not taken", reason=failed.reason)
        if self._refusals >= PATIENCE_WITH_PEERS:
            raise error
        # another process with this key may be one that is just being stopped
        await asyncio.sleep(_PAUSE * self._refusals * (4 if isinstance(error, TwoProcesses) else 1))

    def _fresh(self, base: Record) -> bool:
        return not self.log.over and self.head.version - base.version <= self._task.max_staleness

    async def _newer_or_pause(self, base: Record, seconds: float) -> None:
        if self._fresh(base):
            await self.log.newer_within(self.head.version, seconds)


class _Round:
    """One round over the wire: each answer of the machine is the next request.

    Args:
        base: what the update starts from.
        anchor: what the cohort stands on.
        offered: the update, discounted if `base` is older.
        digest: of the update as it was trained: once spent, it is spent at any discount.
    """

    def __init__(  # noqa: PLR0917
        self,
        member: Member,
        machine: MemberRound,
        base: Record,
        anchor: Record,
        offered: Update,
        digest: bytes,
    ) -> None:
        self._member = member
        self._machine = machine
        self._base = base
        self._anchor = anchor
        self._offered = offered
        self._digest = digest
        self.spent = False

    async def run(self) -> Record:
        """The record that the round led to.

        Raises:
            ChoralError: refused by this member or by the aggregator.
        """
        member, machine = self._member, self._machine
        advertise = wire.encode(machine.advertise)
        async with telling(member._transport, member._me.name, member._me.federation.members, member._report):
            shares = await self._step("POST", "/v1/rounds", advertise, Roster)
        assert machine.round_id is not None  # noqa: S101
        at = f"/v1/rounds/{machine.round_id.hex()}"
        masked = await self._step("POST", f"{at}/shares", wire.encode(shares), Inbox)
        await asyncio.to_thread(self._spend, machine.round_id)
        body = await asyncio.to_thread(machine.me.sealing.encode_vector, masked)
        consistency = await self._step("PUT", f"{at}/masked", body, Survivors, again=("GET", f"{at}/masked"))
        reveal = await self._step("POST", f"{at}/consistency", wire.encode(consistency), Endorsements)
        data = await member._transport.send("POST", f"{at}/unmask", wire.encode(reveal))
        return self._outcome(wire.decode(Record, data))

    def _outcome(self, record: Record) -> Record:
        """The record, if it can be what this round led to."""
        me = self._member._me
        behind = record.version - 1 - self._anchor.version
        if (
            record.round_id != self._machine.round_id
            or record.survivors != self._machine.survivors
            or record.task != me.task.digest
            or record.base != self._anchor.digest
            or not 0 <= behind <= me.task.max_staleness - self._machine.me.staleness
            or not signed_by(record, me.federation.aggregator_key)
        ):
            raise PeerError("the aggregator's outcome is not that of the round that this member signed")
        return record

    async def _step(
        self, method: str, path: str, content: Any, kind: type[FromAggregator], **more: Any
    ) -> Any:
        data = await self._member._transport.send(method, path, content, **more)
        message = wire.decode(kind, data)
        self._member._report("phase", got=kind.__name__.lower())
        if kind is Inbox:  # masks: heavy
            return await asyncio.to_thread(self._machine.receive, message)
        return self._machine.receive(message)

    def _spend(self, round_id: bytes) -> None:
        member = self._member
        member._journal.spend(round_id, self._base, self._digest)
        self.spent = True
        if member._witness:
            folder = member._witness / round_id.hex()[:16]
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{member._me.name}.update.npy", self._offered.vector)
