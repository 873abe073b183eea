"""The README's commands are the ones that other tests run, and what it links to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:^|`)\./run ([a-z][^`\n#]*?)\s*(?:`|#|$)", README, re.MULTILINE)))


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[0] not in ("test", "bench")])
def test_every_command_in_it_has_these_options(command: str) -> None:
    """Each verb with each of its options: `--help` knows them. What they do is tested by hand and demo."""
    words = command.split()
    verb = []
    for word in words:
        if (
            word.startswith("-")
            or not word.isalpha()
            or (verb and verb[0] not in ("data", "model", "kubernetes"))
        ):
            break
        verb.append(word)
    done = subprocess.run(
        [sys.executable, "-m", "choral", *verb, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for option in (word for word in words if word.startswith("-") and word != "--help"):
        assert re.search(rf"{option}\b", done.stdout), f"{option} of {command!r}"


def test_there_is_a_demo_a_test_and_a_federation_by_hand() -> None:
    verbs = {command.split()[0] for command in COMMANDS}
    assert {"demo", "test", "bench", "init", "serve", "join", "status", "log", "predict", "simulate"} <= verbs
