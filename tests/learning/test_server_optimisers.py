"""FedAvgM, FedAdagrad, FedYogi, FedAdam: against the papers' own lines, one coordinate at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.errors import ParameterError, UpdateError
from choral.learning.rules import fedadagrad, fedadam, fedavg, fedavgm, fedyogi, rule, state_digest

STATEFUL = ("fedavgm", "fedadagrad", "fedyogi", "fedadam")
UPDATES = hnp.arrays(np.float32, (6, 5), elements=st.floats(-4, 4, width=16))
OPTIONS = {
    "fedavgm": {"rate": 0.7, "momentum": 0.8},
    "fedadagrad": {"rate": 0.2, "beta1": 0.3, "tau": 0.01},
    "fedyogi": {"rate": 0.05, "beta1": 0.8, "beta2": 0.95, "tau": 0.01},
    "fedadam": {"rate": 0.05, "beta1": 0.8, "beta2": 0.95, "tau": 0.01},
}


def reference(name, updates, *, rate, momentum=None, beta1=None, beta2=None, tau=None):
    """The path of one coordinate, from 1.0: Reddi et al. 2021, Algorithm 2, lines 10 to 16, in float64.

    FedAvgM: Hsu, Qi and Brown 2019, §4.3.
    """
    x, m, v, velocity, path = 1.0, 0.0, None if tau is None else tau**2, 0.0, []
    for delta in map(float, updates):
        if name == "fedavgm":
            velocity = momentum * velocity + delta
            x += rate * velocity
        else:
            m = beta1 * m + (1 - beta1) * delta
            if name == "fedadagrad":
                v = v + delta**2
            elif name == "fedyogi":
                sign = (v > delta**2) - (v < delta**2)
                v = v - (1 - beta2) * delta**2 * sign
            elif name == "fedadam":
                v = beta2 * v + (1 - beta2) * delta**2
            x += rate * m / (math.sqrt(v) + tau)
        path.append(x)
    return path


def path_of(server_rule, updates):
    model, state, path = np.ones(updates.shape[1], np.float32), {}, []
    for update in updates:
        model, state = server_rule(model, update, state)
        path.append(model)
    return np.stack(path), state


@pytest.mark.parametrize("name", STATEFUL)
@settings(deadline=None)
@given(updates=UPDATES)
def test_a_rule_follows_its_paper(name, updates):
    path, state = path_of(rule(name, OPTIONS[name]), updates)
    expected = [reference(name, column, **OPTIONS[name]) for column in updates.astype(np.float64).T]
    np.testing.assert_allclose(path, np.transpose(expected), rtol=2e-4, atol=2e-4)
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", STATEFUL)
@settings(deadline=None, max_examples=20)
@given(updates=UPDATES)
def test_a_rule_leaves_model_update_and_state_as_they_were(name, updates):
    step = rule(name, {})
    model, state = step(np.ones(5, np.float32), updates[0], {})
    for array in (model, updates, *state.values()):
        array.flags.writeable = False
    after, new_state = step(model, updates[1], state)
    assert not any(np.shares_memory(new_state[array], state[array]) for array in state)
    again, again_state = step(model, updates[1], state)
    np.testing.assert_array_equal(after, again)
    assert state_digest(new_state) == state_digest(again_state)


def test_momentum_zero_is_federated_averaging():
    updates = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    np.testing.assert_array_equal(path_of(fedavgm(0.5, 0.0), updates)[0], path_of(fedavg(0.5), updates)[0])


@pytest.mark.parametrize("make", [fedadagrad, fedyogi, fedadam])
def test_without_tau_to_speak_of_a_first_step_is_as_long_for_a_small_update_as_for_a_large_one(make):
    large, small = np.full(1, 1.0, np.float32), np.full(1, 0.1, np.float32)
    step = make(rate=0.01, tau=1e-6)
    a, b = (step(np.zeros(1, np.float32), update, {})[0] for update in (large, small))
    assert a == pytest.approx(b, rel=1e-3)


def test_yogi_forgets_a_large_update_more_slowly_than_adam():
    updates = np.full((50, 1), 0.01, np.float32)
    updates[0] = 3
    yogi, adam = (path_of(make(beta2=0.9), updates)[1]["v"][0] for make in (fedyogi, fedadam))
    assert yogi > 10 * adam


@pytest.mark.parametrize("name", STATEFUL)
def test_the_state_of_another_rule_or_another_model_is_refused(name):
    zero = np.zeros(3, np.float32)
    with pytest.raises(ParameterError, match=r"keeps .*, found"):
        rule(name, {})(zero, zero, {"other": zero})
    _, state = rule(name, {})(zero, zero, {})
    with pytest.raises(ParameterError, match=r"float32 \(3,\), expected float32 \(2,\)"):
        rule(name, {})(zero[:2], zero[:2], state)


@pytest.mark.filterwarnings("error")
def test_a_state_that_leaves_float32_is_refused():
    with pytest.raises(UpdateError, match="coordinates of the v are not finite"):
        fedadagrad()(np.zeros(2, np.float32), np.full(2, 1e30, np.float32), {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedavgm", {"momentum": 1}, "momentum is 1, expected a number from 0 to below 1"),
        ("fedavgm", {"momentum": -0.1}, "momentum is -0.1"),
        ("fedavgm", {"beta1": 0.9}, r"has no option 'beta1', expected some of \['momentum', 'rate'\]"),
        ("fedadam", {"beta2": "0.9"}, "beta2 is '0.9'"),
        ("fedadam", {"tau": 0}, "tau is 0, expected a number above 0"),
        ("fedadam", {"tau": 1e-30}, "tau is 1e-30, expected 1e-6 or more"),
        ("fedyogi", {"beta1": float("nan")}, "beta1 is nan"),
        ("fedadagrad", {"beta2": 0.9}, "has no option 'beta2'"),
        ("fedadagrad", {"rate": -1}, "rate is -1"),
    ],
)
def test_options_out_of_range_are_refused_by_name(name, options, message):
    with pytest.raises(ParameterError, match=message):
        rule(name, options)


@pytest.mark.parametrize("name", STATEFUL)
def test_rules_are_equal_by_name_and_options(name):
    assert rule(name, {}) == rule(name, {}) != rule(name, {"rate": 0.123})
    assert dict(rule(name, OPTIONS[name]).options) == OPTIONS[name]
