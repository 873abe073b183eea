"""Progress on a terminal, silence elsewhere, and logs that nobody can draw with."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest
import structlog
from rich.console import Console
from rich.table import Table
from rich.text import Text

from choral.cli import federation, main, terminal, watch
from choral.cli.member_lines import member_line
from choral.client.events import PutOff
from choral.errors import PeerError
from choral.service.rounds.room import unsaved


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


HOSTILE = "m\x1b[2J\x1b]0;title\x07\r\n[red]x"


@pytest.mark.parametrize("thing", ["line", "markup", "table", "text"])
def test_what_others_wrote_cannot_steer_a_terminal(thing, capsys):
    screen = terminal.Harmless(force_terminal=True, width=60, highlight=False)
    things = {
        "line": HOSTILE,
        "markup": f"[bold]{terminal.escape(HOSTILE)}[/]",
        "table": Table("name", box=None),
        "text": Text(HOSTILE, "green"),
    }
    things["table"].add_row(terminal.escape(HOSTILE))
    screen.print(things[thing])
    said = capsys.readouterr().out
    assert "m?[2J?]0;tit" in said
    for steering in ("\x1b[2J", "\x1b]0", "\x07", "\r"):
        assert steering not in said


def test_an_error_cannot_steer_a_terminal_either(capsys):
    error = PeerError(HOSTILE, culprits=[HOSTILE], hint=HOSTILE)
    terminal.complain(error)
    said = capsys.readouterr().err
    assert not set("\x1b\x07\r") & set(said)
    assert "[red]x" in said


def test_a_path_is_never_markup(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "console", terminal.Harmless(width=80, highlight=False))
    terminal.say("[bold]{}[/]: {:.1f}, {}", Path("a[/]b[red]"), 1.25, "[x]")
    assert capsys.readouterr().out == "a[/]b[red]: 1.2, [x]\n"


def test_a_state_from_the_aggregator_is_shown_as_text(capsys, monkeypatch):
    cohort = {
        "round": HOSTILE, "base": 1, "phase": HOSTILE, "in": {HOSTILE: [HOSTILE]}, "needed": 3,
        "awaited": [HOSTILE], "seconds_left": 3.0, "apart": {HOSTILE: HOSTILE},
    }  # fmt: skip
    told = {
        "federation": HOSTILE, "version": 1, "rounds": 5, "over": False, "accuracy_before": None,
        "members": {HOSTILE: {"connected": True, "resting": "spent"}}, "cohorts": [cohort], "stuck": HOSTILE,
        "kept_out": {HOSTILE: {"round": HOSTILE, "reason": HOSTILE, "since": 0.0}},
    }  # fmt: skip
    monkeypatch.setattr(federation, "status_of", lambda where, ca: told)
    main(["status", "http://127.0.0.1:9"])
    said = capsys.readouterr().out
    assert not set("\x1b\x07\r") & set(said)
    assert said.count("[red]x") >= 10


def test_a_full_disk_at_the_aggregator_is_not_told_as_an_aggregator_that_is_away():
    error = unsaved(OSError(28, "No space left on device"))
    line = member_line(PutOff("http://a", error.reason, error.slug))
    assert line == (
        "[yellow]not now:[/] the aggregator cannot save anything now: No space left on device; trying on"
    )


@pytest.mark.parametrize("verb", ["status", "watch"])
@pytest.mark.parametrize(
    "answer",
    [{}, [], None, 7, "x", {"state": {}, "live": {}}, {"federation": 1, "version": "[/]", "rounds": {}}],
)
def test_an_answer_of_something_else_is_told_as_such(verb, answer, monkeypatch, capsys):
    monkeypatch.setattr(federation, "status_of", lambda where, ca: answer)
    monkeypatch.setattr(watch, "snapshot_of", lambda where, ca: answer)
    with pytest.raises(SystemExit) as end:
        main([verb, "http://127.0.0.1:9"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9 answers, and not as an aggregator of this version does" in said
    assert "hint:" in said
