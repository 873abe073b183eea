"""What others say goes into the log so that it can be read, and harms no terminal."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

import pytest
import structlog

from choral.cli.terminal import set_up_logs
from choral.service.logs import bounded


def fit(**event):
    return bounded(None, "info", event)


@pytest.fixture
def written(capsys):
    """What went to standard error since the last look."""
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        ["name" * 1000] * 15_000,
        {f"k{i}": ["v" * 1000] * 100 for i in range(5000)},
        [[[["x" * 1000] * 1000] * 100] * 100],
        b"\xff" * 100_000,
        10**5000,
        RuntimeError("x" * 100_000),
    ],
    ids=["text", "list", "map", "nested", "bytes", "number", "error"],
)
def test_a_line_is_short_whatever_is_in_it(written, form, value):
    set_up_logs(form)
    structlog.get_logger("t").info("something", found=value)
    assert 0 < len(written()) < 40_000


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_in_a_line_moves_a_cursor(written, form):
    set_up_logs(form)
    evil = "\x1b[2J\x1b]0;gone\x07\r\n\u202eevil\x9b31m"
    try:
        raise RuntimeError(evil)
    except RuntimeError:
        structlog.get_logger("t").exception(evil, name=evil, names=[evil], states={evil: {"deep": [evil]}})
    text = written()
    assert not set("\x1b\x07\r\u202e\x9b") & set(text)
    assert "[2J" in text  # it is told, only not done
    assert "RuntimeError" in text


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_that_cannot_be_written_costs_itself_alone(written, form, monkeypatch, tmp_path):
    log = structlog.get_logger("t")
    closed = (tmp_path / "log").open("w")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken, open("/dev/full", "w") as full:
        for stream in (closed, broken, full):
            monkeypatch.setattr(sys, "stderr", stream)
            set_up_logs(form)
            if stream is closed:
                closed.close()
            log.info("something")
            try:
                raise RuntimeError("why")
            except RuntimeError:
                log.exception("it failed")
        for stream in (broken, full):  # what is left in their buffers can only be lost
            with suppress(OSError):
                stream.close()
    monkeypatch.undo()
    set_up_logs(form)
    log.info("and it goes on")
    assert "and it goes on" in written()


def test_what_is_left_out_is_counted():
    found = fit(names=[f"m{i}" for i in range(44)], few=["a"], by={str(i): i for i in range(40)})
    assert found["names"][31:] == ["m31", "… and 12 more"]
    assert found["few"] == ["a"]
    assert found["by"]["…"] == "and 8 more"


def test_what_is_short_is_left_as_it_is():
    event = {"event": "a cohort closed", "n": 3, "share": 0.5, "on": True, "none": None, "who": ("m1", "m2")}
    assert fit(**event) == {**event, "who": ["m1", "m2"]}
    assert json.dumps(fit(big=10**30))


def test_of_a_long_traceback_the_end_is_kept():
    found = fit(exception="first\n" + "x" * 100_000 + "\nRuntimeError: why")["exception"]
    assert found.endswith("\nRuntimeError: why")
    assert len(found) < 20_000
