"""The two steps of federated learning are the same sums wherever they are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from choral.learning import Softmax
from choral.learning.rules import fedavg, fedavgm
from choral.learning.step import Contribution, contribution, discount, next_model
from choral.learning.update import difference
from choral.vectors.fixed_point import RingPlan, decode, encode

PLAN = RingPlan(4, 8.0, 30)
MODEL = Softmax(3, 2, epochs=2, schedule="step:2:0.5")


def examples(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, 3), np.float32), rng.integers(0, 2, count).astype(np.uint8)


def contributed(count, version=0):
    start = MODEL.initial(np.random.default_rng(0))
    rng = np.random.default_rng(5)
    return contribution(MODEL, start, *examples(count), rng, version=version, schema=MODEL.schema, plan=PLAN)


@pytest.mark.parametrize(("count", "version"), [(1, 0), (20, 0), (20, 4), (50, 1)])
def test_a_contribution_is_the_encoded_difference_of_the_versions_training(count, version):
    start = MODEL.initial(np.random.default_rng(0))
    trained = MODEL.at(version).train(start, *examples(count), np.random.default_rng(5))
    delta = difference(trained, start, MODEL.schema)
    mine = contributed(count, version)
    np.testing.assert_array_equal(mine.vector, encode(delta, count, PLAN).vector)
    assert (mine.weight, mine.capped) == (min(count, 30), count > 30)
    assert all(not array.any() for array in start.values()), "the model is as it was"


@given(st.lists(st.integers(-(2**28), 2**28), min_size=1, max_size=8), st.integers(0, 100))
def test_a_late_contribution_counts_less_and_keeps_its_weight(numbers, staleness):
    vector = np.array(numbers, np.int32).view(np.uint32)
    late = Contribution(vector, 7, 1, False).discounted(staleness)
    np.testing.assert_array_equal(
        late.vector.view(np.int32), np.rint(np.array(numbers) / np.sqrt(1 + staleness))
    )
    assert (late.weight, late.clipped) == (7, 1)


def test_a_model_goes_by_the_discounted_mean_through_its_rule():
    plan, updates = RingPlan(2, 8.0, 10), [(np.float32([1, -2]), 10), (np.float32([3, 0]), 5)]
    total = sum(encode(update, weight, plan).vector for update, weight in updates)
    before, state = np.float32([10, 10]), {}
    now, state = next_model(fedavgm(1.0, 0.5), before, state, decode(total, 15, plan))
    np.testing.assert_allclose(now, [10 + 5 / 3, 10 - 4 / 3], atol=1e-6)
    later, state = next_model(fedavgm(1.0, 0.5), now, state, decode(total, 15, plan), staleness=3)
    np.testing.assert_allclose(later - now, [0.5 * 5 / 3 + 0.5 * 5 / 3, -4 / 3], atol=1e-6)
    np.testing.assert_array_equal(before, [10, 10])
    assert discount(0) == 1.0
    same = decode(total, 15, plan)
    np.testing.assert_array_equal(next_model(fedavg(), before, {}, same.copy())[0], before + same)
