"""How things look in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from choral.cli.terminal import member_line, percent, size


def test_what_others_say_is_shown_and_not_taken_for_markup() -> None:
    line = member_line(
        "aborted", {"reason": "[/red] [bold]x", "missing": ["[link=evil]m[/x]"], "spent": False}
    )
    out = io.StringIO()
    Console(file=out, width=200).print(line)
    assert "[/red] [bold]x" in out.getvalue()
    assert "[link=evil]m[/x]" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 B"), (999, "999 B"), (4256, "4.3 kB"), (4.2e6, "4.2 MB"), (4e10, "40.0 GB")]
)
def test_bytes_for_people(value, shown) -> None:
    assert size(value) == shown


def test_no_accuracy_is_a_dash() -> None:
    assert percent(None) == "–"
    assert percent(0.9302) == "93.0%"
