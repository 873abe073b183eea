"""Best version and early stopping follow from the log, and compare only what the same members measured."""

from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from choral.federation.progress import BASES, FEW, GROUPS, Measurement, measured, progress_of
from choral.federation.records import NONE, Record, first
from choral.federation.task import Model, Task
from choral.primitives import entropy
from choral.primitives.identity import Identity
from choral.vectors.totals import Totals

KEY = Identity.generate(entropy.seeded(b"progress"))
ALL = ("a", "b", "c")
EXAMPLES = {"a": 8, "b": 16, "c": 32}  # of each member's held-out data


@dataclass
class Said:
    """One round: who was in its sum, their mean loss on the model before, who left its figures out."""

    loss: float
    survivors: tuple[str, ...] = ALL
    silent: tuple[str, ...] = ()
    older: int = 0  # than the version before: the cohort stood on that one

    @property
    def examples(self):
        return sum(EXAMPLES[name] for name in self.survivors if name not in self.silent)


def log_of(rounds, right=0.5):
    """Version 0, then a record for each round; `right` of the examples were, in each."""
    records = [first(KEY, NONE, NONE, NONE)]
    for version, said in enumerate(rounds, 1):
        examples = said.examples
        totals = Totals(5, examples, examples * right, said.loss * examples)
        words = tuple(int(word) for word in totals.encode())
        base, previous = records[max(0, version - 1 - said.older)].digest, records[-1].digest
        records.append(
            Record(
                version, NONE, NONE, NONE, previous, base, bytes([version % 256] * 32), said.survivors, words,
                bytes(64),
            )
        )  # fmt: skip
    return records


def task(**more):
    model = Model(name="softmax", features=1, classes=2, arrays={"bias": (2,)}, initial="0" * 64)
    return Task(name="t", model=model, largest_cohort=3, weight_cap=5, rounds=1000, **more)


def the_same(losses):
    """All members, every time: a loss of None is a round in which nobody measured."""
    return [Said(loss or 0.0, ALL, ALL if loss is None else ()) for loss in losses]


def test_a_model_that_does_not_classify_has_a_best_version_by_its_loss():
    losses = [3.0, 2.0, 1.0, 1.5, 1.25]
    progress = progress_of(log_of(the_same(losses), right=0))
    assert progress.best is not None
    assert (progress.best.version, progress.best.loss, progress.best.accuracy) == (2, 1.0, None)


LOSS = st.sampled_from([0.25, 0.5, 1.0, 2.0])
LOSSES = st.lists(st.one_of(st.none(), LOSS), max_size=FEW)
WHO = st.sets(st.sampled_from(ALL), min_size=1).map(lambda names: tuple(sorted(names)))
ROUNDS = st.lists(st.builds(Said, LOSS, WHO, st.just(()) | WHO, st.integers(0, 2)), max_size=40)


# ----- the same members every time ------------------------------------------------------------


@given(LOSSES)
def test_of_what_all_measured_the_first_with_the_smallest_loss_is_the_best(losses):
    found = [(loss, version) for version, loss in enumerate(losses) if loss is not None]
    progress = progress_of(log_of(the_same(losses)))
    assert progress.newest == len(losses)
    if len(found) < 2:
        assert progress.best is None, "one measurement alone compares with nothing"
    else:
        assert progress.best == Measurement(min(found)[1], 3, 56, 0.5, min(found)[0])


@given(LOSSES, st.integers(1, 4))
def test_training_ends_once_so_many_versions_in_a_row_were_no_better(losses, patience):
    found = [loss for loss in losses if loss is not None]
    ended = progress_of(log_of(the_same(losses))).over(task(patience=patience))
    assert ended == (bool(found) and len(found) - 1 - found.index(min(found)) >= patience)


def test_without_patience_only_the_rounds_end_it():
    worse = progress_of(log_of(the_same([1.0] + [2.0] * 998)))
    assert not worse.over(task())
    assert progress_of(log_of(the_same([1.0] + [2.0] * 999))).over(task())


def test_patience_without_held_out_examples_is_refused():
    with pytest.raises(ValueError, match="holdout is 0"):
        task(patience=3, holdout=0.0)


# ----- members that come and go ---------------------------------------------------------------


def by_hand(rounds):
    """The text of §5.2, word by word: what is best, and how many measured versions came after it."""
    groups, newest = {}, 0
    for version, said in enumerate(rounds, 1):
        for names in [n for n, g in groups.items() if version - g["heard"] > max(10, version // 2)]:
            del groups[names]
        newest, base = version, max(0, version - 1 - said.older)
        if not said.examples:
            continue
        group = groups.get(said.survivors)
        if group and said.examples < group["examples"]:
            continue
        if group and said.examples == group["examples"]:
            if base <= group["of"][-1][0]:
                continue
            groups.pop(said.survivors)
            groups[said.survivors] = {**group, "of": [*group["of"], (base, said.loss)], "heard": version}
            continue
        groups.pop(said.survivors, None)
        groups[said.survivors] = {"examples": said.examples, "of": [(base, said.loss)], "heard": version}
    compared = [group for group in groups.values() if len(group["of"]) > 1]
    if not compared:
        return newest, None, 0
    most = max(group["examples"] for group in compared)
    of = [group for group in compared if group["examples"] == most][-1]["of"]
    losses = [loss for _, loss in of]
    at = losses.index(min(losses))
    return newest, of[at], len(of) - 1 - at


@settings(max_examples=300)
@given(ROUNDS)
@example([Said(1.0, ("a",)), Said(2.0, ("a",)), *[Said(1.0, ("a", "b"))] * 30])
def test_progress_is_what_the_specification_says(rounds):
    progress = progress_of(log_of(rounds))
    newest, best, since = by_hand(rounds)
    assert progress.newest == newest
    assert (progress.best and (progress.best.version, progress.best.loss)) == best
    assert progress.over(task(patience=1)) == (since >= 1)
    assert progress.over(task(patience=3)) == (since >= 3)


@given(ROUNDS, st.integers(0, 40))
def test_reading_on_is_reading_from_the_start(rounds, cut):
    records = log_of(rounds)
    progress = progress_of(records[:cut])
    for record in records[cut:]:
        progress = progress.after(record)
    assert progress == progress_of(records)


@given(
    st.lists(st.tuples(LOSS, LOSS, LOSS), min_size=2, max_size=8),
    st.lists(st.tuples(st.sampled_from([("a",), ("b",), ("a", "b")]), LOSS), max_size=8),
    st.randoms(use_true_random=False),
)
def test_who_is_absent_never_changes_which_of_two_versions_is_better(losses, partial, random):
    """Versions that all three measured, in one order; rounds with few of them in between change nothing."""
    common = [
        Said(sum(EXAMPLES[name] * loss for name, loss in zip(ALL, each, strict=True)) / 56) for each in losses
    ]
    mixed = list(common)
    for names, loss in partial:
        mixed.insert(random.randrange(len(mixed) + 1), Said(loss, names))
    best = progress_of(log_of(common)).best
    best_of_mixed = progress_of(log_of(mixed)).best
    assert best is not None
    assert best_of_mixed is not None
    assert mixed[best_of_mixed.version] is common[best.version]
    assert best_of_mixed.members == 3


def test_easy_data_of_few_does_not_make_a_version_the_best():
    """Two of three away for a while: their figures look better than anything before or after."""
    together, few = [1.0, 0.8, 0.6, 0.5, 0.4], [0.1, 0.05, 0.02]
    rounds = [*map(Said, together), *(Said(loss, ("a",)) for loss in few), *map(Said, [0.45, 0.39, 0.35])]
    ends = [progress_of(log_of(rounds[:n])) for n in range(len(rounds) + 1)]
    assert [end.best.version for end in ends if end.best] == [1, 2, 3, 4, 4, 4, 4, 4, 9, 10]
    assert not any(end.over(task(patience=3)) for end in ends)


def test_when_nothing_compares_there_is_no_best_and_training_goes_on():
    rounds = [Said(1.0, ("a",)), Said(0.5, ("b",)), Said(2.0, ("c",)), Said(3.0, ("a", "b"))]
    progress = progress_of(log_of(rounds))
    assert progress.best is None
    assert not progress.over(task(patience=1))


def test_figures_on_a_part_of_the_members_data_are_not_compared():
    """A second attempt leaves its figures out: the same survivors, but nobody knows whose data it was."""
    rounds = [Said(1.0), Said(0.9), Said(0.1, silent=("c",)), Said(0.8)]
    assert progress_of(log_of(rounds)).best.version == 3
    early = [Said(0.1, silent=("c",)), Said(0.2, silent=("c",)), Said(1.0), Said(0.9)]
    assert progress_of(log_of(early)).best.version == 3


def test_who_left_for_good_does_not_hold_the_best_version_for_ever():
    left = [Said(1.0), Said(0.9)] + [Said(0.8 / version, ("a", "b")) for version in range(1, 40)]
    best = progress_of(log_of(left)).best
    assert (best.version, best.members) == (40, 2)
    back = left + [Said(0.9 - version / 100) for version in range(5)]
    assert progress_of(log_of(back)).best.members == 3


def test_a_record_measures_the_version_that_its_cohort_stood_on():
    """With staleness that is not always the one before; a base beyond the largest staleness is none."""
    rounds = [Said(1.0), Said(0.5), Said(0.7, ("a",), older=2), Said(0.4), Said(9.0, ("b",), older=1)]
    found = measured(log_of(rounds))
    assert {version: round(one.loss, 3) for version, one in found.items()} == {0: 1.0, 1: 0.5, 3: 0.4}
    assert measured(log_of([*rounds, *[Said(1.0)] * BASES, Said(0.1, ("a",), older=BASES)]))[5].loss == 1.0


def test_what_is_remembered_is_bounded():
    names = [f"m{i}" for i in range(2 * GROUPS)]
    EXAMPLES.update(dict.fromkeys(names, 8))
    progress = progress_of(log_of([Said(1.0, (name,)) for name in names] * 2))
    assert len(progress.groups) <= GROUPS
    assert len(progress.bases) <= BASES
