"""A federation in memory learns what plain averaging would, and the same seed gives the same run."""

import tracemalloc

import numpy as np
import pytest

from choral.data import load_digits
from choral.errors import ParameterError, UpdateError
from choral.learning import Evaluation, Softmax
from choral.learning.update import flatten
from choral.protocol.aggregator import Phase
from choral.simulation import Divided, Examples, Simulation, Summary, divide
from choral.vectors.totals import Totals

DIGITS = load_digits()


def simulation(members=20, *, split="iid", rate=0.5, **options):
    population, test = divide(*DIGITS, members=members, split=split, test=360, seed=0)
    return Simulation(Softmax(64, rate=rate), population, test, **{"cohort": 8, "seed": 1} | options)


def ring_sum(updates):
    main, totals = (np.zeros_like(part) for part in updates[0])
    for vector, auxiliary in updates:
        main += vector
        totals += auxiliary
    return main, totals


def events(reports):
    return [(r.round, r.version, r.round_id, r.survivors, r.dropped, r.aborted, r.missing) for r in reports]


def test_the_same_seed_gives_the_same_model_and_the_same_drops():
    def run(seed):
        started = simulation(drop=0.3, seed=seed)
        return events(started.run(6)), started.model_digest

    once, again, other = run(1), run(1), run(2)
    assert once == again
    assert once[1] != other[1]
    assert once[0] != other[0]


def test_encoding_changes_no_bit_of_the_model():
    runs = [simulation(drop=0.2, encoded=encoded) for encoded in (True, False)]
    logs = [events(run.run(4)) for run in runs]
    assert logs[0] == logs[1]
    assert runs[0].model_digest == runs[1].model_digest


def test_every_sum_is_that_of_the_survivors_updates_bit_for_bit():
    started = simulation(split="dirichlet:0.5", drop=0.2)
    sums = 0
    for _ in range(10):
        updates = {name: started.update_of(name) for name in started.invited()}
        report = started.round()
        if report.total is None:
            continue
        main, totals = ring_sum([updates[name] for name in report.survivors])
        np.testing.assert_array_equal(report.total.main, main)
        np.testing.assert_array_equal(report.total.auxiliary, totals)
        sums += 1
    assert sums >= 5


def test_the_next_model_is_the_weighted_mean_of_the_survivors_models():
    model = Softmax(64, rate=0.5)
    population, test = divide(*DIGITS, members=6, split="dirichlet:0.5", test=360, seed=3)
    seen = {}

    class Watched:
        initial, evaluate = model.initial, model.evaluate

        def train(self, parameters, X, y, rng):  # noqa: N803
            trained = model.train(parameters, X, y, rng)
            seen[len(y)] = flatten(trained, model.schema)
            return trained

    started = Simulation(Watched(), population, test, cohort=6, seed=3)
    started.round()
    sizes = list(seen)
    assert sorted(sizes) == sorted(population.sizes)  # else the sizes do not name the members
    plain = np.average([seen[size] for size in sizes], axis=0, weights=sizes)
    bound = started.plan.error_bound(6, sum(sizes))
    np.testing.assert_allclose(started._model, plain, atol=bound + 1e-6)


def test_a_round_that_loses_too_many_aborts_and_training_goes_on():
    started = simulation(drop=0.45)
    before, reports = started.model_digest, []
    for report in started.run(20):
        reports.append(report)
        if report.aborted is not None:
            assert started.model_digest == before
            assert report.missing
            assert report.survivors == ()
            assert "messages that it needs" in report.aborted
        else:
            assert started.model_digest != before
            assert report.version == 1 + (reports[-2].version if len(reports) > 1 else 0)
        before = started.model_digest
    aborts = [report.round for report in reports if report.aborted is not None]
    sums = [report.round for report in reports if report.aborted is None]
    assert aborts
    assert sums
    assert max(sums) > min(aborts)
    summary = Summary.of(reports)
    assert sum(summary.aborted.values()) == len(aborts)
    assert sum(summary.dropped.values()) == sum(len(report.dropped) for report in reports)
    assert summary.seconds.least <= summary.seconds.median <= summary.seconds.most
    assert summary.bytes_up > 4 * started.parameters.dimension * 0.5


def test_who_vanishes_after_masking_is_in_the_sum_and_who_vanishes_before_is_not():
    reports = list(simulation(drop=0.3).run(10))
    late = early = 0
    for report in (report for report in reports if report.aborted is None):
        for name, phase in report.dropped.items():
            after = phase in (Phase.CONSISTENCY, Phase.UNMASK)
            assert (name in report.survivors) is after
            late, early = late + after, early + (not after)
    assert late
    assert early


def test_weights_are_the_members_numbers_of_examples():
    started = simulation(split="dirichlet:0.1")
    sizes = {f"member-{i}": size for i, size in enumerate(started._population.sizes, 1)}
    report = started.round()
    totals = Totals.decode(report.total.auxiliary)
    assert totals.weight == sum(sizes[name] for name in report.survivors)
    assert totals.capped == 0
    assert totals.clipped == 0


def test_cohorts_are_drawn_anew_for_every_round():
    started, seen = simulation(), []
    for _ in range(5):
        seen.append(tuple(started.invited()))
        started.round()
    assert len(set(seen)) == 5
    assert all(len(set(cohort)) == 8 for cohort in seen)


def test_members_that_are_not_drawn_cost_no_vector():
    members, features = 3000, 7840
    X = np.zeros((30, features), np.uint8)  # noqa: N806
    parts = [np.arange(10) for _ in range(members)]
    population = Divided(X, np.arange(30, dtype=np.uint8) % 10, parts)
    test = Examples(*population.examples(0))
    tracemalloc.start()
    try:
        started = Simulation(Softmax(features), population, test, cohort=4)
        for _ in started.run(2):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert members * started.parameters.dimension * 4 > 900e6
    assert peak < 40e6


def test_a_diverging_model_is_an_error_that_names_the_array():
    class Diverging:
        def initial(self, rng):
            return {"weight": np.zeros(3, np.float32)}

        def train(self, parameters, X, y, rng):  # noqa: N803
            return {"weight": np.float32([0, np.nan, 0])}

        def evaluate(self, parameters, X, y):  # noqa: N803
            return Evaluation(len(y), 0, 0.0)

    population, test = divide(*DIGITS, members=5, split="iid", test=360, seed=0)
    with pytest.raises(UpdateError, match="weight"):
        Simulation(Diverging(), population, test, cohort=5).round()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cohort": 1}, "cohorts of 1"),
        ({"cohort": 21}, "cohorts of 21"),
        ({"drop": 1.5}, "probability"),
        ({"minimum": 2}, "smallest cohort of two"),
        ({"minimum": 9}, "smallest cohort of 9"),
        ({"tolerated": 8}, "cannot bear"),
        ({"clip": -1.0}, "clipping range"),
    ],
)
def test_a_federation_that_cannot_be_is_refused(options, reason):
    with pytest.raises(ParameterError, match=reason):
        simulation(**options)


def test_the_test_set_is_kept_apart_and_every_other_example_is_used_once():
    population, test = divide(*DIGITS, members=7, split="shards:2", test=360, seed=4)
    rows = np.concatenate(population.parts)
    assert len(rows) == len(set(rows)) == len(DIGITS[1]) - 360 == sum(population.sizes)
    left = np.setdiff1d(np.arange(len(DIGITS[1])), rows)
    assert sorted(DIGITS[1][left]) == sorted(test.y)
    with pytest.raises(ParameterError, match="to test on"):
        divide(*DIGITS, members=7, split="iid", test=0, seed=4)


def test_pixels_are_scaled_when_a_member_trains():
    X = np.full((4, 3), 255, np.uint8)  # noqa: N806
    found = Divided(X, np.zeros(4, np.uint8), [np.array([1, 2])]).examples(0)
    assert found.X.dtype == np.float32
    np.testing.assert_array_equal(found.X, np.ones((2, 3), np.float32))
