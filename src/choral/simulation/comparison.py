"""Local before federated, federated before pooled: the same model trained in all three ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from choral.data.examples import Examples
from choral.learning.baselines import train_alone
from choral.learning.rules import Rule
from choral.learning.trainer import Trainer
from choral.simulation.population import Population
from choral.simulation.training import Simulation


@dataclass(frozen=True)
class Comparison:
    """Accuracies on one test set that nobody trained on, from 0 to 1.

    Attributes:
        sizes: examples of each member.
        alone: of each member, from its own data.
        federated: of all together under secure aggregation, data staying where they are.
        pooled: of all data in one place.
    """

    sizes: tuple[int, ...]
    alone: tuple[float, ...]
    federated: float
    pooled: float


def compare(
    trainer: Trainer,
    population: Population,
    test: Examples,
    *,
    rounds: int,
    seed: int,
    rule: Rule | None = None,
) -> Comparison:
    """Train `rounds` times in each way: a round is one training of every member, or one over all data.

    In the federation everybody takes part in every round, and the sums come out of the protocol's own
    machines, with messages handed over in memory.

    Raises:
        ParameterError: fewer than 2 or more than 256 members.
        UpdateError: training diverged.
    """
    members = range(len(population.sizes))
    simulation = Simulation(
        trainer, population, test, cohort=len(members), seed=seed, rule=rule, encoded=False
    )
    for _ in simulation.run(rounds):
        pass
    shards = [population.examples(member) for member in members]
    alone = [train_alone(trainer, *shard, test, rounds, seed).accuracy for shard in shards]
    X, y = (np.concatenate(part) for part in zip(*shards, strict=True))  # noqa: N806
    pooled = train_alone(trainer, X, y, test, rounds, seed)
    return Comparison(tuple(population.sizes), tuple(alone), simulation.evaluate().accuracy, pooled.accuracy)
