"""A clone is the same on every system, and what the README's commands write is not committed by accident."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from locks import ROOT


def git(*arguments: object, cwd: Path = ROOT) -> str:
    # nobody's own settings: attributes and excludes are the repository's
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    ran = subprocess.run(
        ["git", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def clone(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is here by a git that is set to write CRLF, as on Windows."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "clone"))
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    git("init", "-q", cwd=source)
    git("add", "-A", cwd=source)
    git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "all", cwd=source)
    git("clone", "-q", "-c", "core.autocrlf=true", "-c", "core.eol=crlf", source, target)
    return target


def test_a_clone_with_crlf_has_every_byte_as_it_is_here(clone: Path, tracked: list[str]) -> None:
    assert [name for name in tracked if (clone / name).read_bytes() != (ROOT / name).read_bytes()] == []


def test_run_starts_in_a_clone_with_crlf(clone: Path, tmp_path: Path) -> None:
    """As far as its first sentence, on a machine without Python."""
    for tool in ("sh", "dirname", "basename", "cmp"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    ran = subprocess.run(
        ["sh", clone / "run", "demo"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr[:34]) == (1, "run: no Python 3.11 or newer found")


@pytest.mark.usefixtures("tracked")
def test_what_the_commands_of_the_readme_write_is_ignored() -> None:
    """Every word of a command that looks like a path and is not in the repository is one that it made."""
    commands = re.findall(r"(?:^|`)\./run ([a-z][^`\n#]*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    words = {word.rstrip("/") for line in commands for word in line.split() if re.search(r"[a-z][./]", word)}
    made = sorted(
        word
        for word in words
        if "=" not in word and not (ROOT / word.split(":")[0]).exists() and word[0] != "-"
    )
    assert {"out.safetensors", "report.html"} <= set(made)
    ran = subprocess.run(
        ["git", "check-ignore", "--stdin"], cwd=ROOT, input="\n".join(f"{word}/x\n{word}" for word in made),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert set(made) - {line.removesuffix("/x") for line in ran.stdout.splitlines()} == set()
