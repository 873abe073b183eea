"""What a member owes to whoever runs it: a word while it waits, a heartbeat, a quiet end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from choral import ping
from choral.client import process
from choral.client.events import Awaiting
from choral.client.process import absent
from house import house, make_folder, until

NAMES = ("m1", "m2", "m3")


def status(got, *, phase="advertise", awaited=(), needed=2, connected=()):
    return {
        "cohorts": [{"phase": phase, "in": {phase: list(got)}, "awaited": list(awaited), "needed": needed}],
        "members": {name: {"connected": name in connected} for name in NAMES},
    }


def test_below_the_minimum_everybody_who_is_not_in_is_missing() -> None:
    expected = Awaiting(missing=("m2", "m3"), more=0, connected=False, got=1, needed=2)
    assert absent(status(["m1"]), "m1", NAMES) == expected


def test_above_it_only_those_that_are_waited_for() -> None:
    found = absent(status(["m1", "m2"], awaited=["m3"], connected=["m3"]), "m1", NAMES)
    assert found
    assert found.missing == ("m3",)
    assert found.connected is True


def test_a_cohort_without_this_member_or_past_joining_says_nothing() -> None:
    assert absent(status(["m2"]), "m1", NAMES) is None
    assert absent(status(["m1"], phase="share"), "m1", NAMES) is None


def test_only_names_of_the_own_federation_file_are_told_and_not_too_many() -> None:
    many = [f"m{i}" for i in range(1, 20)]
    lied = status(["m1", "\x1b[31mred"])
    lied["members"] = {name: {"connected": False} for name in [*many, "\x1b[31mred"]}
    found = absent(lied, "m1", many)
    assert found
    assert found.missing == tuple(many[1:6])
    assert found.more == 13
    assert found.got == 1


async def test_a_waiting_member_says_for_whom_and_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process, "_SILENT", 0.05)
    monkeypatch.setattr(process, "_ASK", 0.05)
    async with house(tmp_path, 2, rounds=1) as here:
        waiting = asyncio.create_task(here.member(1))
        await until(lambda: here.told(1, "awaiting"))
        await asyncio.sleep(0.3)
        (said,) = here.told(1, "awaiting")
        assert said["missing"] == ["m2"]
        assert (said["got"], said["needed"]) == (1, 2)
        await asyncio.gather(waiting, here.member(2))
        assert len(here.told(1, "awaiting")) <= 2


async def test_an_answer_that_makes_no_sense_is_no_reason_to_stop_waiting(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(process, "_SILENT", 0.01)
    monkeypatch.setattr(process, "_ASK", 0.01)
    bodies = ["nothing", [], {"cohorts": 3}, {"cohorts": [{}]}]

    class Liar:
        async def status(self) -> object:
            return bodies.pop() if bodies else None

    async with process.telling(Liar(), "m1", NAMES, lambda event: pytest.fail(event.name)):
        async with asyncio.timeout(5):
            while bodies:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


async def test_the_heartbeat_is_what_the_health_check_looks_at(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("CHORAL_STATE", raising=False)
    (tmp_path / "state").mkdir()
    assert ping.main([str(tmp_path)]) == 1
    beating = asyncio.create_task(process.beat(tmp_path / "state"))
    await until((tmp_path / "state" / ping.HEARTBEAT).exists)
    assert ping.main([str(tmp_path)]) == 0
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
    old = time.time() - 2 * ping.STALE
    os.utime(tmp_path / "state" / ping.HEARTBEAT, (old, old))
    assert ping.main([str(tmp_path)]) == 1
    assert "was touched 120 s ago" in capsys.readouterr().err


def test_a_health_check_is_told_what_it_takes(capsys) -> None:
    assert ping.main(["--nothing"]) == 2
    assert ping.main(["a", "b"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.e2e
def test_sigterm_ends_a_member_with_a_word_and_no_traceback(tmp_path) -> None:
    folder = make_folder(tmp_path / "fed", 2)
    script = (
        "import numpy as np\nfrom choral.cli.terminal import show\nfrom choral.client import participate\n"
        "from choral.data import save_shard\n"
        "save_shard('d.npy', np.zeros((20, 4), np.float32), np.zeros(20, np.uint8))\n"
        f"participate('{folder}/m1', 'd.npy', report=show)\n"
    )
    process_ = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    beat = folder / "m1/state" / ping.HEARTBEAT
    end = time.monotonic() + 30
    while not beat.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process_.send_signal(signal.SIGTERM)
    said = process_.communicate(timeout=20)[0]
    assert process_.returncode == 128 + signal.SIGTERM
    assert "stopped" in said
    assert "Traceback" not in said
