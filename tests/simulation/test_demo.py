"""The demonstration shows its point: nearly as good as all data in one place, a killed member and all."""

import numpy as np
import pytest

from choral.cli.demo import HOLDOUT, _shards, kill_after
from choral.data import load_shard
from choral.founding.defaults import BUILT_IN, ROUNDS, RULE
from choral.learning import Softmax, rules
from choral.learning.baselines import train_alone
from choral.protocol.aggregator import Phase
from choral.simulation import Examples, Simulation
from choral.simulation.population import Divided

MODEL = Softmax(64, **BUILT_IN)
VICTIM = "member-3"


def demo(folder, seed, rounds, *, away):
    """Accuracies by round of `choral demo`, its victim away for `away` rounds after the kill; and pooled."""
    paths, held_out = _shards(folder, "digits", 5, "label", seed)
    data, test = [load_shard(path).arrays() for path in paths], Examples(*load_shard(held_out).arrays())
    X, y = (np.concatenate(parts) for parts in zip(*data, strict=True))  # noqa: N806
    rng, ends = np.random.default_rng(seed), np.cumsum([len(own[1]) for own in data])
    parts = []
    for own, end in zip(data, ends, strict=True):
        rows = rng.permutation(np.arange(end - len(own[1]), end))
        parts.append(np.sort(rows[: len(rows) - int(len(rows) * HOLDOUT)]))
    simulation = Simulation(
        MODEL, Divided(X, y, parts), test, cohort=5, seed=seed, rule=rules.rule(RULE, {}), encoded=False
    )
    curve, killed = [], kill_after(rounds) + 1
    for number in range(1, rounds + 1):
        drops = {}
        if killed <= number <= killed + away:
            drops = {VICTIM: Phase.SHARE if number == killed else Phase.ADVERTISE}
        report = simulation.round(drops)
        assert len(report.survivors) == 5 - len(drops)
        curve.append(report.measured.accuracy)
    return curve, train_alone(MODEL, X, y, test, rounds, seed).accuracy


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("away", [3, 7])  # a fast machine and a slow one
def test_the_demo_ends_within_two_points_of_all_data_in_one_place(tmp_path, seed, away):
    curve, pooled = demo(tmp_path, seed, ROUNDS, away=away)
    assert pooled > 0.95
    assert curve[-1] > pooled - 0.02


@pytest.mark.parametrize("seed", [0, 1])
def test_a_short_demo_ends_well_too(tmp_path, seed):
    """The kill is early enough that the model knows the victim's digits again by the end."""
    curve, _ = demo(tmp_path, seed, 12, away=3)
    assert curve[-1] > 0.88
    assert min(curve[2:]) < 0.82, "the kill is seen in the curve"
