"""Best version and early stopping follow from the signed log, and from nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choral.federation.progress import Progress, progress_of
from choral.federation.records import NONE, Record, first
from choral.federation.task import Model, Task
from choral.federation.totals import Totals
from choral.primitives import entropy
from choral.primitives.identity import Identity

KEY = Identity.generate(entropy.seeded(b"progress"))


def log_of(losses, examples=8):
    """Version 0, then one record for each loss that was measured on the version before."""
    records = [first(KEY, NONE, NONE, NONE)]
    for version, loss in enumerate(losses, 1):
        totals = Totals(5, 0 if loss is None else examples, 4, 0 if loss is None else loss * examples)
        words = tuple(int(word) for word in totals.encode())
        records.append(
            Record(version, NONE, NONE, NONE, NONE, NONE, bytes([version] * 32), ("a",), words, bytes(64))
        )
    return records


def task(**more):
    model = Model(name="softmax", features=1, classes=2, arrays={"bias": (2,)}, initial="0" * 64)
    return Task(name="t", model=model, largest_cohort=3, weight_cap=5, rounds=100, **more)


LOSSES = st.lists(st.one_of(st.none(), st.sampled_from([0.25, 0.5, 1.0, 2.0])), max_size=12)


@given(LOSSES)
def test_the_best_version_is_the_first_with_the_smallest_loss(losses):
    measured = [(loss, version) for version, loss in enumerate(losses) if loss is not None]
    progress = progress_of(log_of(losses))
    assert progress.newest == len(losses)
    assert progress.best == (min(measured)[1] if measured else None)


@given(LOSSES, st.integers(1, 4))
def test_training_ends_once_so_many_versions_in_a_row_were_no_better(losses, patience):
    ends = []
    records, progress = log_of(losses), Progress()
    for record in records:
        progress = progress.after(record)
        ends.append(progress.over(task(patience=patience)))
    for newest, ended in enumerate(ends):
        before = losses[:newest]
        measured = [loss for loss in before if loss is not None]
        best = before.index(min(measured)) if measured else newest
        assert ended == (len(before) - 1 - best >= patience)


@given(LOSSES, st.integers(0, 12))
def test_reading_on_is_reading_from_the_start(losses, cut):
    records = log_of(losses)
    progress = progress_of(records[:cut])
    for record in records[cut:]:
        progress = progress.after(record)
    assert progress == progress_of(records)


def test_without_patience_only_the_rounds_end_it():
    worse = progress_of(log_of([1.0] + [2.0] * 98))
    assert not worse.over(task())
    assert progress_of(log_of([1.0] + [2.0] * 99)).over(task())


def test_patience_without_held_out_examples_is_refused():
    with pytest.raises(ValueError, match="holdout is 0"):
        task(patience=3, holdout=0.0)
