# ruff: noqa: N803, N806  (X is a matrix)
"""What came out of the training: answers for people's examples, and a file that knows its origin."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open

from choral.cli import cli
from choral.data import load_shard, save_shard
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.learning import MLP, model_file
from choral.service.state.sqlite import Store
from choral.service.training import Training


def run(*arguments):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A federation whose aggregator has made version 0, a network that is still random."""
    folder = tmp_path_factory.mktemp("begun")
    sizes = ("--members", 3, "--features", 4, "--classes", 3, "--weight-cap", 9)
    run("init", folder / "fed", *sizes, "--model", "mlp", "--option", "hidden=8")
    me = Participant.load(folder / "fed/aggregator")
    store = Store(folder / "fed/aggregator/state")
    record = Training(me, store).head
    model = model_file.decode(store.blob(record.parameters), me.task.arrays)
    store.close()
    return folder / "fed/aggregator", me, record, model


def answers(model, X):
    return MLP(4, 8, 3).predict(model, X.astype(np.float32)).tolist()


@pytest.mark.parametrize("shape", [(50, 4), (50, 2, 2)])
def test_examples_without_right_answers_get_the_models_answers(begun, tmp_path, shape):
    aggregator, _, _, model = begun
    X = np.random.default_rng(1).normal(size=shape)
    np.save(tmp_path / "new.npy", X)
    expected = answers(model, X.reshape(50, 4))
    assert len(set(expected)) > 1
    out = tmp_path / "labels.csv"
    found = json.loads(run("predict", aggregator, "--data", tmp_path / "new.npy", "--json", "--out", out))
    assert found == {"version": 0, "examples": 50, "labels": expected}
    assert out.read_text().splitlines() == [
        "row,label",
        *(f"{i},{label}" for i, label in enumerate(expected)),
    ]
    assert f"{expected.count(0)} of class 0" in run("predict", aggregator, "--data", tmp_path / "new.npy")


def test_bytes_are_pixels_as_in_a_shard(begun, tmp_path):
    X = np.random.default_rng(2).integers(0, 256, (40, 4), np.uint8)
    np.save(tmp_path / "new.npy", X)
    found = json.loads(run("predict", begun[0], "--data", tmp_path / "new.npy", "--json"))
    assert found["labels"] == answers(begun[3], X / 255)


def test_a_shard_is_measured_and_its_labels_are_written_too(begun, tmp_path):
    rng = np.random.default_rng(3)
    shard = save_shard(
        tmp_path / "s.npy", rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 3, 30)
    )
    found = json.loads(run("predict", begun[0], "--data", shard, "--json", "--out", tmp_path / "l.csv"))
    X, y = load_shard(shard).arrays()
    expected = answers(begun[3], X)
    assert found["correct"] == sum(np.array(expected) == y)
    assert [int(line.split(",")[1]) for line in (tmp_path / "l.csv").read_text().splitlines()[1:]] == expected


@pytest.mark.parametrize(
    "array", [np.zeros((5, 3)), np.zeros(4), np.array([["a"] * 4] * 5), np.zeros((5, 4, 2))]
)
def test_an_array_that_is_not_the_tasks_is_refused_with_what_was_expected(begun, tmp_path, array):
    np.save(tmp_path / "new.npy", array)
    with pytest.raises(ParameterError, match=r"expected numbers \(n, 4\)"):
        run("predict", begun[0], "--data", tmp_path / "new.npy")


def test_a_model_that_only_measures_says_what_it_lacks(begun, tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Mute:\n"
        "    def initial(self, rng): ...\n"
        "    def train(self, p, X, y, rng): ...\n"
        "    def evaluate(self, p, X, y): ...\n"
    )
    np.save(tmp_path / "new.npy", np.zeros((5, 4)))
    with pytest.raises(ParameterError, match="a Mute measures, but does not say"):
        run("predict", begun[0], "--data", tmp_path / "new.npy", "--model", f"{tmp_path / 'mine.py'}:Mute")


def test_an_exported_model_says_where_it_comes_from_and_reads_back(begun, tmp_path):
    aggregator, me, record, model = begun
    out = tmp_path / "out.safetensors"
    run("model", "export", aggregator, out)
    with safe_open(out, "numpy") as file:
        assert file.metadata() == {
            "format": "choral", "federation": "federation", "name": "federation mlp", "version": "0",
            "task": me.task.digest.hex(), "record": record.digest.hex(), "model": record.parameters.hex(),
        }  # fmt: skip
    back = model_file.decode(out.read_bytes(), me.task.arrays)
    assert model_file.digest(model_file.encode(back)) == record.parameters
    assert back.keys() == model.keys()


def test_what_is_wrong_with_a_task_is_said_without_a_line_of_code(tmp_path):
    with pytest.raises(ParameterError) as refused:
        run(
            "init",
            tmp_path / "f",
            "--members",
            3,
            "--features",
            4,
            "--weight-cap",
            9,
            "--holdout",
            0,
            "--stop-after",
            2,
        )
    assert refused.value.reason == "the task: patience goes by held-out examples, and holdout is 0"
