"""The accuracies of DATA.md's table, through secure aggregation: each within one point.

Test sets, splits and models are those of tests/learning/test_digits.py, where the mean is taken in the open.
"""

import numpy as np
import pytest

from choral.data import load_digits, synthetic_digits
from choral.learning import Softmax, rules
from choral.simulation import Simulation, divide


def federated(data, model, *, members, split, test, seed, rounds):
    """Accuracies in percent, one a round; everybody takes part in every round."""
    population, held_out = divide(*data, members=members, split=split, test=test, seed=seed)
    simulation = Simulation(model, population, held_out, cohort=members, seed=seed, encoded=False)
    curve = []
    for report in simulation.run(rounds):
        assert len(report.survivors) == members
        curve.append(100 * report.measured.accuracy)
    return curve


@pytest.mark.parametrize(
    ("members", "split", "expected"),
    [
        (2, "iid", 98.2),
        # 97.9 in DATA.md; over twelve draws of this coin toss the plain mean gave 96.8 (tests/learning)
        (2, "dirichlet:0.1", 96.8),
        (10, "iid", 98.0),
        (10, "dirichlet:0.1", 96.5),
    ],
)
def test_real_digits_five_local_epochs(members, split, expected):
    model = Softmax(64, epochs=5, batch=32, rate=0.5)
    scores = [
        federated(load_digits(), model, members=members, split=split, test=360, seed=seed, rounds=100)[-1]
        for seed in range(3)
    ]
    assert np.mean(scores) == pytest.approx(expected, abs=1)


def test_two_clients_that_know_half_of_the_digits_each_learn_all_of_them():
    """Synthetic, 1,000 images each, one local epoch of batches of 32 at rate 0.5, 60 rounds."""
    model, scores, alone = Softmax(784, epochs=1, batch=32, rate=0.5), [], []
    for seed in range(3):
        data = synthetic_digits(4000, seed=seed)
        curve = federated(data, model, members=2, split="label", test=2000, seed=seed, rounds=60)
        assert max(curve[:4]) > 90
        assert max(curve[:20]) > 95
        scores.append(curve[-1])
        population, test = divide(*data, members=2, split="label", test=2000, seed=seed)
        for member in range(2):
            rng, parameters = np.random.default_rng(seed), model.initial(np.random.default_rng(seed))
            for _ in range(20):
                parameters = model.train(parameters, *population.examples(member), rng)
            alone.append(100 * model.evaluate(parameters, *test).accuracy)
    assert np.mean(alone) == pytest.approx(49.5, abs=1)
    assert np.mean(scores) == pytest.approx(97.1, abs=1)


def test_momentum_and_the_adaptive_rules_defaults_beat_plain_averaging_where_data_differ():
    """Five members with two digits each, 30 rounds: nothing was tuned but the defaults."""

    def end(rule, seed):
        population, test = divide(*load_digits(), members=5, split="label", test=360, seed=seed)
        model, step = Softmax(64, epochs=5, rate=0.5), rules.rule(rule, {})
        simulation = Simulation(model, population, test, cohort=5, seed=seed, rule=step, encoded=False)
        return [100 * report.measured.accuracy for report in simulation.run(30)][-1]

    def ends(rule):
        return np.mean([end(rule, seed) for seed in range(2)])

    plain = ends("fedavg")
    for rule in ("fedavgm", "fedadam", "fedyogi"):
        assert ends(rule) > plain + 1, rule
