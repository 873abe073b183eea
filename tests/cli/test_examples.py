"""The examples do what they say, as a newcomer would run them: real processes, real HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "numpy_model.py"
MODEL = f"{EXAMPLE}:Centroids"
ROUNDS = 6


def choral(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "choral", *map(str, arguments)]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.e2e
def test_a_model_and_data_of_your_own_become_better_than_any_member_alone(tmp_path: Path) -> None:
    shards, fed = tmp_path / "shards", tmp_path / "fed"
    run([sys.executable, str(EXAMPLE), str(shards)])
    url = f"http://127.0.0.1:{free_port()}"
    run(choral("init", fed, "--members", 3, "--shards", shards, "--classes", 3, "--rounds", ROUNDS,
               "--model", MODEL, "--url", url))  # fmt: skip
    with (tmp_path / "serve.log").open("wb") as log:
        aggregator = subprocess.Popen(choral("serve", fed / "aggregator"), stdout=log, stderr=log)
        try:
            members = [
                subprocess.Popen(
                    choral("join", fed / f"member-{i}", "--data", shards / f"client_{i}_data.npy",
                           "--model", MODEL, "--json"),
                    stdout=subprocess.PIPE, text=True,
                )
                for i in (1, 2, 3)
            ]  # fmt: skip
            try:
                told = [member.communicate(timeout=60)[0] for member in members]
            finally:
                for member in members:
                    member.kill()
            assert [member.returncode for member in members] == [0, 0, 0], told
            log_of_a_member = run(choral("log", fed / "member-1", "--json"))
        finally:
            aggregator.terminate()
            aggregator.wait(20)

    records = [json.loads(line) for line in log_of_a_member.splitlines()]
    assert [record["version"] for record in records] == list(range(ROUNDS + 1))
    measured = [record["accuracy"] for record in records[:-1]]
    # two of three kinds is all that a garden knows by itself
    assert measured[0] < 1 / 2
    assert measured[-1] > 4 / 5
    found = run(choral("predict", fed / "aggregator", "--data", shards / "test_data.npy",
                       "--model", MODEL, "--json"))  # fmt: skip
    assert json.loads(found)["accuracy"] > 4 / 5
