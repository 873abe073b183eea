"""Decisions are dated, say whether they hold, and stand in the index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "docs/decisions"
HEAD = re.compile(r"# (\d+)\. (.+)\n\n(\d{4}-\d\d-\d\d)\. Status: (accepted|superseded)(.*)\n")


class Decision(NamedTuple):
    file: str
    number: int
    title: str
    date: str
    status: str


def decisions() -> list[Decision]:
    found = []
    for path in sorted(FOLDER.glob("0*.md")):
        head = HEAD.match(path.read_text())
        assert head, f"{path.name}: expected '# N. Title', a blank line, 'YYYY-MM-DD. Status: accepted.'"
        by = re.search(r"superseded by \[(\d+)\]", head[0])
        found.append(
            Decision(
                path.name, int(head[1]), head[2], head[3], f"superseded by {by[1]}" if by else "accepted"
            )
        )
    return found


def test_every_decision_has_its_number_a_date_and_a_status() -> None:
    for each in decisions():
        assert each.file.startswith(f"{each.number:04}-")


def test_the_index_has_every_decision_and_says_what_holds() -> None:
    rows = [f"| [{d.number}]({d.file}) | {d.date} | {d.title} | {d.status} |" for d in decisions()]
    found = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert found == rows


def test_a_decision_is_a_page_at_most() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("0*.md")}
    assert not {name: lines for name, lines in long.items() if lines > 64}  # lines of a page


def test_what_supersedes_a_decision_is_a_decision() -> None:
    numbers = {each.number for each in decisions()}
    for each in decisions():
        if each.status != "accepted":
            assert int(each.status.split()[-1]) in numbers
