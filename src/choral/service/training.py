"""From a sum to the next model version: mean, rule, record, one transaction (§5, §6.4)."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from choral.errors import Ending, ParameterError, RecordError, RoundAborted
from choral.federation import records
from choral.federation.enrolment import INITIAL, Participant
from choral.federation.progress import Progress
from choral.federation.records import Record
from choral.learning import model_file, rules
from choral.learning.step import next_model
from choral.learning.trainer import Vector
from choral.learning.update import Schema, flatten, schema_of
from choral.protocol.aggregator import Total
from choral.protocol.transcript import sign, signed_by
from choral.service.rounds.apart import some
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import Store
from choral.vectors.fixed_point import RingPlan, decode
from choral.vectors.totals import Totals

_BASES = 64  # versions beside the stalest allowed that a member may still come with, and be told the newest
_BLOCK = 1 << 16  # coordinates that are decoded at once


@dataclass(frozen=True)
class _Step:
    """A version that is made, and not saved yet."""

    record: Record
    blobs: dict[bytes, bytes | bytearray]
    model: Vector
    state: rules.State
    row: Callable[[Record], RoundRow]


class Training:
    """The head of the model log, and the only way to move it.

    Raises:
        ParameterError: the folder's initial model is not the one that the task names.
        RecordError: the stored log belongs to another task, or does not verify.
    """

    def __init__(self, aggregator: Participant, store: Store) -> None:
        self._me = aggregator
        self._store = store
        self._task = aggregator.task
        self._rule = rules.rule(self._task.rule.name, self._task.rule.options)
        self._lock = threading.Lock()
        self._next: _Step | None = None
        if store.head() is None:
            self._begin(aggregator.folder / INITIAL)
        self._bases: dict[bytes, Record] = {}
        self._progress = Progress()
        head = None
        for record in store.records(-1):
            if head is None:
                self._expect_mine(record)
            head = records.follow(head, record, aggregator=aggregator.identity.public, task=self._task.digest)
            self._passed(record)
        if head is None:
            raise RecordError("the model log is empty")
        self.head: Record = head
        self._model = flatten(
            model_file.decode(self.blob(head.parameters), self._task.arrays), self._task.arrays
        )
        state = self.blob(head.rule_state)
        self._state = model_file.decode(state) if state else {}
        if rules.state_digest(self._state) != head.rule_state:
            raise RecordError(f"the stored state of the rule is not that of version {head.version}")

    def _expect_mine(self, first: Record) -> None:
        """Raises `RecordError`, with whose it is, if another federation's log begins with `first`."""
        me, mine = self._me, self._me.identity.public
        if first.task == self._task.digest and signed_by(first, mine):
            return
        of = self._store.about()
        name = f"{of['federation']!r}, " if "federation" in of else ""
        key = f", aggregator {of['aggregator'][:12]}" if "aggregator" in of else ""
        theirs = f"{name}task {first.task.hex()[:12]}{key}"
        ours = f"task {self._task.digest.hex()[:12]}, aggregator {mine.hex()[:12]}"
        raise RecordError(
            f"the state in {self._store.path.parent} is that of another federation ({theirs}), and"
            f" {me.folder} is the aggregator of {me.federation.name!r} ({ours})",
            hint="a folder or a volume was kept: `--state` names an empty one, or move away what is in it",
        )

    def _passed(self, record: Record) -> None:
        """Take a version into what is remembered of the log: what rounds and retries can still ask for."""
        self._bases[record.context] = record
        while len(self._bases) > self._task.max_staleness + _BASES:
            del self._bases[next(iter(self._bases))]
        self._progress = self._progress.after(record)

    def blob(self, digest: bytes) -> bytes:
        """A model or a rule's state by digest.

        Raises:
            RecordError: there is none.
        """
        data = self._store.blob(digest)
        if data is None:
            raise RecordError(f"the store has nothing under {digest.hex()[:12]}")
        return data

    @property
    def over(self) -> bool:
        """Whether the task's rounds are done, or its patience is."""
        return self._progress.over(self._task)

    def base(self, ctx: bytes) -> Record | None:
        """The record that updates with this ctx start from."""
        return self._bases.get(ctx)

    def _begin(self, file: Path) -> None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ParameterError(f"{file}: cannot be read ({error.strerror})") from error
        if model_file.digest(data).hex() != self._task.model.initial:
            raise ParameterError(f"{file} is not the initial model that task.toml names")
        model_file.decode(data, self._task.arrays)
        state = rules.state_digest({})
        record = records.first(self._me.identity, self._task.digest, model_file.digest(data), state)
        self._store.append(record, {record.parameters: data, state: b""})
        self._store.tell_about(federation=self._me.federation.name, aggregator=self._me.identity.public.hex())

    @property
    def next_bytes(self) -> int:
        """Bytes of the next model and of the rule's state after it."""
        kept = 2 if self.head.version == 0 else len(self._state)  # no rule keeps more than two vectors
        return 4 * self._task.dimension * (1 + kept) + (1 << 16)

    def apply(
        self,
        total: Total,
        base: Record,
        round_id: bytes,
        row: Callable[[Record], RoundRow],
        *,
        oldest: int = 0,
    ) -> Record:
        """The next record from the sum of a round on `base`; `oldest` is the largest staleness in it.

        Members discount what they started from older versions than `base`. What passed since then, if
        cohorts run side by side, is discounted here, for the whole sum.

        Model, record and the end of the round (`row`) are stored in one transaction; the same round
        a second time gives the record that it gave before. The sum is used up: its memory becomes the mean's,
        and is free, if the caller does not hold it, before the model is written.

        Raises:
            RoundAborted: `base` is too old by now, or the sum cannot be a model.
            sqlite3.OperationalError, OSError: it could not be saved; `save` tries again.
        """
        with self._lock:
            with contextlib.suppress(sqlite3.OperationalError):  # if it is not known now, `append` will know
                known = self._store.record_of(round_id)
                if known is not None:
                    return known
            staleness = self.head.version - base.version
            if staleness + oldest > self._task.max_staleness or self.over:
                raise RoundAborted(
                    f"its members started from version {base.version - oldest}, but version"
                    f" {self.head.version} came first",
                    ending=Ending.SUPERSEDED,
                )
            totals = Totals.decode(total.auxiliary)
            self._expect_honest(total, totals.weight)
            words, survivors = tuple(int(word) for word in total.auxiliary), total.survivors
            mean = _mean(total.main, totals.weight, self._task.plan)
            del total
            model, state = next_model(self._rule, self._model, self._state, mean, staleness=staleness)
            del mean
            data, model = _packed(_arrays(model, self._task.arrays))
            digest = rules.state_digest(state)
            kept, state = _packed_state(state)
            record = sign(
                self._me.identity,
                Record(
                    version=self.head.version + 1,
                    task=self._task.digest,
                    parameters=model_file.digest(data),
                    rule_state=digest,
                    previous=self.head.digest,
                    base=base.digest,
                    round_id=round_id,
                    survivors=survivors,
                    totals=words,
                    signature=bytes(64),
                ),
            )
            self._next = _Step(record, {record.parameters: data, digest: kept}, model, state, row)
            return self._save()

    def _expect_honest(self, total: Total, weights: int) -> None:
        """Raises `RoundAborted` for what no cohort of honest members can have made (§6.4)."""
        members, plan = len(total.survivors), self._task.plan
        if not members <= weights <= members * plan.weight_cap:
            raise _lied(total, f"a sum of weights of {weights} is impossible for {members} members")
        # each rounded its own coordinate by at most half
        most = plan.largest * weights / plan.weight_cap + members / 2
        signed = total.main.view(np.int32)
        found = max(-int(signed.min()), int(signed.max()))
        if found > most:
            mean = found * plan.step * plan.weight_cap / weights
            raise _lied(
                total,
                f"a coordinate of the mean would be {mean:.3g}, and no member sends more than {plan.clip:g}",
            )

    def save(self) -> Record:
        """What `apply` made last and could not save, once more. Raises as that does."""
        with self._lock:
            return self._save()

    def _save(self) -> Record:
        step = self._next
        assert step is not None  # noqa: S101  (made by `apply`)
        self._store.append(step.record, step.blobs, step.row(step.record))
        self._next = None
        self.head, self._model, self._state = step.record, step.model, step.state
        self._passed(step.record)
        return step.record


def _lied(total: Total, what: str) -> RoundAborted:
    return RoundAborted(
        f"{what}: one of {some(total.survivors)} sent what no honest member sends",
        hint="nobody can tell who: the aggregator knows the sum alone. Its members go on to a new round",
        ending=Ending.BROKEN_RULE,
    )


def _mean(total: NDArray[np.uint32], weights: int, plan: RingPlan) -> Vector:
    """`decode` in the memory of `total`, block by block."""
    mean = total.view(np.float32)
    for at in range(0, len(total), _BLOCK):
        mean[at : at + _BLOCK] = decode(total[at : at + _BLOCK], weights, plan)
    return mean


def _arrays(vector: Vector, schema: Schema) -> dict[str, Vector]:
    """The vector's arrays by name, as parts of it."""
    found, at = {}, 0
    for name, shape in schema:
        found[name] = vector[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    return found


def _packed(arrays: dict[str, Vector]) -> tuple[bytearray, Vector]:
    """A model file, and its values as one vector in the file's own memory."""
    data = model_file.pack(arrays)
    d = sum(array.size for array in arrays.values())
    return data, np.frombuffer(data, np.float32, offset=len(data) - 4 * d)


def _packed_state(state: rules.State) -> tuple[bytes | bytearray, rules.State]:
    if not state:
        return b"", {}
    data, values = _packed(state)
    return data, _arrays(values, schema_of(state))
