# ruff: noqa: N806  (X is a matrix)
"""Alone, federated, pooled: the federated part is a plain weighted mean, but for rounding."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from choral.cli.compare import compare as command
from choral.cli.data import data
from choral.data import load_digits
from choral.learning import Softmax, model_file
from choral.learning.rules import fedavg, fedavgm
from choral.learning.trainer import trainer_at
from choral.learning.update import difference, flatten, unflatten
from choral.simulation import Simulation, divide
from choral.simulation.comparison import compare

ROUNDS = 4


def digits(split="iid", members=3):
    X, y = load_digits()
    return divide(X[:600], y[:600], members=members, split=split, test=200, seed=1)


@pytest.mark.parametrize("rule", [fedavg(), fedavgm(0.5, 0.5)])
def test_the_model_is_that_of_a_weighted_mean_in_the_open(rule):
    """The same trainings, their mean taken in float64: what is left is the rounding of 30-bit integers."""
    population, test = digits("dirichlet:0.5")
    model = Softmax(64, epochs=2, rate=0.5, schedule="step:2:0.5")
    simulation = Simulation(model, population, test, cohort=3, seed=7, rule=rule, encoded=False)
    list(simulation.run(ROUNDS))
    vector, state = flatten(model.initial(np.random.default_rng(7)), model.schema), {}
    for round_ in range(ROUNDS):
        now, updates = unflatten(vector, model.schema), []
        for member in range(3):
            rng = np.random.default_rng([7, 2, round_, member])
            trained = trainer_at(model, round_).train(now, *population.examples(member), rng)
            updates.append(difference(trained, now, model.schema).astype(np.float64))
        mean = np.average(updates, axis=0, weights=population.sizes).astype(np.float32)
        vector, state = rule(vector, mean, state)
    np.testing.assert_allclose(
        flatten(model_file.decode(simulation.model_bytes), model.schema), vector, atol=2e-5
    )


def test_each_way_beats_the_one_before_it_where_members_know_little_alone():
    found = compare(Softmax(64, epochs=5, rate=0.5), *digits("label"), rounds=20, seed=0)
    assert max(found.alone) < 0.5 < found.federated <= found.pooled + 0.03
    assert sum(found.sizes) == 400
    assert found == compare(Softmax(64, epochs=5, rate=0.5), *digits("label"), rounds=20, seed=0)


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_one_command_prints_the_table():
    ran = run(
        "--members", 3, "--splits", "iid,label", "--seeds", "0,1", "--rounds", 2, "--option", "rate=0.5"
    )
    for text in ("each alone", "federated", "pooled", "iid", "label", "3 members", "over 2 seeds"):
        assert text in ran.output


def test_ready_shards_are_taken_as_they_are(tmp_path):
    CliRunner().invoke(data, ["split", str(tmp_path), "--members", "3"], catch_exceptions=False)
    ran = run("--data", f"npy:{tmp_path}", "--seeds", "4", "--rounds", 1, "--json")
    (one,) = json.loads(ran.stdout)["splits"]["as found"]
    assert len(one["alone"]) == 3
    assert 0 < one["federated"] <= 1
