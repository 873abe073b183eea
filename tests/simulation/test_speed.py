"""Who waits for whom: synchronous, deadline and stale-tolerant training on a simulated clock."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from choral.cli.simulate import simulate
from choral.data import load_digits
from choral.errors import ParameterError
from choral.learning import Softmax, model_file
from choral.learning.update import flatten
from choral.simulation import Simulation, divide
from choral.simulation.speed import Race, Way, reached, speeds

MODEL = Softmax(64, epochs=2, rate=0.5)


def digits(members=8):
    X, y = load_digits()  # noqa: N806
    return divide(X, y, members=members, split="iid", test=400, seed=0)


def race(seconds, cohort=4, members=8):
    return Race(MODEL, *digits(members), seconds, cohort=cohort, seed=1)


def test_a_synchronous_round_takes_as_long_as_its_slowest_member():
    seconds = [1.0, 2.0, 3.0, 4.0]
    points = list(race(seconds, cohort=4, members=4).run(Way("synchronous"), 12.0))
    assert [point.seconds for point in points] == [0, 4, 8, 12]
    assert {point.updates for point in points[1:]} == {4}


def test_a_deadline_leaves_the_slow_ones_out():
    seconds = [1.0, 2.0, 3.0, 4.0]
    points = list(race(seconds, cohort=4, members=4).run(Way("deadline", 0.5), 12.0))
    assert [point.seconds for point in points] == [0, 2, 4, 6, 8, 10, 12]
    assert {point.updates for point in points[1:]} == {2}


def test_the_slow_ones_count_later_if_they_are_not_too_old():
    seconds = [1.0, 1.0, 2.5, 2.5]
    points = list(race(seconds, cohort=4, members=4).run(Way("stale", 0.5, 3), 12.0))
    assert sum(point.stale for point in points) > 2
    seconds = [1.0, 1.0, 1.0, 1000.0]
    points = list(race(seconds, cohort=4, members=4).run(Way("stale", 0.5, 1), 50.0))
    assert all(point.stale <= point.updates for point in points)
    assert len(points) > 20  # nobody waits for it


def test_the_same_seed_runs_the_same_race():
    seconds = speeds("lognormal:1.5", 8, np.random.default_rng(0))
    for way in (Way("synchronous"), Way("deadline", 0.5), Way("stale", 0.5, 3)):
        assert list(race(seconds).run(way, 20.0)) == list(race(seconds).run(way, 20.0))


def test_sums_in_the_open_are_those_of_the_protocol():
    """One round of everybody, once with masks and once without: the same model, bit for bit."""
    population, test = digits(4)
    runner = Race(MODEL, population, test, [1.0] * 4, cohort=4, seed=1)
    points = list(runner.run(Way("synchronous"), 1.0))
    protocol = Simulation(MODEL, population, test, cohort=4, seed=1, encoded=False)
    protocol._rng = lambda purpose, member=0: np.random.default_rng([1, 2, protocol.version, member])
    total = protocol._play(list(protocol._numbers)).total
    protocol._learn(total)
    np.testing.assert_array_equal(
        flatten(model_file.decode(protocol.model_bytes), MODEL.schema), runner._models[1]
    )
    assert points[-1].accuracy == protocol.evaluate().accuracy


def test_time_to_accuracy_is_that_of_the_first_version_that_is_so_good():
    points = list(race([1.0] * 8).run(Way("synchronous"), 8.0))
    assert reached(points, 0.0) == 0.0
    assert reached(points, 1.1) is None
    target = points[3].accuracy
    assert reached(points, target) <= 3.0


@pytest.mark.parametrize(
    "text", ["", "fast", "lognormal", "lognormal:0", "lognormal:x", "lognormal:9", "uniform:1"]
)
def test_another_speed_is_refused(text):
    with pytest.raises(ParameterError, match="expected constant or lognormal:SIGMA"):
        speeds(text, 3, np.random.default_rng(0))


def test_the_command_shows_that_waiting_costs_time(tmp_path):
    arguments = ["--data", "digits", "--members", "20", "--cohort", "10", "--rounds", "8"]
    arguments += ["--option", "rate=0.5", "--speed", "lognormal:1.5"]
    ran = CliRunner().invoke(simulate, [*arguments, "--json"], catch_exceptions=False)
    ways = json.loads(ran.stdout)["ways"]
    waiting, deadline, stale = (way["reached"] for way in ways.values())
    assert waiting > deadline
    assert waiting > stale
    ran = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert "synchronous" in ran.stdout
    assert "stale, up to 10" in ran.stdout


def test_the_command_draws_the_curves(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install choral[pictures]")
    out = tmp_path / "curves.svg"
    arguments = [
        "--data",
        "digits",
        "--members",
        "10",
        "--rounds",
        "2",
        "--speed",
        "lognormal:1",
        "--plot",
        str(out),
    ]
    assert CliRunner().invoke(simulate, arguments, catch_exceptions=False).exit_code == 0
    assert out.read_bytes().startswith(b"<?xml")
