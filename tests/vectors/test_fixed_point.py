"""Properties of the integer encoding: exact bounds, no wrap, no silent clipping (PROTOCOL §6)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.errors import ParameterError, UpdateError
from choral.vectors.fixed_point import (
    LARGEST_COHORT,
    RingPlan,
    decode,
    encode,
    from_fixed,
    to_fixed,
)

# clips that float32 has and clips that it has not: 0.1 rounds up in float32
clips = st.sampled_from([8.0, 1.0, 0.1, 0.3, 3.3, 7.7, 1e-3, 123.456, 1e30])
plans = st.builds(RingPlan, st.integers(2, LARGEST_COHORT), clips, st.sampled_from([1, 7, 100, 2**20]))


def signed(encoded):
    return encoded.vector.view(np.int32).astype(np.int64)


@pytest.mark.parametrize("n_max", range(2, LARGEST_COHORT + 1))
def test_the_ring_is_as_fine_as_it_can_be_without_a_wrap(n_max):
    plan = RingPlan(n_max, 8.0, 100)
    assert plan.largest == 2 ** (plan.bits - 1) - 1
    assert n_max * plan.largest < 2**31
    assert n_max * (2**plan.bits - 1) >= 2**31  # one bit more would not fit


@pytest.mark.parametrize(("n_max", "bits"), [(2, 31), (3, 30), (4, 30), (5, 29), (100, 25), (256, 24)])
def test_the_figures_of_the_ring_plan_are_those_of_the_specification(n_max, bits):
    plan = RingPlan(n_max, 8.0, 100)
    assert plan.bits == bits
    assert plan.step == 8.0 / (2 ** (bits - 1) - 1)


@settings(max_examples=80, deadline=None)
@given(plans, st.booleans())
def test_a_sum_of_the_largest_cohort_of_extreme_vectors_never_wraps(plan, negative):
    far = np.array([3.4e38, plan.clip, np.nextafter(np.float32(plan.clip), np.float32(0))], np.float32)
    encoded = encode(-far if negative else far, plan.weight_cap, plan)
    assert np.abs(signed(encoded)).max() <= plan.largest
    with np.errstate(over="ignore"):
        total = (encoded.vector.astype(np.uint64) * plan.n_max).astype(np.uint32)
    assert (total.view(np.int32) == signed(encoded) * plan.n_max).all()


@settings(max_examples=80, deadline=None)
@given(
    plans,
    st.lists(st.integers(1, 2**21), min_size=1, max_size=6),
    st.data(),
)
def test_the_mean_comes_back_within_the_error_bound(plan, weights, data):
    weights = weights[: plan.n_max]
    limit = float(plan.limit)
    vectors = hnp.arrays(np.float32, 5, elements=st.floats(-limit, limit, width=32))
    deltas = [data.draw(vectors) for _ in weights]
    total = np.zeros(5, np.uint32)
    for delta, weight in zip(deltas, weights, strict=True):
        encoded = encode(delta, weight, plan)
        assert encoded.clipped == 0
        total += encoded.vector
    counted = [min(weight, plan.weight_cap) for weight in weights]
    exact = sum(
        delta.astype(np.float64) * weight for delta, weight in zip(deltas, counted, strict=True)
    ) / sum(counted)
    bound = plan.error_bound(len(weights), sum(counted))
    rounding = limit * (2**-23 + 2**-40)  # the result is a float32
    assert np.abs(decode(total, sum(counted), plan).astype(np.float64) - exact).max() <= bound + rounding


def test_the_error_bound_is_the_formula_of_the_specification():
    plan = RingPlan(100, 8.0, 1000)
    assert plan.error_bound(10, 10_000) == pytest.approx(plan.step / 2)
    assert plan.error_bound(10, 100) == pytest.approx(plan.step / 2 * 1000 * 10 / 100)


def test_a_small_cohort_has_more_precision_than_float32_products_keep():
    """Rounded in float32 on the way, integers of 31 bits would be wrong in their last seven."""
    plan = RingPlan(2, 8.0, 100)
    delta = np.random.default_rng(5).uniform(-8, 8, 1000).astype(np.float32)
    exact = delta.astype(np.float64) / plan.step
    assert np.abs(signed(encode(delta, 100, plan)) - exact).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 32 * 1024 + 3])
def test_a_value_that_is_no_number_is_refused_with_its_coordinate(bad, where):
    delta = np.zeros(32 * 1024 + 10, np.float32)
    delta[where] = bad
    with pytest.raises(UpdateError, match=f"coordinate {where} ") as refusal:
        encode(delta, 10, RingPlan(3, 8.0, 100))
    assert refusal.value.hint


def test_nan_is_found_behind_a_clipped_coordinate():
    with pytest.raises(UpdateError, match="coordinate 1 "):
        encode(np.array([99.0, np.nan], np.float32), 10, RingPlan(3, 8.0, 100))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(-20, 20, width=32)))
def test_every_clipped_coordinate_is_counted(delta):
    plan = RingPlan(3, 8.0, 100)
    encoded = encode(delta, 100, plan)
    assert encoded.clipped == int((np.abs(delta.astype(np.float64)) > 8.0).sum())
    assert (encoded.vector == encode(np.clip(delta, -8, 8), 100, plan).vector).all()


def test_clipping_is_counted_over_all_blocks():
    delta = np.zeros(3 * 32 * 1024, np.float32)
    delta[[0, 40_000, -1]] = 9.0
    assert encode(delta, 100, RingPlan(3, 8.0, 100)).clipped == 3


def test_the_update_itself_is_left_alone():
    delta = np.array([9.0, -9.0, 1.0], np.float32)
    encode(delta, 100, RingPlan(3, 8.0, 100))
    assert delta.tolist() == [9.0, -9.0, 1.0]


@given(st.integers(101, 2**40))
def test_a_weight_above_the_cap_counts_as_the_cap(weight):
    plan = RingPlan(3, 8.0, 100)
    delta = np.array([1.5, -7.0], np.float32)
    assert (encode(delta, weight, plan).vector == encode(delta, 100, plan).vector).all()


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_below_one_is_refused(weight):
    plan = RingPlan(3, 8.0, 100)
    with pytest.raises(ParameterError, match="weight"):
        encode(np.ones(1, np.float32), weight, plan)
    with pytest.raises(ParameterError, match="weights"):
        decode(np.ones(1, np.uint32), weight, plan)


@pytest.mark.parametrize(
    "values",
    [
        (1, 8.0, 100),
        (257, 8.0, 100),
        (3, 0.0, 100),
        (3, -1.0, 100),
        (3, math.nan, 100),
        (3, math.inf, 100),
        (3, 1e-60, 100),
        (3, 8.0, 0),
        (3, 8.0, 2**32 + 1),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(values):
    with pytest.raises(ParameterError, match="expected"):
        RingPlan(*values)


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_metric_totals_add_up_modulo_two_to_the_64(values):
    total = sum(map(to_fixed, values)) % 2**64
    assert from_fixed(total) == pytest.approx(math.fsum(values), abs=len(values) * 2**-21 + 1e-6)


def test_a_whole_cohort_of_extreme_metrics_does_not_wrap():
    largest = math.nextafter(2.0**35, 0)
    for value in (largest, -largest):
        assert from_fixed(to_fixed(value) * LARGEST_COHORT % 2**64) == pytest.approx(value * LARGEST_COHORT)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**35, -(2.0**35), 1e300])
def test_a_metric_that_could_spoil_the_sum_is_refused(value):
    with pytest.raises(UpdateError, match="metric"):
        to_fixed(value)
