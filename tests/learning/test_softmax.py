# ruff: noqa: N806  (X is a matrix)
"""The built-in models: right gradients, pure training, refusals."""

import numpy as np
import pytest

from choral.errors import ParameterError, UpdateError
from choral.learning import MLP, Softmax
from choral.learning.softmax import built_in
from choral.learning.update import schema_of

RNG = np.random.default_rng(7)
X = RNG.random((40, 6), dtype=np.float32)
Y = RNG.integers(0, 4, 40).astype(np.uint8)
KINDS = {"softmax": Softmax, "mlp": MLP}


def make(kind, **options):
    return KINDS[kind](features=6, classes=4, **options)


def somewhere(model):
    """A model away from zero, so that no gradient is small by symmetry."""
    rng = np.random.default_rng(3)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in model.schema}


def loss64(parameters, l2):
    """Mean cross entropy plus the penalty, straight from the definition, in float64."""
    X64, p = X.astype(np.float64), parameters
    if "weight" in p:
        logits = X64 @ p["weight"] + p["bias"]
    else:
        hidden = np.maximum(0, X64 @ p["hidden.weight"] + p["hidden.bias"])
        logits = hidden @ p["output.weight"] + p["output.bias"]
    cross = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(Y)), Y]
    penalty = sum((a**2).sum() for name, a in p.items() if name.endswith("weight"))
    return cross.mean() + l2 / 2 * penalty


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_one_step_goes_down_the_gradient_that_finite_differences_see(kind, l2):
    model = make(kind, batch=len(X), rate=1.0, l2=l2)
    start = somewhere(model)
    end = model.train(start, X, Y, np.random.default_rng(0))
    exact = {name: array.astype(np.float64) for name, array in start.items()}
    for name, array in exact.items():
        for index in np.ndindex(array.shape):
            middle, losses = array[index], []
            for side in (-1e-6, 1e-6):
                array[index] = middle + side
                losses.append(loss64(exact, l2))
            array[index] = middle
            gradient = (losses[1] - losses[0]) / 2e-6
            assert start[name][index] - end[name][index] == pytest.approx(gradient, rel=1e-4, abs=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_sums_the_loss_and_counts_hits(kind):
    model = make(kind)
    parameters = somewhere(model)
    whole = model.evaluate(parameters, X, Y)
    assert whole.examples == 40
    assert whole.mean_loss == pytest.approx(loss64(parameters, 0), rel=1e-5)
    halves = model.evaluate(parameters, X[:7], Y[:7]) + model.evaluate(parameters, X[7:], Y[7:])
    assert (halves.examples, halves.correct) == (whole.examples, whole.correct)
    assert halves.loss == pytest.approx(whole.loss, rel=1e-6)


def test_before_training_softmax_knows_nothing():
    model = Softmax(6, 4)
    at_zero = model.evaluate(model.initial(RNG), X, Y)
    assert at_zero.mean_loss == pytest.approx(np.log(4), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_a_pure_function_of_its_arguments(kind):
    model = make(kind, epochs=2, batch=7)
    start = somewhere(model)
    for array in (X, Y, *start.values()):
        array.flags.writeable = False
    first, again, other = (model.train(start, X, Y, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in start:
        assert first[name].tobytes() == again[name].tobytes()
        assert first[name].tobytes() != other[name].tobytes()
        assert not np.shares_memory(first[name], start[name])
    assert schema_of(first) == model.schema
    assert all(array.dtype == np.float32 for array in first.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_a_record_array_and_wider_types_train_the_same(kind):
    # As they lie in a memory-mapped shard: strided, and not always float32.
    records = np.zeros(len(X), [("image", "f4", 6), ("label", "u1")])
    records["image"], records["label"] = X, Y
    model = make(kind)
    start = somewhere(model)
    trained = [
        model.train(start, inputs, labels, np.random.default_rng(1))
        for inputs, labels in [
            (X, Y), (records["image"], records["label"]), (X.astype(float), Y.astype(np.int64)),
        ]
    ]  # fmt: skip
    for name in start:
        assert len({parameters[name].tobytes() for parameters in trained}) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_huge_logits_do_not_overflow(kind):
    model = make(kind)
    parameters = {name: array * 100 for name, array in somewhere(model).items()}
    assert np.isfinite(model.evaluate(parameters, X * 1000, Y).loss)
    trained = model.train(parameters, X * 1000, Y, np.random.default_rng(0))
    assert all(np.isfinite(array).all() for array in trained.values())


def test_the_hidden_layer_begins_as_he_et_al_say():
    model = MLP(400, hidden=300)
    first = model.initial(np.random.default_rng(0))
    assert schema_of(first) == model.schema
    assert first["hidden.weight"].std() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert first["output.weight"].std() == pytest.approx((2 / 300) ** 0.5, rel=0.05)
    assert not first["hidden.bias"].any()
    again = model.initial(np.random.default_rng(0))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (X[:, :5], Y, r"X has shape \(40, 5\), expected \(n, 6\)"),
        (X, Y[:-1], r"y is uint8 \(39,\), expected whole numbers \(40,\)"),
        (X, Y.astype(float), r"y is float64 \(40,\)"),
        (X, np.where(np.arange(40) == 3, 4, Y), r"label 4 of example 3 is outside 0\.\.3"),
        (X, np.where(np.arange(40) == 3, -1, Y.astype(int)), r"label -1 of example 3"),
    ],
)
def test_examples_that_do_not_fit_are_refused(kind, inputs, labels, message):
    model = make(kind)
    with pytest.raises(ParameterError, match=message):
        model.train(model.initial(RNG), inputs, labels, RNG)
    with pytest.raises(ParameterError, match=message):
        model.evaluate(model.initial(RNG), inputs, labels)


def test_training_on_nothing_is_refused():
    with pytest.raises(ParameterError, match="no examples"):
        Softmax(6, 4).train(Softmax(6, 4).initial(RNG), X[:0], Y[:0], RNG)


def test_the_parameters_of_another_model_are_refused():
    with pytest.raises(UpdateError, match="array 'bias' is missing"):
        Softmax(6, 4).train(MLP(6, classes=4).initial(RNG), X, Y, RNG)
    with pytest.raises(UpdateError, match=r"array 'weight' has shape \(5, 4\), expected \(6, 4\)"):
        Softmax(6, 4).evaluate(Softmax(5, 4).initial(RNG), X, Y)


def test_a_task_names_a_built_in_model():
    assert built_in("softmax", 64, 10, {"rate": 0.5, "batch": 10}) == Softmax(64, batch=10, rate=0.5)
    assert built_in("mlp", 64, 10, {"hidden": 32, "l2": 1e-4}) == MLP(64, 32, l2=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn", {}, r"model 'cnn' is not built in, expected one of \['mlp', 'softmax'\]"),
        ("softmax", {"hidden": 3}, "model 'softmax' has no option 'hidden'"),
        ("mlp", {"features": 3}, "model 'mlp' has no option 'features'"),
        ("mlp", {"hidden": 0}, "hidden is 0, expected a whole number of at least 1"),
        ("softmax", {"epochs": 0}, "epochs is 0"),
        ("softmax", {"epochs": 1.5}, "epochs is 1.5"),
        ("softmax", {"batch": True}, "batch is True"),
        ("softmax", {"batch": "32"}, "batch is '32'"),
        ("softmax", {"rate": 0.0}, "rate is 0.0, expected a number above 0"),
        ("softmax", {"rate": float("nan")}, "rate is nan"),
        ("softmax", {"rate": 10**400}, "rate is a number of too many digits"),
        ("softmax", {"rate": "fast"}, "rate is 'fast', expected a number"),
        ("softmax", {"l2": -1}, "l2 is -1, expected at least 0"),
        ("softmax", {"l2": 10, "rate": 0.1}, "l2 is 10, expected at least 0 and below 1 / rate"),
    ],
)
def test_what_a_task_may_not_say_is_refused_by_name(name, options, message):
    with pytest.raises(ParameterError, match=message):
        built_in(name, 64, 10, options)


@pytest.mark.parametrize("option", ["rate", "l2", "mu", "epochs", "batch"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, -1, "x", True, None])
def test_every_option_that_is_no_possible_number_is_refused_with_a_hint(option, value):
    with pytest.raises(ParameterError, match=f"{option} is ") as caught:
        built_in("softmax", 4, 3, {option: value})
    assert caught.value.hint
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize(("features", "classes"), [(0, 10), (64, 1), (64, -1)])
def test_sizes_out_of_range_are_refused(features, classes):
    with pytest.raises(ParameterError, match="expected a whole number"):
        built_in("softmax", features, classes, {})
