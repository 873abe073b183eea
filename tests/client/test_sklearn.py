"""A linear classifier of scikit-learn is a trainer, also for a member that lacks classes."""

import math
from inspect import signature

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install choral[sklearn]")

from sklearn.base import is_regressor
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators

from choral.client.sklearn import SklearnTrainer
from choral.errors import ParameterError, UpdateError
from choral.learning.rules import fedavg
from choral.learning.update import difference, flatten, schema_of, unflatten

RNG = np.random.default_rng(3)
CENTRES = RNG.standard_normal((4, 6)) * 2
Y = RNG.integers(0, 4, 200)
X = (CENTRES[Y] + RNG.standard_normal((200, 6))).astype(np.float32)
WORK = (
    "SGDClassifier", "SGDRegressor", "Perceptron", "PassiveAggressiveClassifier",
    "PassiveAggressiveRegressor", "LogisticRegression",
)  # fmt: skip
KINDS = {
    "sgd": lambda: SGDClassifier(loss="log_loss"),
    "hinge": lambda: SGDClassifier(loss="hinge"),
    "logistic": lambda: LogisticRegression(warm_start=True, max_iter=3),
}


def make(kind, classes=4):
    return SklearnTrainer(KINDS[kind](), features=6, classes=classes, epochs=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_follows_its_generator_and_leaves_what_it_was_handed(kind):
    model = make(kind)
    start = model.initial(np.random.default_rng(0))
    one, two = (model.train(start, X, Y, np.random.default_rng(1)) for _ in range(2))
    for name in start:
        np.testing.assert_array_equal(one[name], two[name])
        assert not start[name].any()
        assert one[name].dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_from_where_the_parameters_are(kind):
    model = make(kind)
    parameters = model.initial(np.random.default_rng(0))
    correct = [model.evaluate(parameters, X, Y).correct]
    for version in range(4):
        parameters = model.train(parameters, X, Y, np.random.default_rng(version))
        correct.append(model.evaluate(parameters, X, Y).correct)
    assert correct[0] < 100
    assert correct[-1] > 150


@pytest.mark.parametrize("kind", KINDS)
def test_members_with_half_of_the_classes_each_learn_all_of_them(kind):
    model, rule, state = make(kind), fedavg(), {}
    start = model.initial(np.random.default_rng(0))
    schema = schema_of(start)
    vector = flatten(start, schema)
    halves = [(X[Y < 2], Y[Y < 2]), (X[Y >= 2], Y[Y >= 2])]
    for version in range(12):
        now = unflatten(vector, schema)
        updates = [
            difference(model.train(now, *half, np.random.default_rng(version)), now, schema)
            for half in halves
        ]
        vector, state = rule(vector, np.mean(updates, axis=0, dtype=np.float32), state)
    assert model.evaluate(unflatten(vector, schema), X, Y).accuracy > 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_are_one_row(kind):
    model = make(kind, classes=2)
    start = model.initial(np.random.default_rng(0))
    trained = model.train(start, X, Y % 2, np.random.default_rng(0))
    assert schema_of(trained) == schema_of(start) == (("coef", (1, 6)), ("intercept", (1,)))
    alone = model.train(start, X[Y == 0], Y[Y == 0], np.random.default_rng(0))
    assert schema_of(alone) == schema_of(start)


def test_the_loss_is_the_log_loss_where_there_are_probabilities():
    start = make("logistic").initial(np.random.default_rng(0))
    assert make("logistic").evaluate(start, X, Y).mean_loss == pytest.approx(np.log(4))
    hinge = make("hinge").evaluate(start, X, Y)
    assert hinge.loss == len(Y) - hinge.correct


def every_estimator():
    for kind in ("classifier", "regressor", "transformer", "cluster"):
        for name, make in all_estimators(kind):
            if hasattr(make, "partial_fit") or "warm_start" in signature(make).parameters:
                yield pytest.param(make, id=name)


def made(make):
    """With what makes the estimator go on from where it is."""
    if make is LogisticRegression:
        return make(warm_start=True)
    return make(SGDClassifier()) if "estimator" in signature(make).parameters else make()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", list(every_estimator()))
def test_an_estimator_does_in_rounds_what_it_does_at_one_go_or_is_refused_by_name(make):
    try:
        model = SklearnTrainer(made(make), features=6, classes=4, epochs=2)
    except ParameterError as error:
        refused = error
    else:
        assert make.__name__ in WORK
        alone = made(make)
        if make is LogisticRegression:
            model = SklearnTrainer(make(warm_start=True, max_iter=40, tol=1e-8), features=6, classes=4)
            alone = make(max_iter=1000, tol=1e-8)
        parameters = model.initial(np.random.default_rng(0))
        for version in range(6):
            seed = int(np.random.default_rng(version).integers(2**31))
            parameters = model.at(version).train(parameters, X, Y, np.random.default_rng(version))
            if make is not LogisticRegression:
                alone.set_params(random_state=np.random.RandomState(seed))
                for _ in range(2):
                    alone.partial_fit(X, Y, **({} if is_regressor(alone) else {"classes": range(4)}))
        if make is LogisticRegression:
            alone.fit(X, Y)
        near = 5e-3 if make is LogisticRegression else 1e-4  # a solver's own precision, in float32
        np.testing.assert_allclose(parameters["coef"], alone.coef_, rtol=1e-3, atol=near)
        np.testing.assert_allclose(parameters["intercept"], alone.intercept_, rtol=1e-3, atol=near)
        measured = model.evaluate(parameters, X, Y)
        if is_regressor(alone):
            assert (measured.correct, math.isnan(measured.accuracy)) == (0, True)
            assert measured.mean_loss == pytest.approx(((alone.predict(X) - Y) ** 2).mean(), rel=1e-3)
        else:
            assert measured.correct == pytest.approx((alone.predict(X) == Y).sum(), abs=1)
        return
    assert make.__name__ not in WORK
    assert make.__name__ in refused.reason
    assert all(name in refused.reason for name in WORK)


@pytest.mark.parametrize(
    ("estimator", "found"),
    [
        (LogisticRegression(), "start from nothing every time"),
        (LogisticRegression(warm_start=True, solver="liblinear"), "liblinear starts from nothing"),
        (LogisticRegressionCV(), "LogisticRegressionCV keeps"),
        (RidgeClassifier(), "RidgeClassifier keeps"),
        (make_pipeline(StandardScaler(), SGDClassifier()), "Pipeline keeps"),
        (type("Mine", (SGDClassifier,), {})(), "Mine keeps"),
        (SGDClassifier, "SGDClassifier keeps|is no model"),
        (SGDClassifier(average=True), "average is set"),
        (SGDClassifier(average=10), "average is set"),
        (SGDClassifier(early_stopping=True), "early_stopping is set"),
        (SGDClassifier(class_weight="balanced"), "class_weight is balanced"),
        (LogisticRegression(warm_start=True, class_weight="balanced"), "class_weight is balanced"),
        (SGDClassifier(learning_rate="adaptive", eta0=0.1), "learning_rate is adaptive"),
        (SGDClassifier().fit(X, Y), "fitted already"),
        (SGDClassifier(eta0=-1, learning_rate="constant"), "eta0"),
    ],
)  # fmt: skip
def test_an_estimator_that_would_forget_is_refused_when_the_trainer_is_made(estimator, found):
    with pytest.raises(ParameterError, match=found):
        SklearnTrainer(estimator, 6)


@pytest.mark.parametrize("schedule", ["optimal", "invscaling"])
def test_a_decaying_rate_goes_on_decaying_from_version_to_version(schedule):
    model = SklearnTrainer(SGDClassifier(loss="log_loss", learning_rate=schedule, eta0=0.1), 6, 4)
    start = model.initial(np.random.default_rng(0))
    steps = [
        np.abs(model.at(version).train(start, X, Y, np.random.default_rng(1))["coef"]).sum()
        for version in (0, 1, 10, 100)
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 2 * steps[-1]


def test_epochs_of_one_training_have_orders_of_their_own():
    """Two epochs in one order are what two trainings with the same seed make."""
    model = SklearnTrainer(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1), 6, 4, epochs=2)
    one = SklearnTrainer(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1), 6, 4)
    start = model.initial(np.random.default_rng(0))
    twice = one.train(one.train(start, X, Y, np.random.default_rng(1)), X, Y, np.random.default_rng(1))
    assert not np.array_equal(model.train(start, X, Y, np.random.default_rng(1))["coef"], twice["coef"])


def test_numbers_that_grow_beyond_all_bounds_are_an_error_with_a_hint():
    model = SklearnTrainer(SGDRegressor(learning_rate="constant", eta0=1.0), 6)
    with pytest.raises(UpdateError, match="SGDRegressor") as caught:
        model.train(model.initial(np.random.default_rng(0)), X * 1e20, Y, np.random.default_rng(0))
    assert "scale the features" in caught.value.hint
