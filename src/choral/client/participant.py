"""The member's loop: fetch, train, join when the update is ready, four phases, again.

What is trusted is this member's own folder. Everything from the aggregator goes through
`federation.records.follow` or the protocol's member machine, or is compared with a digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from choral.client.journal import Journal
from choral.client.transport import Report, Transport
from choral.errors import (
    ChoralError,
    OutOfPhase,
    ParameterError,
    PeerError,
    RecordError,
    RoundAborted,
    ShuttingDown,
    SpentError,
    Superseded,
    TwoProcesses,
    UnknownRound,
    UpdateError,
)
from choral.federation import enrolment
from choral.federation.records import Record, Records, follow
from choral.federation.totals import Totals
from choral.learning import model_file
from choral.learning.trainer import Evaluation, Parameters, Trainer
from choral.learning.update import difference
from choral.primitives.entropy import RandomBytes
from choral.primitives.fixed_point import encode
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
from choral.protocol.transcript import sign

PATIENCE_WITH_PEERS = 5  # refused rounds in a row before a member gives up and says so
_PAUSE = 1.0


class Examples(NamedTuple):
    """A member's own data: X float32 (n, features), y integer (n,)."""

    X: NDArray[np.float32]
    y: NDArray[Any]


@dataclass(frozen=True)
class Update:
    """What one local training gave, encoded: never leaves this process unmasked."""

    vector: NDArray[np.uint32]
    totals: Totals

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.vector.data).digest()


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
        self._trainer = trainer
        self._transport = transport
        self._journal = journal
        self._random = random
        self._report = report
        self._witness = witness
        self._threads = threads
        self._seed = seed if seed is not None else _own_seed(me)
        self._training, self._held_out = _hold_out(examples, me.task.holdout, self._seed)
        self.head: Record | None = journal.head()
        self._moved = asyncio.Condition()
        self._refusals = 0

    async def run(self) -> Record:
        """Take part until the task's rounds are done; the newest record.

        Raises:
            ChoralError: what keeps this member from taking part.
        """
        await self._check_task()
        await self._ask_for_last_outcome()
        watch = asyncio.create_task(self._watch())
        work = asyncio.create_task(self._work())
        try:
            # the watch only ever ends by an error, and then there is nothing to work from
            await asyncio.wait([watch, work], return_when=asyncio.FIRST_COMPLETED)
            return await (work if work.done() else watch)
        finally:
            for task in (watch, work):
                task.cancel()
            await asyncio.gather(watch, work, return_exceptions=True)

    # ----- the log ----------------------------------------------------------------------------

    async def _check_task(self) -> None:
        digest = hashlib.sha256(await self._transport.get("/v1/task")).digest()
        if digest != hashlib.sha256(self._task.encode()).digest():
            raise ParameterError(
                "the aggregator serves another task than the one in this member's folder",
                hint="wrong address, another federation's folder, or one side's task.toml was edited",
            )

    async def _watch(self) -> Record:
        """Follow the log for ever. The open request also tells the aggregator that this member is there."""
        while True:
            seen = -1 if self.head is None else self.head.version
            data = await self._transport.get(f"/v1/records?after={seen}")
            stretch = wire.decode(Records, data)
            if stretch.newest < seen:
                raise RecordError(
                    f"the aggregator's log ends at version {stretch.newest}, this member has seen {seen}",
                    hint="the log was rolled back; if a backup was restored, members have to be told",
                )
            for record in stretch.records:
                self.head = follow(
                    self.head, record, aggregator=self._me.federation.aggregator_key, task=self._task.digest
                )
                await asyncio.to_thread(self._journal.saw, self.head)
                self._report_version(record)
            async with self._moved:
                self._moved.notify_all()

    async def _newer_than(self, version: int) -> Record:
        async with self._moved:
            await self._moved.wait_for(lambda: self.head is not None and self.head.version > version)
        assert self.head is not None  # noqa: S101
        return self.head

    async def _model(self, record: Record) -> Parameters:
        data = await self._transport.get(f"/v1/models/{record.parameters.hex()}")
        if model_file.digest(data) != record.parameters:
            raise RecordError(f"the model of version {record.version} is not the one that its record names")
        return model_file.decode(data, self._task.arrays)

    async def _ask_for_last_outcome(self) -> None:
        """§5: a member that lost the answer learns whether its update is in."""
        last = self._journal.last()
        if last is None:
            return
        try:
            outcome = json.loads(await self._transport.get(f"/v1/rounds/{last.round_id.hex()}"))
        except UnknownRound:
            outcome = {"state": "unknown"}
        version = outcome.get("details", {}).get("version")
        self._report("last outcome", base=last.base, state=outcome.get("state"), version=version)

    def _report_version(self, record: Record) -> None:
        metrics = record.metrics
        self._report(
            "version",
            version=record.version,
            survivors=list(record.survivors),
            mine=self._me.name in record.survivors,
            accuracy_before=metrics.accuracy if metrics else None,
        )

    # ----- learning ---------------------------------------------------------------------------

    async def _work(self) -> Record:
        head = await self._newer_than(-1)
        while head.version < self._task.rounds:
            attempt = self._journal.attempts(head)
            if attempt >= self._me.federation.sends_per_model:
                self._report("resting", version=head.version, sent=attempt)
                head = await self._newer_than(head.version)
                continue
            model = await self._model(head)
            update = await asyncio.to_thread(self._train, model, head, attempt)
            await self._contribute(head, update)
            assert self.head is not None  # noqa: S101
            head = self.head
        measured = await asyncio.to_thread(self._measure, await self._model(head))
        self._report("done", version=head.version, accuracy=measured.accuracy if measured.examples else None)
        return head

    def _train(self, model: Parameters, base: Record, attempt: int) -> Update:
        rng = np.random.default_rng([self._seed, base.version, attempt])
        X, y = self._training  # noqa: N806
        if attempt:
            # after a spent update: another part of the data, so that no two sums from one model
            # differ in nothing but who is in them (§5, LZ+21)
            keep = np.sort(rng.permutation(len(y))[: max(1, len(y) * 9 // 10)])
            X, y = X[keep], y[keep]  # noqa: N806
        measured = self._measure(model)
        trained = self._trainer.train(model, X, y, rng)
        delta = difference(trained, model, self._task.arrays)
        weight = min(len(y), self._task.weight_cap)
        encoded = encode(delta, weight, self._task.plan)
        totals = Totals(
            weight,
            measured.examples,
            measured.correct,
            measured.loss,
            encoded.clipped,
            int(len(y) > self._task.weight_cap),
        )
        self._report(
            "trained",
            version=base.version,
            examples=len(y),
            accuracy=measured.accuracy if measured.examples else None,
            clipped=encoded.clipped,
            capped=len(y) > self._task.weight_cap,
        )
        return Update(encoded.vector, totals)

    def _measure(self, model: Parameters) -> Evaluation:
        X, y = self._held_out  # noqa: N806
        if not len(y):
            return Evaluation(0, 0, 0.0)
        measured = self._trainer.evaluate(model, X, y)
        if not np.isfinite(measured.loss):
            raise UpdateError(f"the model's loss on this member's data is {measured.loss}")
        return measured

    # ----- one update, until it is in or spent ------------------------------------------------

    async def _contribute(self, base: Record, update: Update) -> None:
        """Offer an update to cohorts until it was sent once or is too old."""
        while self._fresh(base):
            machine = MemberRound(
                phases.Member(
                    self._me.name,
                    self._me.identity,
                    self._me.federation.pinned,
                    self._me.parameters,
                    base.context,
                ),
                update.vector,
                update.totals.encode(),
                self._random,
                threads=self._threads,
            )
            round_ = _Round(self, machine, base, update)
            try:
                record = await round_.run()
                self._refusals = 0
                await self._newer_than(record.version - 1)
                return
            except (Superseded, ShuttingDown) as error:
                self._report("waiting", reason=error.reason)
                await self._newer_or_pause(base)
            except (RoundAborted, UnknownRound, OutOfPhase) as error:
                self._report(
                    "aborted",
                    reason=error.reason,
                    missing=list(getattr(error, "missing", ())),
                    spent=round_.spent,
                )
                await self._newer_or_pause(base, 0.2)
            except SpentError:
                self._report("resting", version=base.version, sent=self._journal.attempts(base))
                await self._newer_than(base.version)
                return
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
        assert self.head is not None  # noqa: S101
        return self.head.version - base.version <= self._task.max_staleness

    async def _newer_or_pause(self, base: Record, seconds: float = _PAUSE) -> None:
        try:
            await asyncio.wait_for(self._newer_than(base.version), seconds)
        except TimeoutError:
            return


class _Round:
    """One round over the wire: each answer of the machine is the next request."""

    def __init__(self, member: Member, machine: MemberRound, base: Record, update: Update) -> None:
        self._member = member
        self._machine = machine
        self._base = base
        self._update = update
        self.spent = False

    async def run(self) -> Record:
        """The record that the round led to.

        Raises:
            ChoralError: refused by this member or by the aggregator.
        """
        member, machine = self._member, self._machine
        advertise = wire.encode(machine.advertise)
        shares = await self._step("POST", "/v1/rounds", advertise, Roster)
        assert machine.round_id is not None  # noqa: S101
        at = f"/v1/rounds/{machine.round_id.hex()}"
        masked = await self._step("POST", f"{at}/shares", wire.encode(shares), Inbox)
        await asyncio.to_thread(self._spend, machine.round_id)
        consistency = await self._step(
            "PUT", f"{at}/masked", wire.encode_vector(masked), Survivors, again=("GET", f"{at}/masked")
        )
        reveal = await self._step("POST", f"{at}/consistency", wire.encode(consistency), Endorsements)
        data = await member._transport.send("POST", f"{at}/unmask", wire.encode(reveal))
        record = wire.decode(Record, data)
        if record.round_id != machine.round_id or record.survivors != machine.survivors:
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
        member._journal.spend(round_id, self._base, self._update.digest)
        self.spent = True
        if member._witness:
            folder = member._witness / round_id.hex()[:16]
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{member._me.name}.update.npy", self._update.vector)


def _own_seed(me: enrolment.Participant) -> int:
    """A seed of this member's own, from the task's."""
    return int.from_bytes(hashlib.sha256(f"{me.task.seed}/{me.name}".encode()).digest()[:8], "little")


def _hold_out(examples: Examples, part: float, seed: int) -> tuple[Examples, Examples]:
    """Training and held-out examples. The same every time, or a member would test on what it trained on."""
    X, y = examples  # noqa: N806
    order = np.random.default_rng([seed, 0xB0]).permutation(len(y))
    cut = len(y) - int(len(y) * part)
    if cut < 1:
        raise ParameterError(f"{len(y)} examples leave none to train on")
    training, held_out = np.sort(order[:cut]), np.sort(order[cut:])
    return Examples(X[training], y[training]), Examples(X[held_out], y[held_out])
