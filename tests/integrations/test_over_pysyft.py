"""Rounds as files in PySyft's synchronised folders, over a Drive that several processes share."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from house import House, make_folder, until

pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')
try:
    importlib.metadata.version("syft")
except importlib.metadata.PackageNotFoundError:
    pytest.skip('needs pip install "choral[pysyft]": 269 MB, in locks/pysyft.lock', allow_module_level=True)

import drive
from choral.binding.access import Access, header
from choral.client.transport import Transport
from choral.errors import AggregatorUnavailable, ChoralError, UnknownRound
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.records import verify
from choral.integrations.syft import member as client
from choral.integrations.syft.aggregator import Desk
from choral.integrations.syft.folders import ANSWER, REQUEST, Account, Answer, File, Folders, Request, name_of
from choral.protocol import wire
from choral.service.state.sqlite import Store

BOSS = "aggregator@example.org"
HERE = Path(__file__).parent


def make_accounts(root: Path, n: int, *, poll: float = 0.05) -> None:
    """`pysyft.toml` in every folder."""
    members = {f"m{i}": f"m{i}@example.org" for i in range(1, n + 1)}
    for name, email in {**members, AGGREGATOR: BOSS}.items():
        people = members if name == AGGREGATOR else {AGGREGATOR: BOSS}
        lines = [f'email = "{email}"', f"poll_seconds = {poll}", "[people]"]
        lines += [f'{who} = "{address}"' for who, address in people.items()]
        (root / name / "pysyft.toml").write_text("\n".join(lines) + "\n")


@pytest.fixture
def fed(tmp_path):
    root = make_folder(tmp_path / "fed", 4, rounds=3, sealing="syft")
    make_accounts(root, 4)
    return root


class Process:
    """A process of the federation; what it prints is in a file."""

    def __init__(self, log: Path, *arguments: str | Path) -> None:
        self.log = log
        path = os.pathsep.join([str(HERE), str(HERE.parent / "service"), os.environ.get("PYTHONPATH", "")])
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "syft_processes.py"), *map(str, arguments)],
                stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, pattern: str, seconds: float = 60) -> None:
        """Until it has printed that."""
        began = time.monotonic()
        while not re.search(pattern, self.said()):
            assert self.process.poll() is None or re.search(pattern, self.said()), self.said()
            assert time.monotonic() - began < seconds, self.said()
            time.sleep(0.02)

    def end(self, number: int, seconds: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.mark.e2e
def test_three_processes_train_to_the_end_although_one_is_killed_in_a_round(fed, tmp_path):
    place = tmp_path / "drive"
    aggregator = Process(tmp_path / "aggregator.log", place, "serve", fed / AGGREGATOR)
    running = [aggregator]
    try:
        aggregator.until("through PySyft")
        victim = Process(tmp_path / "m4.log", place, "die", fed / "m4")
        others = Process(tmp_path / "others.log", place, "join", *(fed / f"m{i}" for i in (1, 2, 3)))
        running += [victim, others]
        assert victim.process.wait(60) == -signal.SIGKILL, victim.said()
        assert others.process.wait(90) == 0, others.said()
        assert aggregator.end(signal.SIGTERM) == 0, aggregator.said()
    finally:
        for process in running:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()
    done = re.findall(r"(m\d) done 3 ([0-9a-f]{64})", others.said())
    assert {name for name, _ in done} == {"m1", "m2", "m3"}
    assert len({digest for _, digest in done}) == 1
    me = Participant.load(fed / AGGREGATOR)
    with contextlib.closing(Store(fed / AGGREGATOR / "state", read_only=True)) as store:
        records = store.records(-1, 100)
        rows = store.rounds()
    verify(records, aggregator=me.federation.aggregator_key, task=me.task.digest)
    assert records[-1].digest.hex() == done[0][1]
    assert [row.facts.dropped for row in rows if "m4" in row.facts.roster] == [{"m4": "mask"}]
    # what is left of all that: what the killed member could not take away any more
    left = drive.FolderStore(place).named("choral-")
    assert {file.owners[0]["emailAddress"] for file in left} <= {"m4@example.org", BOSS}
    assert len(left) <= 4


# ----- what the carrier can do to a file ------------------------------------------------------


@pytest.fixture
async def desk(fed, tmp_path):
    """The aggregator at its desk, in this event loop; `root` is the Drive."""
    home = House(fed, wait_seconds=20.0)  # longer than any test waits
    await home.open()
    account = Account.load(home.aggregator, set(home.aggregator.federation.members))
    found = Desk(home.aggregator, account, Folders(drive.connection(tmp_path / "drive", BOSS)), home.app)
    found.root, found.home = tmp_path / "drive", home
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await home.close()


@pytest.fixture
async def m1(desk):
    async with member(desk, 1) as found:
        yield found


@contextlib.asynccontextmanager
async def member(desk, i):
    """Member i's transport over files."""
    me = desk.home.root / f"m{i}"
    carrier = client.carrier(me, connection=drive.connection(desk.root, f"m{i}@example.org"))
    who = Participant.load(me)
    async with Transport(
        "http://nowhere.example", who.identity, Access(who.name, "0" * 16), patience=0.0,
        jitter=lambda: 0.5, carrier=carrier,
    ) as transport:  # fmt: skip
        transport.carrier, transport.me = carrier, who
        yield transport


def inbox(desk, i) -> tuple[Folders, str]:
    """Member i's inbox as its own account sees it."""
    connection = drive.connection(desk.root, f"m{i}@example.org")
    return Folders(connection), connection._get_peer_datasite_inbox_id(BOSS)


def left(desk) -> list[str]:
    return [file.name for file in drive.FolderStore(desk.root).named("choral-")]


async def test_a_request_is_answered_and_its_files_are_taken_away(desk, m1):
    assert await m1.get("/v1/task") == desk.home.aggregator.task.encode()
    await until(lambda: not left(desk))


async def test_refusals_arrive_as_over_http(m1):
    with pytest.raises(UnknownRound, match="no round"):
        await m1.get(f"/v1/rounds/{bytes(32).hex()}")


async def test_what_loopback_may_see_without_a_signature_needs_one_here(desk, m1):
    bare = Request(bytes(32), "GET", "/v1/status", "", b"")
    answer = await desk._ask(bare, asyncio.Event())
    assert answer.status == 401
    assert (await m1.get("/v1/status")).startswith(b"{")


async def test_the_drive_sees_neither_requests_nor_answers(desk, m1, monkeypatch):
    seen = []
    original = drive.FolderStore.add_file
    monkeypatch.setattr(
        drive.FolderStore, "add_file", lambda self, file: seen.append(file) or original(self, file)
    )
    data = await m1.get("/v1/task")
    files = [file for file in seen if file.name.startswith("choral-")]
    assert len(files) == 2
    for file in files:
        assert data not in file.content
        assert b"/v1/task" not in file.content
        assert b"Choral member" not in file.content


async def put_letter(desk, i, *, by=None, path="/v1/task", data=None, authorization=None):
    """A file in member i's inbox, sealed by another or with other bytes; its nonce."""
    folders, place = inbox(desk, i)
    me = Participant.load(desk.home.root / f"m{by or i}")
    nonce = os.urandom(32)
    signed = header(me.identity, Access(me.name, "0" * 16), "GET", path, time.time())
    letter = wire.encode(Request(nonce, "GET", path, authorization or signed, b""))
    sealed = me.sealing.envelopes.seal(AGGREGATOR, letter) if data is None else data
    await folders.put(place, name_of(nonce, REQUEST), sealed)
    return nonce


@pytest.mark.parametrize(
    "lie",
    [
        {"by": 2},  # another member's, in m1's folder
        {"data": b"no envelope"},
        {"path": "/metrics"},
        {"data": b"x" * (1 << 22)},
    ],
)
async def test_a_file_that_is_no_request_of_its_member_gets_no_answer(desk, m1, lie):
    await m1.get("/v1/task")
    nonce = await put_letter(desk, 1, **lie)
    assert await m1.get("/v1/task")  # and nothing stands still
    assert name_of(nonce, ANSWER) not in left(desk)


async def test_a_file_larger_than_any_request_is_not_fetched(desk):
    with pytest.raises(ChoralError, match="at most"):
        await desk._read("m1", File("no such file", desk._largest + 1))


async def test_a_members_envelope_does_not_speak_for_another_member(desk, m1):
    """m2's signature in m1's envelope: the header in the request must be its sender's, as over HTTP."""
    await m1.get("/v1/task")
    other = Participant.load(desk.home.root / "m2")
    signed = header(other.identity, Access("m2", "0" * 16), "GET", "/v1/task", time.time() - 3600)
    nonce = await put_letter(desk, 1, authorization=signed)
    folders, _ = inbox(desk, 1)
    outbox = folders._connection._get_peer_datasite_outbox_id(BOSS)
    await until_async(folders, outbox, name_of(nonce, ANSWER))
    file = (await folders.list(outbox))[name_of(nonce, ANSWER)]
    me = Participant.load(desk.home.root / "m1")
    answer = wire.decode(Answer, me.sealing.envelopes.open(AGGREGATOR, await folders.get(file.id)))
    assert answer.status == 401  # signed an hour ago


async def until_async(folders, place, name):
    async with asyncio.timeout(5):
        while name not in await folders.list(place):
            await asyncio.sleep(0.02)


async def test_an_answer_to_another_request_is_refused(desk, m1, monkeypatch):
    """Replayed by whoever holds the Drive, under the name that the member waits for."""
    kept = []
    original = drive.FolderStore.add_file

    def swap(self, file):
        if file.name.endswith(ANSWER):
            kept.append(file.content)
            file.content = kept[0]
        original(self, file)

    monkeypatch.setattr(drive.FolderStore, "add_file", swap)
    await m1.get("/v1/task")
    with pytest.raises(AggregatorUnavailable, match="answers another request"):
        await m1.get("/v1/task")


@pytest.mark.parametrize("by", ["m2", None])
async def test_a_forged_or_damaged_answer_is_refused(desk, m1, monkeypatch, by):
    other = Participant.load(desk.home.root / "m2").sealing.envelopes
    original = drive.FolderStore.add_file

    def forge(self, file):
        if file.name.endswith(ANSWER):
            file.content = other.seal("m1", b"yes") if by else file.content[:-1]
        original(self, file)

    monkeypatch.setattr(drive.FolderStore, "add_file", forge)
    with pytest.raises(AggregatorUnavailable, match=r"was made by 'm2'|damaged"):
        await m1.get("/v1/task")


async def test_a_member_that_takes_its_request_away_is_gone(desk, m1):
    waiting = asyncio.create_task(m1.get("/v1/records?after=0"))
    await until(lambda: desk.home.rounds.presence.connected("m1"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: not desk.home.rounds.presence.connected("m1"))
    await until(lambda: not left(desk))


async def test_files_of_an_earlier_life_are_removed_on_both_sides(desk, m1, tmp_path):
    await m1.get("/v1/task")
    await put_letter(desk, 1)
    await until(lambda: any(name.endswith(ANSWER) for name in left(desk)))
    async with member(desk, 1) as again:
        await again.get("/v1/task")
        await until(lambda: not left(desk))
