"""The aggregator's process around its application: files, signals, a damaged store, a round that hangs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.protocol.aggregator import Phase
from choral.service.http.guard import host_of
from choral.service.serve import serve
from choral.service.settings import Settings
from choral.service.state.sqlite import FILE, Store
from choral.service.training import Training
from house import house, make_folder, problem, raw, until

READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"


def settings_of(root: Path, **more) -> Settings:
    return Settings(host="127.0.0.1", port=0, state=root / "aggregator/state", **more)


@pytest.fixture
def as_it_was():
    """The process's mask and limit of open files, put back afterwards."""
    mask, files = os.umask(0o022), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    os.umask(mask)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


async def test_what_it_keeps_is_its_own_and_it_may_open_what_it_is_allowed_to(tmp_path, as_it_was):
    root = make_folder(tmp_path / "fed")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    started = asyncio.Event()
    running = asyncio.create_task(
        serve(
            Participant.load(root / "aggregator"), settings_of(root), started=lambda url: started.set(),
            witness=tmp_path / "seen",
        )
    )  # fmt: skip
    await asyncio.wait_for(started.wait(), 20)
    state = root / "aggregator/state"
    assert state.stat().st_mode & 0o777 == 0o700
    files = list(state.iterdir())
    assert {path.name for path in files} >= {FILE, "lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)


async def test_what_it_refuses_before_it_is_a_request_is_in_its_figures(tmp_path, as_it_was):
    root = make_folder(tmp_path / "fed")
    urls: list[str] = []
    settings = settings_of(root, connections_per_address=2)
    running = asyncio.create_task(serve(Participant.load(root / "aggregator"), settings, started=urls.append))
    await until(lambda: urls, 20)
    port = int(urls[0].rpartition(":")[2])
    assert (await raw(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (17 << 10) + b"\r\n\r\n"))[0] == 431
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    assert (await raw(port, READY))[0] == 503
    for _, writer in held:
        writer.transport.abort()
    await asyncio.sleep(0.1)
    _, _, figures = await raw(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    counted = {line for line in figures.decode().splitlines() if line.startswith("choral_refusals_total{")}
    names = ("head-too-large", "too-many-connections")
    assert counted == {f'choral_refusals_total{{problem="{name}"}} 1.0' for name in names}
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)


def damage(root: Path, *, head: bool) -> None:
    """Overwrite what is in the aggregator's file, but for its first page or with it."""
    aggregator = Participant.load(root / "aggregator")
    store = Store(root / "aggregator/state")
    Training(aggregator, store)
    store.close()
    path = root / "aggregator/state" / FILE
    data = bytearray(path.read_bytes())
    data[0 if head else 4096 :] = b"\xa5" * (len(data) - (0 if head else 4096))
    path.write_bytes(data)


@pytest.mark.parametrize("head", [True, False])
async def test_a_damaged_file_is_told_in_a_sentence(tmp_path, as_it_was, head):
    root = make_folder(tmp_path / "fed")
    damage(root, head=head)
    with pytest.raises(ParameterError, match=FILE) as told:
        await serve(Participant.load(root / "aggregator"), settings_of(root))
    assert told.value.hint
    assert head or "backup" in told.value.hint


async def test_a_store_that_fails_while_it_runs_is_a_sentence_and_one_line(tmp_path, capsys):
    async with house(tmp_path) as home, home.players(1) as (one,):
        path = f"/v1/models/{home.head.parameters.hex()}"
        assert await one.transport.get(path)
        home.store._db.execute("drop table blobs")
        capsys.readouterr()
        asked = (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {one.header('GET', path, time.time())}\r\n\r\n"
        )
        found = problem(await raw(home.port, asked.encode()))
        assert (found["status"], found["type"]) == (503, "urn:choral:problem:storage")
        assert "store cannot be read" in found["detail"]
        told = capsys.readouterr().out
        assert len([line for line in told.splitlines() if "the store failed" in line]) == 1
        assert "Traceback" not in told


async def test_a_round_that_nothing_moves_any_more_is_not_ready(tmp_path, monkeypatch):
    async with (
        house(tmp_path, settings={"phase_seconds": 500.0}) as home,
        home.players(1, 2, 3) as players,
        asyncio.timeout(10),
    ):
        conductor = home.rounds.conductor
        collect = conductor._collect

        async def hangs_in_share(live, phase):
            await (collect(live, phase) if phase is Phase.ADVERTISE else asyncio.Event().wait())

        monkeypatch.setattr(conductor, "_collect", hangs_in_share)
        await asyncio.gather(*(player.play(home.head, until="share") for player in players))
        (live,) = conductor.lives()
        assert (await raw(home.port, READY))[0] == 200
        live.deadline -= 500 + 60
        status, _, body = await raw(home.port, READY)
        assert (status, json.loads(body)["status"]) == (503, "not ready")
        assert "phase share" in json.loads(body)["reasons"][0]


async def test_a_cohort_may_form_for_as_long_as_it_wants(tmp_path):
    async with house(tmp_path) as home, home.players(1) as (one,):
        joining = asyncio.create_task(one.advertise(one.machine(home.head)))
        await until(home.rounds.conductor.lives)
        home.rounds.conductor.lives()[0].deadline -= 10_000
        assert (await raw(home.port, READY))[0] == 200
        joining.cancel()


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"), ("LOCALHOST:80", "localhost"), ("127.0.0.1:8750", "127.0.0.1"),
        ("[::1]", "::1"), ("[::1]:8750", "::1"),
        ("[::1].evil", ""), ("[::1]evil:80", ""), ("[::1", ""), ("::1", ""), ("127.0.0.1:", ""),
        ("127.0.0.1:80:80", ""), ("127.0.0.1@evil", ""), ("evil@127.0.0.1", ""), ("localhost/..", ""),
        ("localhost:80x", ""), (" localhost", ""), ("localhost\n", ""), ("", ""), ("[127.0.0.1]x", ""),
        ("localhost.evil", "localhost.evil"), ("127.0.0.1:٣", ""),
    ],
)  # fmt: skip
def test_a_host_is_read_exactly(header, host):
    assert host_of(header) == host


@pytest.mark.parametrize(
    "hosts", [["[::1].evil"], ["localhost", "evil.example"], ["evil.example", "localhost"]]
)
async def test_who_names_another_host_is_not_local(tmp_path, hosts):
    async with house(tmp_path) as home:
        lines = "".join(f"Host: {host}\r\n" for host in hosts)
        assert (await raw(home.port, f"GET /v1/status HTTP/1.1\r\n{lines}\r\n".encode()))[0] == 401
        assert (await raw(home.port, b"GET /v1/status HTTP/1.1\r\nHost: [::1]:1\r\n\r\n"))[0] == 200


@pytest.mark.e2e
def test_sigterm_ends_a_process_that_is_still_importing():
    """The first process of a container has no default way to end: without a handler it lives on."""
    code = """
import importlib.abc, os, signal, sys, time

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "choral.cli":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

sys.meta_path.insert(0, Slow())
from choral.__main__ import main
main()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 143
