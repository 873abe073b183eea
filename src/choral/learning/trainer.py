# ruff: noqa: N803  (X is a matrix, and is written so)
"""What a model must be able to do: begin, train on one member's examples, and be measured.

Choral never looks inside a model. It carries named float32 arrays from the aggregator to the
members and the difference of such arrays back; everything between is the user's, in NumPy,
PyTorch or anything else that can give its parameters as arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
"""A whole model, or an update of one, as float32[d]."""

Parameters: TypeAlias = dict[str, NDArray[np.float32]]
"""A model: float32 arrays by name. The order of the names means nothing."""

Examples: TypeAlias = NDArray[np.float32]
"""Inputs, float32 (n, features)."""

Labels: TypeAlias = NDArray[Any]
"""One whole number an example, (n,): uint8 as a shard stores them, or any integer type."""


@dataclass(frozen=True)
class Evaluation:
    """Totals over examples, so that the evaluations of several members simply add up.

    `examples` and `correct` are counts. A model that does not classify, or whose answers nobody can call
    right or wrong, has `classified=False`; its `correct` is 0 and means nothing.
    `loss` is the sum of the loss over the examples, not its mean, in whatever unit the model
    uses (nats, for `Softmax` and `MLP`).

    >>> both = Evaluation(10, 9, 2.0) + Evaluation(30, 21, 10.0)
    >>> both.accuracy, both.mean_loss
    (0.75, 0.3)
    """

    examples: int
    correct: int
    loss: float
    classified: bool = True

    @property
    def accuracy(self) -> float:
        """The part of the examples that was classified correctly, in [0, 1]; NaN if there is none."""
        return self.correct / self.examples if self.examples and self.classified else math.nan

    @property
    def mean_loss(self) -> float:
        """The loss of the average example; NaN without examples."""
        return self.loss / self.examples if self.examples else math.nan

    def __add__(self, other: Evaluation) -> Evaluation:
        if not isinstance(other, Evaluation):
            return NotImplemented
        return Evaluation(
            self.examples + other.examples,
            self.correct + other.correct,
            self.loss + other.loss,
            all(one.classified for one in (self, other) if one.examples),
        )


class Trainer(Protocol):
    """A model as federated averaging sees it (McMahan et al. 2017, Algorithm 1).

    Any object with these three methods will do; there is nothing to inherit from. Randomness is
    an argument: the same generator state must give the same arrays.

    Two things more are looked for, and may be missing:

    - a method `at(version)`, for a trainer whose work changes from version to version: `Scheduled`.
    - an attribute `takes_pixels`, true if `X` may also be uint8 pixels that stand for value / 255.
      The images of a u1 shard are then handed over as they lie on disk, at a quarter of the memory.
    """

    def initial(self, rng: np.random.Generator) -> Parameters:
        """The model before the first round. Its names and shapes are those of every later one."""
        ...

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Local training: from the global model, on this member's examples alone (ClientUpdate).

        `X` is float32 (n, features), `y` integer (n,). Returns new arrays under the same names
        and of the same shapes, and leaves those that it was handed as they were.
        """
        ...

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Measure a model on examples. Totals, not means: see `Evaluation`."""
        ...


@runtime_checkable
class Scheduled(Trainer, Protocol):
    """A trainer that works differently from one model version to the next, say with ever smaller steps."""

    def at(self, version: int) -> Trainer:
        """The trainer that starts from model version `version`, 0 or more; this one stays as it is."""
        ...


def trainer_at(trainer: Trainer, version: int) -> Trainer:
    """Who trains from model version `version`: `trainer.at(version)`, or `trainer` if it has no `at`."""
    return trainer.at(version) if isinstance(trainer, Scheduled) else trainer
