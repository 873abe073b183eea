"""Progress on a terminal, silence elsewhere, and logs that nobody can draw with."""

from __future__ import annotations

import io
import json
import sys
import time

import pytest
import structlog
from rich.console import Console

from choral.cli import terminal


@pytest.fixture
def screen(monkeypatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=out, force_terminal=True, width=100))
    monkeypatch.setattr(terminal, "_SLOW", 0.05)
    return out


def test_what_takes_long_shows_how_far_it_is_and_how_long_still(screen):
    for _ in terminal.steps(range(8), "[bold]counting[/]", 8):
        time.sleep(0.05)
    said = screen.getvalue()
    assert "[bold]counting[/]" in said  # as text: it may be a file's name
    assert "/8" in said
    assert "0:00:" in said


def test_what_is_quick_shows_nothing(screen):
    assert list(terminal.steps(range(3), "counting", 3)) == [0, 1, 2]
    with terminal.working("reading"):
        pass
    assert screen.getvalue() == ""


def test_the_screen_is_left_as_it_was_also_after_ctrl_c(screen):
    def interrupted() -> None:
        with terminal.working("reading"):
            time.sleep(0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    said = screen.getvalue()
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is back


def test_nothing_is_drawn_where_there_is_no_terminal(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=out))
    monkeypatch.setattr(terminal, "_SLOW", 0.01)
    with terminal.bar("reading", 10) as advance:
        time.sleep(0.05)
        advance(5)
    assert out.getvalue() == ""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_line_cannot_move_the_cursor_and_shows_no_variable(form, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    try:
        terminal.set_up_logs(form)
        log = structlog.get_logger()
        log.warning("a member left the round", member="m1", round="ab", reason="\x1b[2J\rgone\nINFO fake")
        try:
            update = [3.14159, 2.71828]
            raise ValueError("on purpose" + "!" * len(update))
        except ValueError:
            log.exception("a round failed", round="ab")
    finally:
        structlog.reset_defaults()
    said = out.getvalue()
    assert "\x1b[2J" not in said
    assert "\nINFO fake" not in said
    assert "on purpose!!" in said
    assert "3.14159, 2.71828]" not in said.replace("update = [3.14159, 2.71828]", "")
    if form == "json":
        first = json.loads(said.splitlines()[0])
        assert (first["member"], first["round"], first["level"]) == ("m1", "ab", "warning")
