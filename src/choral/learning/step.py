"""The two steps of federated learning: a member's update in, the next model out (§6.3, §6.4).

Everything between them, masks, rounds and the log, changes no number: the simulations take the same two
steps as a federation does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from choral.learning.rules import Rule, State
from choral.learning.trainer import Labels, Parameters, Trainer, Vector, trainer_at
from choral.learning.update import Schema, difference
from choral.vectors.fixed_point import RingPlan, encode


def discount(staleness: int) -> float:
    """What an update counts for that starts from a model `staleness` versions old: `(1 + s)^-0.5`.

    Nguyen et al. 2022 (FedBuff, arXiv 2106.06639), the polynomial of its experiments.

    >>> discount(0), discount(3)
    (1.0, 0.5)
    """
    return float((1 + staleness) ** -0.5)


def discounted(vector: NDArray[np.uint32], staleness: int) -> NDArray[np.uint32]:
    """An encoded update, uint32[d], that counts for less (§6.3): `vector` itself, or a new one.

    Scaled by its member and not by the aggregator, which sees the sum only.
    """
    if not staleness:
        return vector
    scaled: NDArray[np.int32] = np.rint(vector.view(np.int32) * discount(staleness)).astype(np.int32)
    return scaled.view(np.uint32)


@dataclass(frozen=True, eq=False)
class Contribution:
    """What a member adds to a sum, still in the clear.

    Attributes:
        vector: the encoded update, uint32[d].
        weight: training examples behind it, at most the cap.
        clipped: coordinates that were clipped.
        capped: whether the member has more examples than the cap.
    """

    vector: NDArray[np.uint32]
    weight: int
    clipped: int
    capped: bool

    def discounted(self, staleness: int) -> Contribution:
        """For a cohort that stands `staleness` versions after the model this started from (§6.3).

        The weight stays: it is what the sum is divided by.
        """
        return replace(self, vector=discounted(self.vector, staleness))


def contribution(
    trainer: Trainer,
    model: Parameters,
    X: NDArray[Any],  # noqa: N803
    y: Labels,
    rng: np.random.Generator,
    *,
    version: int,
    schema: Schema,
    plan: RingPlan,
) -> Contribution:
    """Train from a model on one member's examples, and encode the difference.

    Args:
        X, y: what the member trains on, at least one example.
        version: of the model; a trainer with a schedule goes by it.
        schema: of the task's arrays.

    Raises:
        UpdateError: arrays that are not the task's, or not finite.
    """
    trained = trainer_at(trainer, version).train(model, X, y, rng)
    delta = difference(trained, model, schema)
    del trained  # no more vectors at a time than it takes
    weight = min(len(y), plan.weight_cap)
    encoded = encode(delta, weight, plan, into=delta.view(np.uint32))
    return Contribution(encoded.vector, weight, encoded.clipped, len(y) > plan.weight_cap)


def next_model(
    rule: Rule, model: Vector, state: Mapping[str, Vector], mean: Vector, *, staleness: int = 0
) -> tuple[Vector, State]:
    """The next model, float32[d], and the rule's next state, from the mean of a round (§6.4).

    Args:
        mean: float32[d], as `decode` gives it; it is used up.
        staleness: versions that were made since the model that the cohort stood on.

    Raises:
        UpdateError: a number that is not finite.
        ParameterError: the state of another rule or model.
    """
    mean *= np.float32(discount(staleness))
    return rule(model, mean, state)
