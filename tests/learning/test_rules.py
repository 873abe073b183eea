"""Server rules are pure functions of a model, a mean update and a state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.errors import ParameterError, UpdateError
from choral.learning.rules import Rule, fedavg, rule, state_digest

VECTORS = hnp.arrays(np.float32, 12, elements=st.floats(-1000, 1000, width=32))


@given(VECTORS, VECTORS)
def test_fedavg_at_rate_one_adds_the_mean_update(model, mean_update):
    after, state = fedavg()(model, mean_update, {})
    np.testing.assert_array_equal(after, model + mean_update)
    assert after.dtype == np.float32
    assert state == {}


@given(VECTORS, VECTORS, st.floats(0.015625, 4))
def test_fedavg_scales_the_mean_update_by_its_rate(model, mean_update, rate):
    after, _ = fedavg(rate)(model, mean_update, {})
    expected = model.astype(np.float64) + rate * mean_update.astype(np.float64)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-3)
    assert after.dtype == np.float32


def test_a_rule_leaves_its_arguments_as_they_were():
    model, mean_update = np.ones(3, np.float32), np.full(3, 2, np.float32)
    model.flags.writeable = mean_update.flags.writeable = False
    state: dict[str, np.ndarray] = {}
    after, new_state = fedavg(0.5)(model, mean_update, state)
    assert not np.shares_memory(after, model)
    assert not np.shares_memory(after, mean_update)
    assert new_state is not state


def test_rules_are_equal_by_name_and_options():
    assert rule("fedavg", {}) == fedavg() == rule("fedavg", {"rate": 1})
    assert fedavg(0.5) != fedavg()


def test_a_rule_with_state_fits_the_same_seam():
    def step(model, mean_update, state):
        momentum = np.float32(0.9) * state.get("momentum", np.float32(0)) + mean_update
        return model + momentum, {"momentum": momentum}

    momentum = Rule("momentum", (("momentum", 0.9),), step)
    model, state, one = np.zeros(2, np.float32), {}, np.ones(2, np.float32)
    for _ in range(2):
        model, state = momentum(model, one, state)
    np.testing.assert_allclose(model, [2.9, 2.9], rtol=1e-6)
    assert state["momentum"].dtype == np.float32


@pytest.mark.parametrize("name", ["median", "krum", "trimmed_mean"])
def test_a_rule_that_needs_single_updates_is_refused_with_the_reason(name):
    with pytest.raises(ParameterError, match="the aggregator only ever has their sum"):
        rule(name, {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "fedsgd",
            {},
            r"rule 'fedsgd' is unknown, expected one of \['fedadagrad', .*'fedyogi'\]",
        ),
        ("fedavg", {"momentum": 0.9}, r"has no option 'momentum', expected some of \['rate'\]"),
        ("fedavg", {"rate": 0}, "rate is 0, expected a number above 0"),
        ("fedavg", {"rate": float("nan")}, "rate is nan"),
        ("fedavg", {"rate": float("inf")}, "rate is inf"),
        ("fedavg", {"rate": 10**400}, "rate is 1000"),
        ("fedavg", {"rate": "1"}, "rate is '1'"),
        ("fedavg", {"rate": True}, "rate is True"),
    ],
)
def test_what_a_task_may_not_say_is_refused_by_name(name, options, message):
    with pytest.raises(ParameterError, match=message):
        rule(name, options)


@pytest.mark.parametrize("wrong", [np.zeros(3, np.float32), np.zeros(2), np.zeros((2, 1), np.float32)])
def test_vectors_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UpdateError, match=r"mean update is .*, expected float32 \(2,\)"):
        fedavg()(np.zeros(2, np.float32), wrong, {})


@pytest.mark.filterwarnings("error")
def test_a_model_that_leaves_float32_is_refused():
    huge = np.array([0, 3e38], np.float32)
    with pytest.raises(UpdateError, match=r"1 of 2 coordinates .* the first at 1: inf"):
        fedavg()(huge, huge, {})


def test_fedavg_refuses_the_state_of_another_rule():
    zero = np.zeros(2, np.float32)
    with pytest.raises(ParameterError, match="keeps no state"):
        fedavg()(zero, zero, {"momentum": zero})


def state() -> dict[str, np.ndarray]:
    return {"m": np.arange(6, dtype=np.float32), "v": np.ones(2, np.float32)}


def test_the_digest_of_a_state_ignores_order_and_memory_layout():
    other = {"v": np.ones(4, np.float32)[::2], "m": np.arange(6, dtype=">f4").astype("<f4")}
    assert state_digest(other) == state_digest(state())
    square = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert state_digest({"a": square}) == state_digest({"a": np.asfortranarray(square)})


def test_the_digest_of_a_state_tells_names_shapes_and_values_apart():
    states = [
        {},
        state(),
        {"n": state()["m"], "v": state()["v"]},
        {"m": state()["m"].reshape(2, 3), "v": state()["v"]},
        {"m": state()["m"].reshape(3, 2), "v": state()["v"]},
        {"m": state()["m"] + 1, "v": state()["v"]},
        {"m": state()["m"]},
        {"m": np.zeros(0, np.float32), "v": state()["v"]},
    ]
    digests = {state_digest(one) for one in states}
    assert len(digests) == len(states)
    assert {len(one) for one in digests} == {32}


def test_the_digest_of_the_empty_state_stays_what_it_is():
    assert state_digest({}).hex() == "631cc0494ba4a0dff3c04a88f21a15a75cf2c3dc576338a0b5fc94a9049946b6"


def test_a_state_is_float32():
    with pytest.raises(UpdateError, match="state array 'm' is float64, expected float32"):
        state_digest({"m": np.zeros(2)})
