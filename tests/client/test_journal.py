"""The member's memory: durable, exclusive, whole."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from choral.client.journal import FILE, NOTHING, Journal
from choral.errors import ParameterError, SpentError, TwoProcesses
from choral.federation.records import NONE, Record
from choral.protocol import wire

BASE = Record(0, bytes(32), b"\x01" * 32, bytes(32), NONE, NONE, NONE, (), (), bytes(64))


@pytest.fixture
def journal(tmp_path):
    found = Journal(tmp_path)
    yield found
    found.close()


def test_an_update_is_spent_once_and_in_one_round(journal):
    journal.spend(b"a" * 32, BASE, b"x" * 32)
    assert journal.spent(BASE, b"x" * 32)
    assert not journal.spent(BASE, b"y" * 32)
    for round_id, digest in ((b"b" * 32, b"x" * 32), (b"a" * 32, b"y" * 32)):
        with pytest.raises(SpentError, match="sent before"):
            journal.spend(round_id, BASE, digest)
    assert journal.attempts(BASE) == 1
    assert journal.last().round_id == b"a" * 32


def test_what_was_sent_from_a_model_is_counted_under_whatever_version_it_appears(journal):
    journal.spend(b"a" * 32, BASE, b"x" * 32)
    journal.spend(b"b" * 32, replace(BASE, version=7), b"y" * 32)
    assert journal.attempts(replace(BASE, version=9)) == 2
    assert journal.attempts(replace(BASE, parameters=bytes(32))) == 0


def test_the_newest_record_is_remembered(tmp_path):
    for version in range(3):
        journal = Journal(tmp_path)
        assert (journal.head().version if journal.head() else -1) == version - 1
        journal.saw(replace(BASE, version=version))
        journal.close()


def test_one_process_a_member(tmp_path, journal):
    with pytest.raises(TwoProcesses, match="another process is running as this member") as error:
        Journal(tmp_path)
    assert error.value.hint
    journal.close()
    Journal(tmp_path).close()


@pytest.mark.parametrize(
    "content",
    [b"not a database, but long enough to be looked at" * 100, b"SQLite format 3\0" + b"\xff" * 4096],
)
def test_a_journal_that_is_damaged_is_an_error_and_never_an_empty_one(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ParameterError, match="journal"):
        Journal(tmp_path)


def test_a_state_folder_that_cannot_be_one_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="state folder"):
        Journal(tmp_path / "file")


def test_a_journal_that_cannot_be_written_stops_the_sending(tmp_path):
    journal = Journal(tmp_path)
    journal._db.execute("pragma query_only = on")
    with pytest.raises(ParameterError, match="cannot be used"):
        journal.spend(b"a" * 32, BASE, b"x" * 32)
    journal.close()


def test_what_is_spent_survives_a_kill_right_after(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_journal import BASE, Journal
journal = Journal(Path(sys.argv[1]))
for i in range(5):
    journal.spend(bytes([i]) * 32, BASE, bytes([i]) * 32)
    os.write(1, b"%d\\n" % i)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run(
        [sys.executable, "-c", code, tmp_path, Path(__file__).parent], capture_output=True, check=False
    )
    assert process.returncode == -9, process.stderr
    journal = Journal(tmp_path)
    assert journal.attempts(BASE) == len(process.stdout.split()) == 5
    journal.close()


def test_a_journal_of_an_earlier_release_is_taken_over_with_all_its_rows(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as db:
        db.executescript("""
            create table head (one integer primary key check (one = 1), data blob not null);
            create table spent (
                round_id blob primary key, base integer not null, parameters blob not null,
                digest blob not null
            );
            create unique index spent_once on spent (digest);
        """)
        db.execute("insert into head values (1, ?)", (wire.encode(BASE),))
        for i in range(4):
            db.execute(
                "insert into spent values (?, ?, ?, ?)", (bytes([i]) * 32, i, BASE.parameters, bytes([i]))
            )
    db.close()
    (tmp_path / FILE).chmod(0o644)
    for _ in range(2):
        journal = Journal(tmp_path)
        assert journal.head() == BASE
        assert journal.attempts(BASE) == journal.told(BASE) == journal.sent() == 4
        assert journal.spent(BASE, bytes([2]))
        assert journal.last().round_id == bytes([3]) * 32
        with pytest.raises(SpentError):
            journal.spend(b"z" * 32, BASE, bytes([2]))
        journal.close()
    journal = Journal(tmp_path)
    journal.spend(b"z" * 32, replace(BASE, parameters=bytes(32)), bytes([2]))  # the same from another model
    journal.close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_vector_that_says_nothing_may_go_out_again_and_counts_as_an_attempt(journal):
    for i in range(3):
        journal.spend(bytes([i]) * 32, BASE, NOTHING)
    assert (journal.attempts(BASE), journal.told(BASE), journal.sent()) == (3, 0, 3)


def test_a_journal_of_a_later_release_is_left_alone(tmp_path):
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(ParameterError, match="layout 99 is of a later release"):
        Journal(tmp_path)
