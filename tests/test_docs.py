"""What the documentation says holds: Python runs, verbs and options are there, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from choral.cli import cli
from choral.data import load_digits

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ----- Python ---------------------------------------------------------------------------------


def blocks(page: Path) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language == "python"]


def surroundings(page: str) -> dict[str, Any]:
    """What a page takes for granted: a reader's own arrays, or a module."""
    if page == "docs/data.md":
        X, y = load_digits()  # noqa: N806
        images = np.repeat(np.repeat(X.reshape(-1, 8, 8), 4, 1), 4, 2)[:, 2:30, 2:30]
        return {"np": np, "X": images, "y": y, "d": 64, "names": np.array(["cat", "dog"])[y % 2]}
    if page == "docs/models.md":
        torch = pytest.importorskip("torch", reason="torch is not installed: pip install choral[torch]")
        from choral.client.torch import TorchTrainer  # noqa: PLC0415

        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        return {"torch": torch, "TorchTrainer": TorchTrainer, "net": net, "participate": lambda *given: None}
    return {}


WITH_PYTHON = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "docs", **surroundings(name_of(page))}
    for block in blocks(page):
        exec(compile(block, name_of(page), "exec"), space)


DOCTESTS = [path for path in sorted((ROOT / "src").rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", DOCTESTS, ids=name_of)
def test_examples_in_docstrings_give_what_they_say(path) -> None:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    try:
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# ----- commands -------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """Every `choral VERB …` of a page, in words; `./run VERB` is the same."""
    for language, text in FENCE.findall(page.read_text()):
        if language not in ("sh", "console", ""):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"[|;]|&&", line.removeprefix("$ ")):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:
                    continue  # what a command printed
                for at, word in enumerate(words):
                    named = at and words[at - 1] in ("-n", "-t")  # a namespace, an image
                    if word in ("choral", "./run") and not named and at + 1 < len(words):
                        yield words[at + 1 :]
                        break


def verb(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """The command that the words call, and the rest of them."""
    found: click.Command | None = cli
    while isinstance(found, click.Group) and words:
        found, words = found.commands.get(words[0]), words[1:]
    return found, words


OTHER = {"test", "bench", "VERB", "--help"}  # of `./run` itself
CALLS = [
    pytest.param(words, id=f"{name_of(page)}: {' '.join(words)[:60]}")
    for page in PAGES
    for words in commands(page)
    if words[0] not in OTHER and words[0] != "python" and not words[0].startswith(("-", "/"))
]


@pytest.mark.parametrize("words", CALLS)
def test_a_command_in_the_documentation_has_that_verb_and_those_options(words) -> None:
    found, rest = verb(words)
    assert found is not None, f"there is no `choral {' '.join(words[:2])}`"
    options = {name for each in found.params for name in (*each.opts, *each.secondary_opts)} | {
        "--help",
        "-h",
    }
    used = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
    assert used <= options, f"`choral {' '.join(words)}`"


def test_commands_are_found_at_all() -> None:
    assert len(CALLS) > 30


# ----- links ----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", head).lower()) for head in heads]
    return {head.replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), target
        if anchor and where.suffix == ".md":
            assert anchor in anchors(where), target
