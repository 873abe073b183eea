"""Every example goes to exactly one client, the seed decides which, and the split is as named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.data import partition
from choral.errors import ParameterError

LABELS = np.arange(1000) % 10
SPECS = ["iid", "label", "dirichlet:0.5", "dirichlet:0.001", "dirichlet:1000", "shards:2"]


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def classes(parts: partition.Parts, labels: np.ndarray = LABELS) -> list[set[int]]:
    return [set(labels[part].tolist()) for part in parts]


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.integers(0, 9), max_size=300),
    parts=st.integers(1, 25),
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 2**32),
)
def test_every_example_is_in_exactly_one_part_or_the_split_is_refused(labels, parts, spec, seed):
    try:
        result = partition.split(spec, labels, parts, seeded(seed))
    except ParameterError:
        needed = {"d": 10, "s": 2}.get(spec[0], 1) * parts
        shared = spec == "label" and min((labels.count(label) for label in labels), default=0) < parts
        assert len(labels) < needed or shared
        return
    assert len(result) == parts
    np.testing.assert_array_equal(np.sort(np.concatenate(result)), np.arange(len(labels)))
    for part in result:
        assert part.dtype == np.int64
        assert len(part) >= (10 if spec.startswith("dirichlet") else 1)
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("spec", SPECS)
def test_the_seed_decides(spec):
    def draw(seed: int) -> list[list[int]]:
        return [part.tolist() for part in partition.split(spec, LABELS, 20, seeded(seed))]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("spec", SPECS)
def test_one_part_is_everything(spec):
    (part,) = partition.split(spec, LABELS, 1, seeded())
    np.testing.assert_array_equal(part, np.arange(1000))


def test_iid_parts_have_equal_sizes_and_every_class():
    parts = partition.iid(LABELS, 7, seeded())
    assert {len(part) for part in parts} == {142, 143}
    assert all(len(seen) == 10 for seen in classes(parts))


def test_by_label_deals_contiguous_groups():
    two = partition.by_label(LABELS, 2, seeded())
    assert classes(two) == [{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}]
    five = partition.by_label(LABELS, 5, seeded())
    assert classes(five) == [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]
    ten = partition.by_label(LABELS, 10, seeded())
    assert classes(ten) == [{label} for label in range(10)]


def test_by_label_with_more_parts_than_classes_shares_each_class_evenly():
    parts = partition.by_label(LABELS, 25, seeded())
    assert [seen.pop() for seen in classes(parts)] == sorted([*range(10)] * 2 + [*range(5)])
    assert [len(part) for part in parts[:3]] == [34, 33, 33]


def test_by_label_says_which_class_is_too_small_to_share():
    labels = np.array([0] * 50 + [1])
    with pytest.raises(ParameterError, match="found 1 examples of class 1; expected at least 2"):
        partition.by_label(labels, 4, seeded())


def test_by_shards_gives_few_classes_in_equal_sizes():
    parts = partition.by_shards(LABELS, 50, 2, seeded())
    assert {len(part) for part in parts} == {20}
    assert all(len(seen) <= 2 for seen in classes(parts))


def test_a_smaller_alpha_is_more_uneven():
    def largest_share(alpha: float) -> float:
        parts = partition.dirichlet(LABELS, 10, alpha, seeded())
        return float(np.mean([np.bincount(LABELS[p]).max() / len(p) for p in parts]))

    shares = [largest_share(alpha) for alpha in (0.05, 0.5, 1000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.2


def test_the_minimum_is_kept_even_when_there_is_not_one_example_to_spare():
    parts = partition.dirichlet(LABELS, 20, 0.01, seeded(), minimum=50)
    assert {len(part) for part in parts} == {50}


@pytest.mark.parametrize(
    "spec", ["", "IID", "iid:", "label:2", "dirichlet", "dirichlet:", "dirichlet:x", "shards:1.5"]
)
def test_an_unknown_split_is_answered_with_the_accepted_forms(spec):
    with pytest.raises(ParameterError, match=r"iid, label, dirichlet:ALPHA .* or shards:N"):
        partition.split(spec, LABELS, 2, seeded())


@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf", "1e-9"])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ParameterError, match="found alpha"):
        partition.split(f"dirichlet:{alpha}", LABELS, 2, seeded())


def test_impossible_requests_are_refused_with_the_reason():
    with pytest.raises(ParameterError, match="found 5 examples; expected at least 6 for 6 parts"):
        partition.iid(LABELS[:5], 6, seeded())
    with pytest.raises(ParameterError, match="found 19 examples; expected at least 20"):
        partition.dirichlet(LABELS[:19], 2, 0.5, seeded())
    with pytest.raises(ParameterError, match="found 0 parts"):
        partition.iid(LABELS, 0, seeded())
    with pytest.raises(ParameterError, match="found 0 shards a part"):
        partition.split("shards:0", LABELS, 2, seeded())
    with pytest.raises(ParameterError, match="a minimum of 0"):
        partition.dirichlet(LABELS, 2, 0.5, seeded(), minimum=0)
    with pytest.raises(ParameterError, match=r"labels of shape \(10, 2\)"):
        partition.iid(np.zeros((10, 2)), 2, seeded())
