"""What the aggregator keeps, who it thinks is there, and how it is set."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from choral.errors import Ending, ParameterError, RecordError, RoundAborted
from choral.founding.folders import INITIAL
from choral.learning import model_file
from choral.learning.update import flatten
from choral.protocol.aggregator import Total
from choral.service import settings
from choral.service.rounds.presence import Presence
from choral.service.state import sqlite as stores
from choral.service.state.facts import Facts, RoundRow
from choral.service.state.sqlite import FILE, Store
from choral.service.training import Training
from choral.vectors.fixed_point import encode
from choral.vectors.totals import Totals
from house import House, make_folder


@pytest.fixture
def home(tmp_path):
    return House(make_folder(tmp_path / "fed", 3))


def row(number: int, state: str = "open") -> RoundRow:
    return RoundRow(bytes([number]) * 32, 0, float(number), state)


# ----- the store ------------------------------------------------------------------------------


def test_one_aggregator_a_store_and_the_lock_goes_with_it(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(ParameterError, match="another aggregator") as error:
        Store(tmp_path)
    assert "stop that one first" in error.value.hint
    reader = Store(tmp_path, read_only=True)
    assert reader.head() is None
    reader.close()
    first.close()
    Store(tmp_path).close()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_what_the_aggregator_keeps_is_its_owners_only(tmp_path):
    previous = os.umask(0o022)
    try:
        store = Store(tmp_path / "new" / "state")
        store.put_round(row(1))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new/state").iterdir()}
        assert set(modes) >= {FILE, f"{FILE}-wal", "lock"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "new/state").stat().st_mode) == 0o700
        store.close()
        (tmp_path / "old").mkdir(mode=0o750)
        (tmp_path / "old" / FILE).touch(0o644)
        Store(tmp_path / "old").close()
        assert stat.S_IMODE((tmp_path / "old" / FILE).stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o750  # somebody chose that
    finally:
        os.umask(previous)


def test_a_process_that_was_killed_leaves_no_lock(tmp_path):
    code = "import sys, time, pathlib; from choral.service.state.sqlite import Store;"
    code += "s = Store(pathlib.Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(ParameterError, match="another aggregator"):
            Store(tmp_path)
        Store(tmp_path, read_only=True).close()
        process.kill()
    Store(tmp_path).close()


def test_a_reader_changes_nothing_and_needs_a_file(tmp_path):
    with pytest.raises(ParameterError, match="no such file"):
        Store(tmp_path, read_only=True)
    assert not list(tmp_path.iterdir())
    Store(tmp_path).close()
    reader = Store(tmp_path, read_only=True)
    with pytest.raises(sqlite3.Error):
        reader.put_round(row(1))
    reader.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_layout_is_refused_and_left_alone(tmp_path, read_only):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("pragma user_version = 99")
    for _ in range(2):  # also a second time: nothing stays locked
        with pytest.raises(ParameterError, match="newer Choral"):
            Store(tmp_path, read_only=read_only)


def test_a_file_that_is_no_database_is_an_error(tmp_path):
    (tmp_path / FILE).write_bytes(b"something else entirely" * 500)
    with pytest.raises(ParameterError, match="cannot be opened"):
        Store(tmp_path)


def test_rounds_that_were_open_are_over_after_a_restart_and_done_ones_stay(tmp_path):
    store = Store(tmp_path)
    for number, state in ((1, "open"), (2, "done"), (3, "aborted")):
        store.put_round(row(number, state))
    assert store.abort_open_rounds("restarted") == 1
    assert [found.state for found in store.rounds()] == ["aborted", "done", "aborted"]
    assert store.round(b"\x01" * 32).facts == Facts(reason="restarted", kind=Ending.STOPPING)
    store.put_round(row(2, "aborted"))
    assert store.round(b"\x02" * 32).state == "done"
    store.close()


def test_a_version_its_model_and_its_round_are_stored_together_or_not_at_all(tmp_path, home):
    store = Store(tmp_path / "state")
    head = Training(home.aggregator, store).head
    again = replace(head, version=1, round_id=b"r" * 32)
    store.append(again, {b"a" * 32: b"model"}, row(1, "done"))
    with pytest.raises(sqlite3.IntegrityError):  # the same round cannot lead to two versions
        store.append(replace(again, version=2), {b"b" * 32: b"model"}, row(2, "done"))
    assert store.blob(b"b" * 32) is None
    assert store.round(b"\x02" * 32) is None
    assert store.head().version == 1
    store.close()


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 30, 35])
def test_what_is_stored_in_pieces_comes_out_whole(tmp_path, home, monkeypatch, size):
    monkeypatch.setattr(stores, "_PIECE", 10)
    store = Store(tmp_path / "state")
    head = Training(home.aggregator, store).head
    data = bytes(range(size))
    for number in (1, 2):  # the second time it is there already
        store.append(
            replace(head, version=number, round_id=bytes([number]) * 32), {b"a" * 32: bytearray(data)}
        )
    assert store.blob(b"a" * 32) == data
    assert store.blob(b"b" * 32) is None
    store.close()


# ----- training -------------------------------------------------------------------------------


def total(home: House, weight: int = 30) -> Total:
    main = np.full(home.aggregator.task.dimension, 1000, np.uint32)
    return Total(main, Totals(weight).encode(), ("m1", "m2", "m3"), ())


def test_a_round_leads_to_one_version_however_often_it_is_finished(tmp_path, home):
    store = Store(tmp_path / "state")
    training = Training(home.aggregator, store)
    base = training.head
    first = training.apply(total(home), base, b"r" * 32, lambda record: row(1, "done"))
    again = training.apply(total(home), base, b"r" * 32, lambda record: row(1, "done"))
    assert first == again == training.head
    assert first.version == 1
    store.close()


def test_a_restart_goes_on_from_the_very_same_model(tmp_path, home):
    store = Store(tmp_path / "state")
    training = Training(home.aggregator, store)
    for number in (1, 2):
        training.apply(total(home), training.head, bytes([number]) * 32, lambda record: row(1, "done"))
    store.close()
    store = Store(tmp_path / "state")
    again = Training(home.aggregator, store)
    assert again.head == training.head
    assert (again._model == training._model).all()
    assert again.base(training.head.context) == training.head
    store.close()


def honest(home: House, value: int) -> Total:
    """A sum of three that all have this weight, and the largest coordinates that they can."""
    plan = home.aggregator.task.plan
    found = total(home, 3 * value)
    one = encode(np.full(home.aggregator.task.dimension, np.float32(-plan.clip)), value, plan).vector
    found.main[:] = 3 * one
    return found


@pytest.mark.parametrize("weight", [0, 2, 301, 2**40])
def test_a_sum_of_weights_that_cannot_be_is_no_version(tmp_path, home, weight):
    store = Store(tmp_path / "state")
    training = Training(home.aggregator, store)
    bad = total(home)
    bad.auxiliary[0] = weight
    with pytest.raises(RoundAborted, match="impossible for 3 members: one of m1, m2, m3 sent") as error:
        training.apply(bad, training.head, b"r" * 32, lambda record: row(1, "done"))
    assert error.value.culprits == error.value.proven == ()  # nobody can tell who
    assert error.value.ending is Ending.BROKEN_RULE
    assert training.head.version == 0
    store.close()


@pytest.mark.parametrize("weight", [1, 7, 100])
def test_a_mean_is_as_large_as_members_clip_and_not_larger(tmp_path, home, weight):
    """A forged weight made it millions of times as large, and the next version unusable."""
    store = Store(tmp_path / "state")
    training = Training(home.aggregator, store)
    forged = honest(home, weight)
    forged.auxiliary[0] = 3 * weight - 1 if weight > 1 else 3
    if weight == 1:
        forged.main[2] -= 2  # beyond what three can round
    with pytest.raises(RoundAborted, match="no member sends more than 8") as error:
        training.apply(forged, training.head, b"r" * 32, lambda record: row(1, "done"))
    assert error.value.culprits == ()
    assert training.head.version == 0
    training.apply(honest(home, weight), training.head, b"s" * 32, lambda record: row(2, "done"))
    assert training.head.version == 1
    np.testing.assert_allclose(np.abs(training._model - _initial(home)), 8.0, rtol=1e-6)
    store.close()


def _initial(home: House) -> np.ndarray:
    task = home.aggregator.task
    data = (home.root / "aggregator" / INITIAL).read_bytes()
    return flatten(model_file.decode(data, task.arrays), task.arrays)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_state_of_another_federation_is_refused_in_a_sentence_that_names_both(tmp_path, home, seed):
    """A volume that was kept. With the same task (seed 0) it is the aggregator's key that differs."""
    store = Store(tmp_path / "state")
    first = Training(home.aggregator, store).head
    other = House(make_folder(tmp_path / "other", 3, seed=seed)).aggregator
    with pytest.raises(RecordError) as error:
        Training(other, store)
    mine = home.aggregator
    theirs, ours = (
        f"task {me.task.digest.hex()[:12]}, aggregator {me.identity.public.hex()[:12]}"
        for me in (mine, other)
    )
    assert error.value.reason == (
        f"the state in {tmp_path / 'state'} is that of another federation ({mine.federation.name!r},"
        f" {theirs}), and {other.folder} is the aggregator of {other.federation.name!r} ({ours})"
    )
    assert "--state" in error.value.hint
    assert Training(home.aggregator, store).head == first
    with store._write() as db:
        db.execute("delete from about")
    with pytest.raises(RecordError, match=f"another federation .task {mine.task.digest.hex()[:12]}."):
        Training(other, store)
    store.close()


@pytest.mark.parametrize("staleness", [0, 10])
def test_what_is_remembered_of_the_log_is_what_members_can_still_ask_for(tmp_path, staleness):
    home = House(make_folder(tmp_path / "fed", 3, rounds=100, max_staleness=staleness))
    store = Store(tmp_path / "state")
    training = Training(home.aggregator, store)
    log = [training.head]
    for number in range(1, 81):
        log.append(
            training.apply(
                total(home), training.head, bytes([number]) * 32, lambda record, n=number: row(n, "done")
            )
        )
    for known in (training, Training(home.aggregator, store)):
        assert len(known._bases) == staleness + 64
        assert all(known.base(record.context) == record for record in log[-staleness - 64 :])
        assert known.base(log[0].context) is None
    store.close()


def test_an_initial_model_that_the_task_does_not_name_is_refused(tmp_path, home):
    store = Store(tmp_path / "state")
    (home.root / "aggregator/initial.safetensors").write_bytes(b"x")
    with pytest.raises(ParameterError, match="not the initial model"):
        Training(home.aggregator, store)
    (home.root / "aggregator/initial.safetensors").unlink()
    with pytest.raises(ParameterError, match="cannot be read"):
        Training(home.aggregator, store)
    assert store.head() is None
    store.close()


# ----- presence -------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def presence(clock):
    return Presence(["a", "b"], lambda: clock[0], gone_seconds=3, startup_seconds=10, changed=lambda: None)


def test_who_was_never_heard_from_is_waited_for_once_after_the_start(presence, clock):
    assert presence.waited_for("a")
    clock[0] += 10
    assert not presence.waited_for("a")
    assert presence.seconds_since("a") is None


def test_who_has_a_connection_is_there_and_is_missed_only_seconds_after_it(presence, clock):
    with presence.connection("a", "s"):
        clock[0] += 1000
        assert presence.waited_for("a")
        assert presence.connected("a", "s")
        assert not presence.connected("a", "t")
    clock[0] += 2.9
    assert presence.waited_for("a")
    clock[0] += 0.2
    assert not presence.waited_for("a")
    assert not presence.connected("a")


def test_two_connections_of_one_process_count_as_one_until_the_last_ends(presence, clock):
    with presence.connection("a", "s"):
        with presence.connection("a", "s"):
            pass
        assert presence.connected("a", "s")
    assert not presence.connected("a", "s")
    assert presence._open["a"] == {}


# ----- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase_seconds", "0"), ("phase_seconds", "-1"), ("phase_seconds", "nan"), ("port", "70000"),
        ("cohort", "1"),
        ("threads", "0"), ("log_format", "xml"), ("wait_seconds", "61"), ("join_seconds", "soon"),
    ],
)  # fmt: skip
def test_a_knob_that_is_wrong_is_named(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(f"CHORAL_{name.upper()}", value)
    with pytest.raises(ParameterError, match=name):
        settings.load(tmp_path, "http://127.0.0.1:1")


def test_a_knob_that_does_not_exist_is_named(tmp_path):
    (tmp_path / "settings.toml").write_text("speed = 11\n")
    with pytest.raises(ParameterError, match="speed"):
        settings.load(tmp_path, "http://127.0.0.1:1")


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path, monkeypatch):
    (tmp_path / "settings.toml").write_text("join_seconds = 1\nphase_seconds = 1\nwait_seconds = 1\n")
    monkeypatch.setenv("CHORAL_JOIN_SECONDS", "2")
    monkeypatch.setenv("CHORAL_PHASE_SECONDS", "2")
    found = settings.load(tmp_path, "http://127.0.0.1:1", join_seconds=3.0)
    assert (found.join_seconds, found.phase_seconds, found.wait_seconds) == (3, 2, 1)


def test_behind_a_name_it_listens_to_everybody_and_on_loopback_to_itself(tmp_path):
    assert settings.load(tmp_path, "http://localhost:9").host == "127.0.0.1"
    assert settings.load(tmp_path, "https://choral.example").host == "0.0.0.0"
