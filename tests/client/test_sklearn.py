"""A linear classifier of scikit-learn is a trainer, also for a member that lacks classes."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install choral[sklearn]")

from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier

from choral.client.sklearn import SklearnTrainer
from choral.errors import ParameterError
from choral.learning.rules import fedavg
from choral.learning.update import difference, flatten, schema_of, unflatten

RNG = np.random.default_rng(3)
CENTRES = RNG.standard_normal((4, 6)) * 2
Y = RNG.integers(0, 4, 200)
X = (CENTRES[Y] + RNG.standard_normal((200, 6))).astype(np.float32)
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


@pytest.mark.parametrize("estimator", [LogisticRegression(), RidgeClassifier(), SGDClassifier(average=True)])
def test_an_estimator_that_would_forget_is_refused(estimator):
    with pytest.raises(ParameterError, match=r"start from nothing|average"):
        SklearnTrainer(estimator, 6)
