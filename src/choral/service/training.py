"""From a sum to the next model version: mean, rule, record, one transaction (§5, §6.4)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from choral.errors import ParameterError, RecordError, RoundAborted
from choral.federation import records
from choral.federation.enrolment import Participant
from choral.federation.progress import Progress
from choral.federation.provision import INITIAL
from choral.federation.records import Record
from choral.federation.totals import Totals
from choral.learning import model_file, rules
from choral.learning.update import flatten, unflatten
from choral.primitives.fixed_point import decode
from choral.protocol.aggregator import Total
from choral.protocol.transcript import sign
from choral.service.store import RoundRow, Store


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
        if store.head() is None:
            self._begin(aggregator.folder / INITIAL)
        self._bases: dict[bytes, Record] = {}
        self._progress = Progress()
        head = None
        for record in store.records(-1):
            head = records.follow(head, record, aggregator=aggregator.identity.public, task=self._task.digest)
            self._bases[record.context] = record
            self._progress = self._progress.after(record)
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
        a second time gives the record that it gave before.

        Raises:
            RoundAborted: `base` is too old by now, or the sum cannot be a model.
        """
        with self._lock:
            known = self._store.record_of(round_id)
            if known is not None:
                return known
            staleness = self.head.version - base.version
            if staleness + oldest > self._task.max_staleness or self.over:
                raise RoundAborted(
                    f"its members started from version {base.version - oldest}, but version"
                    f" {self.head.version} came first"
                )
            totals = Totals.decode(total.auxiliary)
            if not 1 <= totals.weight <= len(total.survivors) * self._task.weight_cap:
                raise RoundAborted(
                    f"a sum of weights of {totals.weight} is impossible for {len(total.survivors)} members",
                    hint="a member sent nonsense in its totals; nobody can tell which",
                )
            mean = decode(total.main, totals.weight, self._task.plan)
            mean *= np.float32((1 + staleness) ** -0.5)
            model, state = self._rule(self._model, mean, self._state)
            data = model_file.encode(unflatten(model, self._task.arrays))
            digest = rules.state_digest(state)
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
                    survivors=total.survivors,
                    totals=tuple(int(word) for word in total.auxiliary),
                    signature=bytes(64),
                ),
            )
            blobs = {record.parameters: data, digest: model_file.encode(state) if state else b""}
            self._store.append(record, blobs, row(record))
            self.head, self._model, self._state = record, model, state
            self._bases[record.context] = record
            self._progress = self._progress.after(record)
            return record
