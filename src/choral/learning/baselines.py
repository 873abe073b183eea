"""What to compare a federation with: every member alone, and all data in one place."""

from __future__ import annotations

import numpy as np

from choral.learning.trainer import Evaluation, Examples, Labels, Trainer, trainer_at


def train_alone(  # noqa: PLR0917
    trainer: Trainer,
    X: Examples,  # noqa: N803
    y: Labels,
    test: tuple[Examples, Labels],
    rounds: int,
    seed: int,
) -> Evaluation:
    """How far one holder of data gets by itself with the work that a member does in a federation.

    Args:
        trainer: the model; one `train` is what a member does in a round.
        X, y: float32 (n, features) and integer (n,).
        test: examples to measure on.
        rounds: how often it trains.
        seed: of the first model and of training.
    """
    model = trainer.initial(np.random.default_rng(seed))
    for round_ in range(rounds):
        model = trainer_at(trainer, round_).train(model, X, y, np.random.default_rng([seed, round_]))
    return trainer.evaluate(model, *test)
