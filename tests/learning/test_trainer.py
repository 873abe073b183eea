"""Evaluations are totals; anything with three methods is a trainer."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from choral.learning import MLP, Evaluation, Softmax, Trainer

EVALUATIONS = st.builds(
    lambda examples, part, loss: Evaluation(examples, int(examples * part), loss),
    st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 10**6).map(float),
)  # fmt: skip


@given(EVALUATIONS, EVALUATIONS, EVALUATIONS)
def test_evaluations_add_up_in_any_order(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Evaluation(0, 0, 0.0) == a


def test_accuracy_and_mean_loss_are_weighted_by_examples():
    total = Evaluation(1, 1, 0.0) + Evaluation(3, 0, 6.0)
    assert total.accuracy == 0.25
    assert total.mean_loss == 1.5


def test_without_examples_there_is_no_accuracy():
    assert math.isnan(Evaluation(0, 0, 0.0).accuracy)
    assert math.isnan(Evaluation(0, 0, 0.0).mean_loss)


class Mean:
    """Not a classifier: learns the mean of its inputs."""

    def initial(self, rng):
        return {"mean": np.zeros(3, np.float32)}

    def train(self, parameters, X, y, rng):  # noqa: N803
        return {"mean": X.mean(axis=0)}

    def evaluate(self, parameters, X, y):  # noqa: N803
        return Evaluation(len(X), 0, float(((X - parameters["mean"]) ** 2).sum()))


def test_a_model_that_does_not_classify_is_a_trainer_too():
    trainers: list[Trainer] = [Mean(), Softmax(3), MLP(3)]
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 3), dtype=np.float32), np.zeros(50, np.uint8)  # noqa: N806
    for trainer in trainers:
        before = trainer.initial(rng)
        after = trainer.train(before, X, y, rng)
        assert trainer.evaluate(after, X, y).loss < trainer.evaluate(before, X, y).loss
