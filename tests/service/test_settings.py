"""Where a knob's value comes from."""

from __future__ import annotations

import pytest

from choral.errors import ParameterError
from choral.service.settings import load

URL = "http://127.0.0.1:8750"


def test_the_command_line_goes_before_the_environment_and_that_before_secrets_and_file(tmp_path, monkeypatch):
    (tmp_path / "settings.toml").write_text(
        "port = 1\nphase_seconds = 1\ngone_seconds = 1\njoin_seconds = 1\n"
    )
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("port", "phase_seconds", "gone_seconds"):
        (secrets / f"choral_{name}").write_text("2")
    monkeypatch.setenv("CHORAL_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("CHORAL_PORT", "3")
    monkeypatch.setenv("CHORAL_PHASE_SECONDS", "3")
    found = load(tmp_path, URL, port=4)
    assert (found.port, found.phase_seconds, found.gone_seconds, found.join_seconds) == (4, 3, 2, 1)


def test_by_default_it_listens_where_the_federation_looks_for_it(tmp_path):
    assert (load(tmp_path, URL).host, load(tmp_path, URL).port) == ("127.0.0.1", 8750)
    assert load(tmp_path, "https://choral.example.org").host == "0.0.0.0"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("port = 99999", "port"),
        ("prot = 1", "prot"),
        ("join_seconds = -1", "join_seconds"),
        ("wait_seconds = 31", "members hang up on an answer that takes 40 s"),
        ("connections = 3", "connections"),
    ],
)
def test_a_wrong_knob_is_named(tmp_path, line, says):
    (tmp_path / "settings.toml").write_text(line)
    with pytest.raises(ParameterError, match=says):
        load(tmp_path, URL)
