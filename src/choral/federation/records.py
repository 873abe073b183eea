"""The model log: hash-chained, signed records, one a model version (§1, §5).

`follow` is the only way a member moves forward: a record that does not extend what it has seen is
refused, so that the aggregator can neither fork the log nor roll it back unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from choral.errors import RecordError
from choral.primitives.identity import Identity
from choral.protocol.messages import Bytes32, Name, Signature
from choral.protocol.transcript import context, digest, sign, signed_by
from choral.protocol.wire import plain
from choral.vectors.totals import Totals

NONE = bytes(32)
PAGE = 100  # records that one answer holds at most


@dataclass(frozen=True)
class Record:
    """One model version.

    Attributes:
        version: 0 for the initial model, then one more a record.
        parameters: SHA-256 of the model's safetensors.
        rule_state: digest of the rule's state after this version.
        previous: digest of the record before; for version 0 `origin` of the aggregator's key.
        base: digest of the record that the round's cohort stood on (§4); zeros for version 0.
        round_id: the round whose sum is in this version; zeros for version 0.
        survivors: U3 of that round, in roster order.
        totals: the summed auxiliary segment, as words.
    """

    label: ClassVar = "choral/1 record"
    version: int
    task: Bytes32
    parameters: Bytes32
    rule_state: Bytes32
    previous: Bytes32
    base: Bytes32
    round_id: Bytes32
    survivors: tuple[Name, ...]
    totals: tuple[int, ...]
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Names this version and, through `previous`, all versions before it. 32 bytes."""
        return digest(plain(self, ("signature",)))

    @property
    def context(self) -> bytes:
        """ctx of cohorts that start from this version (§4)."""
        return context(self.task, self.digest)

    @property
    def metrics(self) -> Totals | None:
        """What the survivors' held-out data said about the base of this version.

        None also for totals that no honest cohort can have: somebody lied, and nothing was measured (§6.4).
        """
        if len(self.totals) != Totals.WORDS:
            return None
        found = Totals.decode(np.array(self.totals, np.uint64))
        return found if found.possible(len(self.survivors)) else None


@dataclass(frozen=True)
class Records:
    """A stretch of the log, oldest first, and how long the whole log is."""

    newest: int
    records: tuple[Record, ...]


def first(identity: Identity, task: bytes, parameters: bytes, rule_state: bytes) -> Record:
    """Version 0, signed."""
    previous = origin(identity.public)
    return sign(identity, Record(0, task, parameters, rule_state, previous, NONE, NONE, (), (), bytes(64)))


def origin(aggregator: bytes) -> bytes:
    """What version 0 follows from: whose log it is, and so whose ctx and masks these are (§5.2)."""
    return hashlib.sha256(b"choral/1 origin\0" + aggregator).digest()


def follow(before: Record | None, record: Record, *, aggregator: bytes, task: bytes) -> Record:
    """`record`, if it is the one that comes after `before` (None: the first of the log).

    Args:
        aggregator: the pinned identity key, 32 bytes.
        task: this participant's own task digest.

    Raises:
        RecordError: which rule of the log it breaks.
    """
    version = 0 if before is None else before.version + 1
    where = f"the record of version {record.version}"
    if not signed_by(record, aggregator):
        raise RecordError(f"{where} is not signed by the aggregator's pinned key")
    if record.task != task:
        raise RecordError(
            f"{where} belongs to task {record.task.hex()[:12]}, this participant's is {task.hex()[:12]}",
            hint="the aggregator serves another federation, or the task file was edited",
        )
    if record.version != version:
        raise RecordError(f"{where} came where version {version} was expected")
    if before is None and record.previous != origin(aggregator):
        raise RecordError(
            "version 0 does not name the aggregator's key",
            hint="a Choral before 0.2 began this log, or another aggregator did: it cannot be gone on with",
        )
    if before is not None and record.previous != before.digest:
        raise RecordError(
            f"{where} does not follow from the version that this participant has seen",
            hint="the aggregator's log was rolled back or forked; do not go on with it",
        )
    return record


def verify(records: Iterable[Record], *, aggregator: bytes, task: bytes) -> Record | None:
    """The newest record of a whole log, every link checked.

    Raises:
        RecordError: the first record that breaks a rule.
    """
    newest = None
    for record in records:
        newest = follow(newest, record, aggregator=aggregator, task=task)
    return newest
