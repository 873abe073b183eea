"""Real processes over real HTTP, killed for real: nothing is lost, nothing counted twice (§5, §7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from choral.data import save_shard
from choral.federation.enrolment import Participant
from choral.federation.records import Record, verify
from choral.service.state.sqlite import Store
from house import Player, examples, free_port, make_folder, run_member

pytestmark = pytest.mark.e2e
QUICK = {"JOIN_SECONDS": "5", "PHASE_SECONDS": "8", "GONE_SECONDS": "0.5"}

# an aggregator that is killed by itself, around the one transaction that makes a version
AROUND_COMMIT = """
import os, signal, sys
from choral.cli import main
from choral.service.state.sqlite import Store
append, when = Store.append, sys.argv.pop(1)
def dying(self, record, blobs, finished=None):
    if finished and when == "before": os.kill(os.getpid(), signal.SIGKILL)
    append(self, record, blobs, finished)
    if finished: os.kill(os.getpid(), signal.SIGKILL)
Store.append = dying
main()
"""


class Hall:
    """A federation whose aggregator is a process that can be killed and started again."""

    def __init__(self, root: Path, n: int = 4, **task: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.root = make_folder(root / "fed", n, port=self.port, **task)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs = root
        self.startup = "0.3"

    def start(
        self, *arguments: object, log: str, code: tuple[str, ...] = ("-m", "choral")
    ) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **{f"CHORAL_{name}": value for name, value in QUICK.items()}}
        environment |= {
            "CHORAL_STARTUP_SECONDS": self.startup,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with (self.logs / log).open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *code, *map(str, arguments)], stdout=out, stderr=out, env=environment
            )
        self.processes.append(process)
        return process

    def serve(self, code: tuple[str, ...] = ("-m", "choral")) -> subprocess.Popen[bytes]:
        process = self.start("serve", self.root / "aggregator", log="serve.log", code=code)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self.url}/livez", timeout=1)
                return process
            time.sleep(0.03)
        raise AssertionError((self.logs / "serve.log").read_text())

    def join(self, i: int) -> subprocess.Popen[bytes]:
        shard = self.logs / f"client_{i}_data.npy"
        if not shard.exists():
            save_shard(shard, *examples(i))
        return self.start("join", self.root / f"m{i}", "--data", shard, "--json", log=f"m{i}.log")

    def told(self, i: int) -> list[dict[str, Any]]:
        path = self.logs / f"m{i}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/v1/status", timeout=5).json()
        return found

    def records(self) -> list[Record]:
        """The log from the file, every link verified."""
        me = Participant.load(self.root / "aggregator")
        store = Store(self.root / "aggregator/state", read_only=True)
        found = store.records(-1)
        store.close()
        verify(found, aggregator=me.federation.aggregator_key, task=me.task.digest)
        return found

    def rounds(self) -> list[Any]:
        store = Store(self.root / "aggregator/state", read_only=True)
        found = store.rounds()
        store.close()
        return found


@pytest.fixture
def hall(tmp_path) -> Iterator[Hall]:
    found = Hall(tmp_path)
    yield found
    for process in found.processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def ended(process: subprocess.Popen[bytes], seconds: float = 40.0) -> int:
    return process.wait(seconds)


def in_phase(hall: Hall, phase: str) -> bool:
    return any(cohort["phase"] == phase for cohort in hall.status()["cohorts"])


async def finish(hall: Hall, members: list[asyncio.Task[Record]], version: int) -> None:
    """All members end with the same log, of exactly so many versions, each round in it once."""
    records = await asyncio.wait_for(asyncio.gather(*members), 25)
    log = hall.records()
    assert [record.version for record in log] == list(range(version + 1))
    assert {record.digest for record in records} == {log[-1].digest}
    assert len({record.round_id for record in log}) == len(log)
    done = [row for row in hall.rounds() if row.state == "done"]
    assert {row.id for row in done} == {record.round_id for record in log[1:]}
    assert not [row for row in hall.rounds() if row.state == "open"]


@pytest.mark.parametrize("phase", ["advertise", "share", "mask", "consistency", "unmask"])
async def test_an_aggregator_killed_in_any_phase_goes_on_and_its_members_never_notice(tmp_path, phase):
    hall = Hall(tmp_path, 4, rounds=2)
    try:
        first = hall.serve()
        events: dict[int, list[Any]] = {i: [] for i in (1, 2, 3)}
        # m4 holds the round up in the phase in which the aggregator dies
        player = Player(hall.root / "m4", hall.url)
        await player.__aenter__()
        base = hall.records()[0]
        stuck = asyncio.create_task(player.play(base, until=phase))
        members = [
            asyncio.create_task(run_member(hall.root / f"m{i}", hall.url, events[i])) for i in (1, 2, 3)
        ]
        while not await asyncio.to_thread(in_phase, hall, phase):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        first.kill()
        first.wait()
        await player.leave()
        await asyncio.gather(stuck, return_exceptions=True)
        await asyncio.to_thread(hall.serve)
        await finish(hall, members, 2)
        for told in events.values():  # one update a version, unless one was spent in the round that died
            spent = [details for kind, details in told if kind == "aborted" and details["spent"]]
            assert len([1 for kind, _ in told if kind == "trained"]) == 2 + len(spent)
            assert len(spent) == (phase in ("mask", "consistency", "unmask"))
    finally:
        for process in hall.processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_aggregator_killed_around_its_commit_loses_and_doubles_nothing(tmp_path, when):
    hall = Hall(tmp_path, 3, rounds=2)
    try:
        first = hall.serve(code=("-c", AROUND_COMMIT, when))
        events: dict[int, list[Any]] = {i: [] for i in (1, 2, 3)}
        members = [
            asyncio.create_task(run_member(hall.root / f"m{i}", hall.url, events[i])) for i in (1, 2, 3)
        ]
        assert await asyncio.to_thread(first.wait, 15) == -signal.SIGKILL
        assert len(hall.records()) == (1 if when == "before" else 2)
        await asyncio.to_thread(hall.serve)
        await finish(hall, members, 2)
        if when == "after":  # the members ask for the outcome with the same message, and have it
            assert not [1 for told in events.values() for kind, _ in told if kind == "aborted"]
    finally:
        for process in hall.processes:
            process.kill()
            process.wait()


async def test_an_aggregator_that_was_suspended_for_longer_than_polls_last_goes_on(tmp_path, monkeypatch):
    """A laptop's lid, a VM that is moved: on waking every poll is over, and its client has hung up."""
    monkeypatch.setenv("CHORAL_WAIT_SECONDS", "0.8")
    hall = Hall(tmp_path, 4, rounds=2)
    try:
        aggregator = hall.serve()
        asking = Player(hall.root / "m4", hall.url)
        path = "/v1/records?after=0"
        signed = asking.header("GET", path, time.time())
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {signed}\r\n\r\n"
        polls = []
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", hall.port)
            writer.write(head.encode())
            polls.append(writer)
        await asyncio.sleep(0.3)
        aggregator.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        for writer in polls:
            writer.transport.abort()
        await asyncio.sleep(0.1)
        aggregator.send_signal(signal.SIGCONT)
        members = [asyncio.create_task(run_member(hall.root / f"m{i}", hall.url, [])) for i in (1, 2, 3)]
        await finish(hall, members, 2)
        aggregator.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(aggregator.wait, 10) == 0
        await asking.leave()
    finally:
        for process in hall.processes:
            process.kill()
            process.wait()


def test_a_member_killed_in_the_middle_comes_back_and_takes_part_again(tmp_path):
    hall = Hall(tmp_path, 4, rounds=25)
    hall.startup = "10"
    try:
        _killed_in_the_middle(hall)
    finally:
        for process in hall.processes:
            process.kill()
            process.wait()


def _killed_in_the_middle(hall: Hall) -> None:
    hall.serve()
    members = {i: hall.join(i) for i in (1, 2, 3, 4)}
    wait(lambda: any(event["event"] == "phase" for event in hall.told(4)))
    members[4].kill()
    ended(members[4])
    members[4] = hall.join(4)
    assert [ended(process) for process in members.values()] == [0] * 4
    log = hall.records()
    assert [record.version for record in log] == list(range(26))
    assert "m4" in log[-1].survivors
    assert any("m4" not in record.survivors for record in log[1:])
    for i in (1, 2, 3, 4):
        assert hall.told(i)[-1]["event"] == "done"


def test_sigterm_lets_the_running_round_end_and_then_exits_cleanly(tmp_path, hall):
    async def scenario() -> None:
        aggregator = hall.serve()
        players = [Player(hall.root / f"m{i}", hall.url) for i in (1, 2, 3, 4)]
        for player in players:
            await player.__aenter__()
        base = hall.records()[0]
        playing = [asyncio.create_task(player.play(base)) for player in players[1:]]
        machine, inbox = await players[0].play(base, until="mask")
        aggregator.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert aggregator.poll() is None
        survivors = await players[0].mask(machine, inbox)
        await players[0].reveal(machine, await players[0].endorse(machine, survivors))
        await asyncio.gather(*playing)
        began = time.monotonic()
        assert await asyncio.to_thread(aggregator.wait, 10) == 0
        assert time.monotonic() - began < 3.5
        for player in players:
            await player.leave()

    asyncio.run(scenario())
    assert [record.version for record in hall.records()] == [0, 1]
    assert "Traceback" not in (hall.logs / "serve.log").read_text()


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_leaves_things_tidy(tmp_path, hall, twice):
    aggregator, member = hall.serve(), hall.join(1)
    wait(lambda: any(event["event"] == "trained" for event in hall.told(1)))
    time.sleep(0.2)
    member.send_signal(signal.SIGINT)
    assert ended(member) == 130
    again = hall.join(1)  # nothing keeps the journal locked
    wait(lambda: len([event for event in hall.told(1) if event["event"] == "trained"]) == 2)
    again.kill()
    aggregator.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            aggregator.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert ended(aggregator) == 0
    assert time.monotonic() - began < 4
    for log in ("serve.log", "m1.log"):
        assert "Traceback" not in (hall.logs / log).read_text()


def test_a_second_process_of_one_member_or_aggregator_is_refused(tmp_path, hall):
    hall.serve()
    hall.join(1)
    wait(lambda: hall.told(1))
    assert ended(hall.join(1)) == 75
    assert "another process is running as this member" in (hall.logs / "m1.log").read_text()
    second = hall.start("serve", hall.root / "aggregator", "--port", free_port(), log="second.log")
    assert ended(second) == 1
    assert "another aggregator is running from it" in (hall.logs / "second.log").read_text()
    third = hall.start("serve", hall.root / "aggregator", "--state", tmp_path / "elsewhere", log="third.log")
    assert ended(third) == 1
    assert "cannot listen on" in (hall.logs / "third.log").read_text()
    assert hall.status()["version"] == 0


def test_a_reader_may_look_at_the_log_while_the_aggregator_runs(tmp_path, hall):
    hall.serve()
    assert ended(hall.start("log", hall.root / "aggregator", "--json", log="log.log")) == 0
    assert json.loads((hall.logs / "log.log").read_text().splitlines()[0])["version"] == 0


def test_killed_while_it_writes_a_store_is_whole_and_its_last_answer_is_kept(tmp_path):
    """Every version that was reported is there; what is there verifies."""
    root = make_folder(tmp_path / "fed", 3)
    code = """
import sys
from dataclasses import replace
from pathlib import Path
from choral.federation.enrolment import Participant
from choral.protocol.transcript import sign
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import Store
from choral.service.training import Training
me = Participant.load(Path(sys.argv[1]))
store = Store(Path(sys.argv[2]))
head = Training(me, store).head
print(head.version, flush=True)
while True:
    number = head.version + 1
    blob = number.to_bytes(32, "big")
    record = sign(me.identity, replace(head, version=number, previous=head.digest, round_id=blob))
    store.append(record, {blob: blob * 1000}, RoundRow(record.round_id, 0, 0.0, "done"))
    head = record
    print(number, flush=True)
"""
    me = Participant.load(root / "aggregator")
    reported = 0
    for delay in (0.0, 0.02, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", code, root / "aggregator", tmp_path / "state"], stdout=subprocess.PIPE
        )
        assert process.stdout
        assert int(process.stdout.readline()) >= reported
        time.sleep(delay)
        process.kill()
        lines = process.stdout.read().split(b"\n")[:-1]
        process.wait()
        process.stdout.close()
        reported = max([reported, *map(int, lines)])
        store = Store(tmp_path / "state")
        records = store.records(-1)
        verify(records, aggregator=me.federation.aggregator_key, task=me.task.digest)
        assert len(records) > reported
        for record in records[1:]:
            assert store.blob(record.version.to_bytes(32, "big"))
            assert store.round(record.round_id).state == "done"
        reported = records[-1].version
        store.close()


def test_a_federation_of_two_warns_each_member(tmp_path):
    hall = Hall(tmp_path, 2, rounds=1)
    try:
        hall.serve()
        members = [hall.join(i) for i in (1, 2)]
        assert [ended(process) for process in members] == [0, 0]
        for i in (1, 2):
            assert "Nothing is private between them" in hall.told(i)[0]["reason"]
    finally:
        for process in hall.processes:
            process.kill()
            process.wait()


def test_an_aggregator_listens_without_delaying_small_answers():
    """Nagle's algorithm costs 40 ms a message; asyncio turns it off only where the protocol is named."""
    from choral.service.http.listener import Listener  # noqa: PLC0415

    with Listener("127.0.0.1", 0, most=1, per_address=1) as listener:
        assert listener.proto == socket.IPPROTO_TCP
