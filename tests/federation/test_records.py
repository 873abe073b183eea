"""The model log can be followed forwards only: no forgery, fork, gap, reordering or rollback."""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256

import pytest

from choral.errors import ParameterError, RecordError, WireError
from choral.federation.records import Record, Records, first, follow, verify
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol import wire
from choral.protocol.transcript import sign
from choral.vectors.totals import Totals

AGGREGATOR = Identity.generate(seeded(b"aggregator"))
STRANGER = Identity.generate(seeded(b"stranger"))
TASK = b"t" * 32


def after(before: Record, **changes) -> Record:
    number = before.version + 1
    record = replace(
        before, version=number, previous=before.digest, base=before.digest, round_id=bytes([number]) * 32,
        parameters=bytes([number]) * 32, survivors=("a", "b", "c"), totals=(3, 0, 0, 0, 0, 0),
    )  # fmt: skip
    return sign(AGGREGATOR, replace(record, **changes))


LOG = [first(AGGREGATOR, TASK, b"p" * 32, b"s" * 32)]
for _ in range(4):
    LOG.append(after(LOG[-1]))


def check(records):
    return verify(records, aggregator=AGGREGATOR.public, task=TASK)


def test_a_whole_log_verifies():
    assert check(LOG) is LOG[-1]
    assert check([]) is None


@pytest.mark.parametrize("field", [field.name for field in fields(Record)])
def test_a_record_with_any_field_changed_is_refused(field):
    for at in (0, 2):
        value = getattr(LOG[at], field)
        if isinstance(value, bytes):
            value = bytes([value[0] ^ 1]) + value[1:]
        elif isinstance(value, int):
            value += 1
        else:
            value = (*value, "x" if field == "survivors" else 7)
        forged = [*LOG[:at], replace(LOG[at], **{field: value}), *LOG[at + 1 :]]
        with pytest.raises(RecordError, match="not signed"):
            check(forged)


def test_a_record_signed_by_anybody_else_is_refused():
    with pytest.raises(RecordError, match="pinned key"):
        check([*LOG, sign(STRANGER, after(LOG[-1]))])


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(LOG[1:], id="without its beginning"),
        pytest.param([*LOG[:2], *LOG[3:]], id="with a gap"),
        pytest.param([LOG[0], LOG[2], LOG[1]], id="reordered"),
        pytest.param([*LOG, LOG[-1]], id="with a repetition"),
        pytest.param([*LOG, LOG[1]], id="rolled back"),
        pytest.param([*LOG[:3], after(LOG[1], version=3)], id="forked"),
        pytest.param([*LOG[:2], after(LOG[0], version=2)], id="forked at once"),
        pytest.param([LOG[0], after(LOG[0], parameters=bytes(32)), LOG[2]], id="with a swapped record"),
        pytest.param([after(LOG[0], version=0)], id="whose first has a predecessor"),
    ],
)
def test_a_log_is_refused(log):
    with pytest.raises(RecordError):
        check(log)


def test_a_record_of_another_task_is_refused():
    with pytest.raises(RecordError, match="belongs to task") as error:
        follow(None, LOG[0], aggregator=AGGREGATOR.public, task=bytes(32))
    assert error.value.hint


def test_a_fork_is_told_from_a_gap():
    with pytest.raises(RecordError, match="does not follow") as error:
        follow(LOG[2], after(LOG[1], version=3), aggregator=AGGREGATOR.public, task=TASK)
    assert "forked" in error.value.hint


def test_digest_and_context_cover_everything_but_the_signature():
    record = LOG[2]
    assert replace(record, signature=bytes(64)).digest == record.digest
    others = [
        replace(record, version=9), replace(record, survivors=("a",)), replace(record, totals=()),
        replace(record, task=bytes(32)), replace(record, previous=bytes(32)),
    ]  # fmt: skip
    assert len({other.digest for other in (record, *others)}) == 6
    assert len({other.context for other in (record, *others)}) == 6


def test_records_travel_in_one_encoding_only():
    data = wire.encode(Records(4, tuple(LOG)))
    assert wire.decode(Records, data) == Records(4, tuple(LOG))
    for bad in (data[:-1], data + b"\0", data.replace(b"records", b"recordz"), b""):
        with pytest.raises(WireError):
            wire.decode(Records, bad)


def test_totals_come_out_of_a_sum_as_they_went_in():
    one, two = Totals(10, 5, 4, 1.5, 2, 0), Totals(7, 3, 1, 0.25, 0, 1)
    total = Totals.decode(one.encode() + two.encode())
    assert total == Totals(17, 8, 5, 1.75, 2, 1)
    assert total.accuracy == 5 / 8
    assert total.mean_loss == 1.75 / 8
    assert Totals(1).accuracy is None
    regression = Totals(10, examples=5, correct=0, loss=1.5)
    assert (regression.accuracy, regression.mean_loss) == (None, 0.3)
    assert len(Totals(1).encode()) == Totals.WORDS
    with pytest.raises(ParameterError, match="weight"):
        Totals(0).encode()


GOOD = Totals(30, examples=12, correct=5, loss=3.5)
MOST = Totals(1, examples=2.0**60).encode()[1]  # of one member


def words(totals: Totals, **changes: int) -> tuple[int, ...]:
    """As they would be in a sum: a word may be anything."""
    found = {f.name: int(word) for f, word in zip(fields(Totals), totals.encode(), strict=True)}
    return tuple((found | changes).values())


@pytest.mark.parametrize(
    "totals",
    [
        (1, 2),
        (2**64 - 1,) * 6,
        words(replace(GOOD, correct=13)),
        words(replace(GOOD, correct=-1)),
        words(replace(GOOD, loss=-0.01)),
        words(replace(GOOD, examples=-12, correct=-13)),
        words(GOOD, examples=3 * int(MOST) + 2**20),
        words(GOOD, loss=3 * int(MOST) + 2**20),
    ],
)
def test_metrics_that_no_honest_cohort_can_have_count_as_not_measured(totals):
    """One negative loss would be the best version for ever, and with patience it ended the training."""
    record = replace(LOG[1], totals=totals)
    assert record.metrics is None


def test_metrics_at_the_edge_of_what_can_be_are_metrics():
    for totals in (GOOD, replace(GOOD, correct=12, loss=0.0), replace(GOOD, examples=0, correct=0, loss=0)):
        assert replace(LOG[1], totals=words(totals)).metrics == totals
    everything = {name: 3 * int(MOST) for name in ("examples", "correct", "loss")}
    assert replace(LOG[1], totals=words(GOOD, **everything)).metrics is not None


def test_two_aggregators_logs_have_nothing_in_common_from_the_first_record_on():
    """The same task, model and rule: else a ctx, and so a round's name, would be the same with both."""
    mine, other = LOG[0], first(STRANGER, TASK, b"p" * 32, b"s" * 32)
    assert mine.previous == sha256(b"choral/1 origin\0" + AGGREGATOR.public).digest()
    assert mine.digest != other.digest
    assert mine.context != other.context
    copied = sign(AGGREGATOR, replace(other, signature=bytes(64)))  # a log that another one began
    with pytest.raises(RecordError, match="version 0 does not name the aggregator's key"):
        check([copied])
    with pytest.raises(RecordError, match="does not name") as error:
        check([sign(AGGREGATOR, replace(mine, previous=bytes(32)))])
    assert "before 0.2" in error.value.hint
