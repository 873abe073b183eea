"""`choral demo`: real processes, a real SIGKILL, and what `--json` promises."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


def demo(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "choral", "demo", "--json", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


def test_a_member_killed_in_a_round_comes_back_and_the_model_is_nearly_as_good_as_with_all_data() -> None:
    found = demo()
    count = found["rounds"]
    assert count == len(found["accuracy"]) == len(found["survivors"]) == len(found["dropped"])
    victim = found["killed"]
    assert [victim] in found["dropped"], "the victim was killed in the middle of a round"
    there = [victim in names for names in found["survivors"]]
    assert there[0], "it took part before"
    assert not all(there), "it missed at least one sum"
    assert there[-1], "it came back"
    assert found["sum_exact"] is True
    assert max(found["accuracy_alone"]) < 0.35, "nobody alone knows more than a few digits"
    assert found["accuracy_pooled"] > 0.95
    assert found["accuracy"][-1] > found["accuracy_pooled"] - 0.02
    assert found["seconds"] < 60


def test_the_same_seed_gives_the_same_model() -> None:
    few = ("--no-kill", "--rounds", "4", "--members", "3", "--seed", "7")
    first, second = demo(*few), demo(*few)
    assert first["model_digest"] == second["model_digest"]
    assert first["accuracy"] == second["accuracy"]
    assert all(len(names) == 3 for names in first["survivors"])


def test_the_model_does_not_depend_on_the_sealing() -> None:
    pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')
    few = ("--no-kill", "--rounds", "3", "--members", "3", "--seed", "7")
    plain, sealed = demo(*few), demo(*few, "--sealing", "syft")
    assert sealed["sealing"] == "syft"
    assert sealed["sum_exact"] is True
    assert sealed["model_digest"] == plain["model_digest"]
    assert sealed["bytes_up_per_member"] > plain["bytes_up_per_member"] + 3 * 4187


def test_another_seed_model_split_and_data_give_another_model(tmp_path) -> None:
    few = ("--no-kill", "--rounds", "2", "--members", "3", "--model", "mlp")
    iid = demo(*few, "--split", "iid", "--out", str(tmp_path / "out"))
    shards = tmp_path / "out" / "shards"
    own = demo(*few, "--data", f"npy:{shards}", "--seed", "3")
    assert iid["model_digest"] != own["model_digest"]
    assert (tmp_path / "out" / "fed" / "aggregator" / "state" / "aggregator.sqlite").exists()
    assert own["accuracy"][-1] > 0.5
