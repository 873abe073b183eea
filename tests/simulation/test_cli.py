"""`choral simulate` as a person types it."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from choral.cli import cli
from choral.data import load_digits, save_shard, synthetic_digits
from choral.errors import ParameterError, ShardError

SMALL = ["--members", "20", "--cohort", "6", "--rounds", "3", "--data", "digits", "--seed", "1"]


def run(*arguments):
    result = CliRunner().invoke(cli, ["simulate", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def as_json(*arguments):
    return json.loads(run(*arguments, "--json").stdout.splitlines()[-1])


def test_a_line_a_round_and_a_table():
    output = run(*SMALL, "--drop", "0.2", "--option", "epochs=5", "--option", "rate=0.5").stdout
    for number in (1, 2, 3):
        assert f"round   {number}" in output
    for row in ("accuracy", "aborts", "dropped", "seconds a round", "bytes a member", "min/median/max"):
        assert row in output


def test_json_is_one_object_alone_on_standard_output():
    result = run(*SMALL, "--json")
    assert len(result.stdout.splitlines()) == 1
    assert "round   3" in result.stderr
    found = json.loads(result.stdout)
    assert found["rounds"] == found["version"] == 3
    assert len(found["accuracy"]) == 3
    assert found["survivors"] == [6, 6, 6]
    assert found["dropped"] == [{}, {}, {}]
    assert found["aborted"] == []
    assert found["seconds_a_round"]["least"] <= found["seconds_a_round"]["most"]
    assert found["bytes_a_member"]["up"] > 4 * found["parameters"]
    assert (found["members"], found["cohort"], found["seed"]) == (20, 6, 1)
    assert (found["data"], found["split"], found["model"], found["drop"]) == ("digits", "iid", "softmax", 0)
    assert len(found["model_digest"]) == 64


def test_the_same_seed_gives_the_same_run():
    once, again = (as_json(*SMALL, "--drop", "0.3") for _ in range(2))
    for name in ("model_digest", "dropped", "aborted", "accuracy", "survivors"):
        assert once[name] == again[name]


def test_too_many_drops_abort_with_the_reason_and_the_next_round_is_tried():
    found = as_json(*SMALL, "--drop", "1")
    assert found["rounds"] == 3
    assert found["version"] == 0
    assert [entry["round"] for entry in found["aborted"]] == [1, 2, 3]
    assert all("messages that it needs" in entry["reason"] for entry in found["aborted"])
    assert all(entry["missing"] for entry in found["aborted"])
    assert found["bytes_a_member"]["up"] is None
    assert "aborted:" in run(*SMALL, "--drop", "1").stdout


def test_few_examples_a_member_are_remarked_on():
    assert "hardly any data" in run(*SMALL[2:], "--members", "500").stdout
    assert "hardly any data" not in run(*SMALL).stdout


def test_synthetic_digits_are_made_for_every_member():
    found = as_json("--members", "6", "--cohort", "3", "--rounds", "1", "--examples", "30")
    assert found["examples"] == [30, 30]
    assert found["parameters"] == 7850


def test_a_folder_of_shards_is_a_population(tmp_path):
    X, y = load_digits()  # noqa: N806
    for i in range(12):  # ten and more: numbers are not in the order of names
        save_shard(tmp_path / f"client_{i + 1}_data.npy", X[i * 40 : i * 40 + 20 + i], y[i * 40 :][: 20 + i])
    with pytest.raises(ShardError, match="test_data"):
        run("--data", f"npy:{tmp_path}")
    save_shard(tmp_path / "test_data.npy", X[1000:], y[1000:])
    found = as_json("--data", f"npy:{tmp_path}", "--cohort", "5", "--rounds", "2")
    assert (found["members"], found["examples"], found["parameters"]) == (12, [20, 31], 650)
    with pytest.raises(ParameterError, match="12 shards"):
        run("--data", f"npy:{tmp_path}", "--members", "3")
    with pytest.raises(ParameterError, match="split already"):
        run("--data", f"npy:{tmp_path}", "--split", "iid")


def test_one_shard_of_pixels_is_split_and_scaled(tmp_path):
    path = save_shard(tmp_path / "pixels.npy", *synthetic_digits(500, seed=1))
    found = as_json("--data", str(path), "--members", "8", "--split", "shards:2", "--rounds", "2")
    assert found["examples"] == [50, 50]
    assert found["accuracy"][-1] > 0.3


def test_a_model_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from choral.learning import Evaluation\n"
        "class Constant:\n"
        "    def initial(self, rng): return {'w': np.zeros(3, np.float32)}\n"
        "    def train(self, p, X, y, rng): return {'w': p['w'] + np.float32(0.5)}\n"
        "    def evaluate(self, p, X, y): return Evaluation(len(y), int(p['w'][0] * len(y) / 4), 0.0)\n"
    )
    found = as_json(*SMALL, "--model", f"{tmp_path / 'mine.py'}:Constant")
    assert found["parameters"] == 3
    np.testing.assert_allclose(found["accuracy"], [0.125, 0.25, 0.375], atol=0.01)


def test_a_model_that_does_not_classify_has_no_accuracy(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from choral.learning import Evaluation\n"
        "class Mean:\n"
        "    def initial(self, rng): return {'w': np.zeros(3, np.float32)}\n"
        "    def train(self, p, X, y, rng): return {'w': p['w'] + np.float32(0.5)}\n"
        "    def evaluate(self, p, X, y): return Evaluation(len(y), 0, 1.0, classified=False)\n"
    )
    found = run(*SMALL, "--model", f"{tmp_path / 'mine.py'}:Mean", "--json")
    assert "0.0%" not in found.stderr
    assert "nan" not in found.stderr
    assert json.loads(found.stdout)["accuracy"] == [None] * 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--cohort", "30"], "cohorts of 30"),
        (["--split", "dice"], "dice"),
        (["--data", "no-such.npy"], "no-such"),
        (["--data", "npy:no-such"], "client_"),
        (["--option", "depth=3"], "depth"),
        (["--model", "forest"], "forest"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(arguments, reason):
    with pytest.raises((ParameterError, ShardError), match=reason):
        run(*SMALL, *arguments)


def test_a_word_that_is_no_number_of_members_is_refused_as_an_option():
    done = CliRunner().invoke(cli, ["simulate", *SMALL, "--tolerated", "half"])
    assert done.exit_code == 2
    assert "expected a number of members, or quarter" in done.stderr


def test_ctrl_c_ends_with_what_is_known_and_no_traceback():
    command = [
        sys.executable,
        "-m",
        "choral",
        "simulate",
        *SMALL[:4],
        "--rounds",
        "100000",
        "--data",
        "digits",
    ]
    process = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while "round " not in (line := process.stderr.readline()):
            assert line, "ended by itself"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "seconds a round" in err
    assert json.loads(out)["rounds"] >= 1


def test_help_has_an_example():
    assert "choral simulate --members 1000 --cohort 100" in run("--help").stdout
