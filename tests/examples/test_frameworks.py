"""The examples for PyTorch and scikit-learn, as a person would run them: three members over HTTP."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e


def choral(*arguments, **more):
    command = [sys.executable, "-m", "choral", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, **more)


@contextlib.contextmanager
def serving(folder, log):
    with log.open("wb") as file:
        server = subprocess.Popen([sys.executable, "-m", "choral", "serve", folder], stdout=file, stderr=file)
        try:
            yield
        finally:
            server.terminate()
            server.wait(20)


def federation(tmp_path, model, rounds, *options):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    choral("data", "split", tmp_path / "shards", "--split", "label")
    choral(
        "init", tmp_path / "fed", "--members", 3, "--shards", tmp_path / "shards", "--rounds", rounds,
        "--url", f"http://127.0.0.1:{port}", "--model", model, *options,
    )  # fmt: skip


def train(tmp_path, member):
    """Run all members: `member(folder, shard)` gives the command line of one."""
    members = []
    for number in (1, 2, 3):
        command = member(tmp_path / f"fed/member-{number}", tmp_path / f"shards/client_{number}_data.npy")
        with (tmp_path / f"member-{number}.log").open("wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            members.append(subprocess.Popen([*map(str, command)], stdout=log, stderr=log, env=environment))
    try:
        deadline = time.monotonic() + 240
        for process in members:
            assert process.wait(deadline - time.monotonic()) == 0, [
                path.read_text()[-800:] for path in tmp_path.glob("*.log")
            ]
    finally:
        for process in members:
            process.kill()
            process.wait()


def accuracy(tmp_path, model, folder="aggregator", data="test_data.npy"):
    found = choral(
        "predict", tmp_path / "fed" / folder, "--data", tmp_path / "shards" / data, "--model", model, "--json"
    )
    return json.loads(found.stdout)["accuracy"]


@pytest.mark.parametrize(
    ("package", "example", "name", "rounds", "least"),
    [
        ("torch", "pytorch/net.py", "trainer", 12, 0.75),
        ("sklearn", "sklearn/linear.py", "trainer", 10, 0.8),
        ("sklearn", "sklearn/linear.py", "logistic", 10, 0.8),
    ],
)
def test_members_with_a_third_of_the_digits_each_learn_all_of_them(
    tmp_path, package, example, name, *, rounds, least
):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install choral[{package}]")
    script = ROOT / "examples" / example
    model = f"{script}:{name}"
    federation(tmp_path, model, rounds)

    def member(folder, shard):
        if name == "trainer":
            return sys.executable, script, folder, shard
        return sys.executable, "-m", "choral", "join", folder, "--data", shard, "--model", model

    with serving(tmp_path / "fed/aggregator", tmp_path / "serve.log"):
        train(tmp_path, member)
    assert accuracy(tmp_path, model) > least
    said = (tmp_path / "member-1.log").read_text()  # nobody waits before a silent terminal
    assert "trained on" in said
    assert "training is over" in said


def test_a_personal_head_is_kept_by_its_member_and_known_to_nobody_else(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: pip install choral[torch]")
    model = f"{ROOT / 'examples/pytorch/head.py'}:trainer"
    federation(tmp_path, model, 6)

    def member(folder, shard):
        return sys.executable, "-m", "choral", "join", folder, "--data", shard, "--model", model

    with serving(tmp_path / "fed/aggregator", tmp_path / "serve.log"):
        train(tmp_path, member)
        mine = accuracy(tmp_path, model, "member-1", "client_1_data.npy")
        others = accuracy(tmp_path, model, "member-2", "client_1_data.npy")
    assert mine > 0.9
    assert others < 0.2  # member 2 has never seen a digit of member 1: only its head tells them apart
    assert "head" not in (tmp_path / "fed/aggregator/task.toml").read_text()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        accuracy(tmp_path, model)
    assert "stay with the members" in caught.value.stderr
