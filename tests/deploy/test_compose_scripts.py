"""What docker-compose.yml's two scripts do, without a container: keys once, then a word for other wishes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; kubernetes-validate brings it")
ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy/compose"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ASKED = {
    "MEMBERS": "2", "ROUNDS": "20", "RATE": "0.2", "EPOCHS": "3", "MODEL": "softmax", "DATA": "digits",
    "EXAMPLES": "100", "URL": "https://aggregator:8750", "NAMES": "localhost",
}  # fmt: skip


def provision(home: Path, **asked: str) -> subprocess.CompletedProcess[str]:
    tools = home.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name, module in (("choral", ["-m", "choral"]), ("python", [])):
        (tools / name).write_text("#!/bin/sh\nexec " + " ".join([sys.executable, *module]) + ' "$@"\n')
        (tools / name).chmod(0o755)
    environment = {
        **os.environ, **ASKED, **asked,
        "PATH": f"{tools}:{os.environ['PATH']}", "PROVISION": str(home), "TMPDIR": str(home.parent),
    }  # fmt: skip
    return subprocess.run(
        ["sh", SCRIPTS / "provision.sh"], env=environment, capture_output=True, text=True, check=False
    )


def volumes(home: Path) -> Path:
    for name in ("aggregator", "ca", *(str(i) for i in range(1, 9)), *(f"shard-{i}" for i in range(1, 9))):
        (home / name).mkdir(parents=True)
    return home


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The volumes of a federation of two."""
    pytest.importorskip("syft_crypto_python", reason="choral[syft] is not installed")
    home = volumes(tmp_path_factory.mktemp("volumes") / "home")
    done = provision(home)
    assert done.returncode == 0, done.stderr
    return home


def keys(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.suffix in (".pem", ".toml")}


def test_a_number_that_cannot_be_is_refused_where_nothing_is_there(tmp_path) -> None:
    done = provision(volumes(tmp_path / "home"), MEMBERS="9")
    assert done.returncode == 1
    assert "found COMPOSE_PROFILES=9, expected a number of members from 2 to 8" in done.stderr


@pytest.mark.parametrize("members", ["3", "9", "two"])
def test_another_number_of_members_is_told_and_changes_nothing(made, members) -> None:
    before = keys(made)
    done = provision(made, MEMBERS=members)
    assert done.returncode == 0  # a failure would take the running aggregator down
    assert f"this federation has 2 members, COMPOSE_PROFILES={members} was asked for" in done.stdout
    assert "COMPOSE_PROFILES=2" in (made / "1/notice").read_text()
    assert "client3 is no member: this federation was made for 2" in (made / "3/no-member").read_text()
    assert keys(made) == before
    assert provision(made).stdout == ""  # the right number again: nothing to say
    assert (made / "1/notice").read_text() == ""


def test_another_task_is_told_and_changes_nothing(made) -> None:
    before = keys(made)
    done = provision(made, ROUNDS="30")
    assert done.returncode == 0
    assert "task is fixed: ROUNDS=20 RATE=0.2" in done.stdout
    assert "ROUNDS=30 RATE=0.2" in (made / "2/notice").read_text()
    assert keys(made) == before


def member(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "CHORAL_FOLDER": str(folder)}
    return subprocess.Popen(
        ["sh", SCRIPTS / "member.sh", *command], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_somebody_who_is_no_member_is_told_so_and_ends(made) -> None:
    process = member(made / "5", "false")
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "client5 is no member: this federation was made for 2" in said


@pytest.mark.parametrize(("ends", "leaves"), [(0, 0), (1, 0), (2, 0), (75, 75), (137, 137)])
def test_what_a_restart_cannot_mend_is_not_restarted(made, ends, leaves) -> None:
    """`restart: on-failure` starts again whatever ends with another code than 0."""
    process = member(made / "1", "sh", "-c", f"exit {ends}")
    said, _ = process.communicate(timeout=10)
    assert process.returncode == leaves
    assert ("not started again" in said) == (ends in (1, 2))


def test_a_signal_reaches_the_member_and_its_last_words_are_waited_for(made, tmp_path) -> None:
    heard, up = tmp_path / "heard", tmp_path / "up"
    script = f"trap 'sleep 0.2; touch {heard}; exit 143' TERM; touch {up}; while :; do sleep 0.05; done"
    process = member(made / "1", "sh", "-c", script)
    while not up.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert heard.exists()
    assert process.returncode == 143


# ----- the file -------------------------------------------------------------------------------


def test_every_participant_goes_to_the_aggregator_without_a_proxy() -> None:
    for name, service in COMPOSE["services"].items():
        if name != "provision":  # which has no network
            assert "aggregator" in service["environment"]["NO_PROXY"].split(",")
            assert service["environment"]["no_proxy"] == service["environment"]["NO_PROXY"]


def test_every_variable_of_the_file_stands_in_the_table() -> None:
    """docs/operating.md, Containers."""
    text = (ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    table = (ROOT / "docs/operating.md").read_text().split("## Containers")[1].split("\n## ")[0]
    told = set(
        re.findall(r"`([A-Z_]+)`", "\n".join(row for row in table.splitlines() if row.startswith("|")))
    )
    assert used == told


def test_a_process_that_an_init_starts_hears_signals_from_its_first_second() -> None:
    assert all(service["init"] for service in COMPOSE["services"].values())
