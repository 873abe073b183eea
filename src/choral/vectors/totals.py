"""The auxiliary segment: the weight, then metric totals in fixed point (§6.1). Only ever known summed."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from choral.errors import ParameterError
from choral.vectors.fixed_point import LARGEST_COHORT, METRIC_BITS, from_fixed, to_fixed

_LARGEST = math.nextafter(2.0**63 / 2**METRIC_BITS / LARGEST_COHORT, 0)  # that a whole cohort can sum up


@dataclass(frozen=True)
class Totals:
    """One member's totals, or the sum of a cohort's.

    Attributes:
        weight: training examples behind the update, capped; a plain integer.
        examples: held-out examples that the *base* model was evaluated on.
        correct: of them, how many it got right.
        loss: sum of its loss over them.
        clipped: coordinates that were clipped.
        capped: members whose weight was above the cap.
    """

    WORDS: ClassVar = 6

    weight: int
    examples: float = 0.0
    correct: float = 0.0
    loss: float = 0.0
    clipped: float = 0.0
    capped: float = 0.0

    def encode(self) -> NDArray[np.uint64]:
        """uint64[6]. A total that is too large is sent as the bound (§6.1). Tags will go after them (§6.5).

        Raises:
            UpdateError: a total that is not a number.
            ParameterError: a weight below 1.
        """
        if self.weight < 1:
            raise ParameterError(f"a weight of {self.weight}, expected at least 1 example")
        metrics = (max(-_LARGEST, min(_LARGEST, float(value))) for value in astuple(self)[1:])
        return np.array([self.weight, *map(to_fixed, metrics)], np.uint64)

    @classmethod
    def decode(cls, words: NDArray[np.uint64]) -> Totals:
        """The totals in a sum of encoded ones."""
        weight, *metrics = (int(word) for word in words)
        return cls(weight, *map(from_fixed, metrics))

    def possible(self, members: int) -> bool:
        """Whether so many honest members can have these metrics in sum (§6.4)."""
        most = members * _LARGEST
        return 0 <= self.correct <= self.examples <= most and 0 <= self.loss <= most

    @property
    def accuracy(self) -> float | None:
        """None also where nothing was right: a model that does not classify counts none (§6.1)."""
        return self.correct / self.examples if self.examples and self.correct else None

    @property
    def mean_loss(self) -> float | None:
        return self.loss / self.examples if self.examples else None
