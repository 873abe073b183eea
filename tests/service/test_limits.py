"""What one connection, one address and one member can take of the aggregator: real sockets, small limits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import resource
import socket
import tracemalloc

import pytest

from choral.founding.authority import new_authority, new_server
from choral.service.http import line
from choral.service.http.certificate import ServerCertificate
from choral.service.http.line import Limits
from choral.service.http.listener import KEPT_FILES, Listener, network, raise_file_limit, room_for
from house import answer, house, problem, raw, until

ALIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST /v1/rounds HTTP/1.1\r\nHost: x\r\nContent-Le"


@contextlib.asynccontextmanager
async def connections(port: int, count: int, first: bytes = b""):
    """Open connections that have sent `first`; (reader, writer) each."""
    found = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(count)))
    try:
        for _, writer in found:
            writer.write(first)
        yield found
    finally:
        for _, writer in found:
            writer.transport.abort()


async def ends(reader: asyncio.StreamReader, seconds: float = 5.0) -> bytes:
    """What still comes before the other side closes."""
    async with asyncio.timeout(seconds):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""


# ----- heads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [b"X: " + b"a" * 4000 + b"\r\n", b"X: " + b"a" * 999_999])
async def test_no_more_of_a_head_is_kept_than_it_may_have(tmp_path, field):
    """A hundred megabytes of header fields: hung up on after the first of them, and nothing stays."""
    async with house(tmp_path) as home, connections(home.port, 1) as ((reader, writer),):
        tracemalloc.start()
        try:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 100 << 20 and not reader.at_eof() and reader.exception() is None:
                    writer.write(field)
                    sent += len(field)
                    await writer.drain()
                    await asyncio.sleep(0)
            assert sent < 10 << 20
            _, peak = tracemalloc.get_traced_memory()
            assert peak < 8 << 20  # this side's own buffers are in it
        finally:
            tracemalloc.stop()
        await until(lambda: not home.listener.open)


async def test_a_head_over_its_limit_is_told_so_and_one_below_is_served(tmp_path):
    async with house(tmp_path, limits=Limits(head_bytes=2000)) as home:
        long = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2000 + b"\r\n\r\n"
        found = problem(await raw(home.port, long))
        assert (found["status"], found["title"]) == (431, "head too large")
        address = b"GET /livez?" + b"a" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        assert problem(await raw(home.port, address))["status"] == 431
        short = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1500 + b"\r\n\r\n"
        async with connections(home.port, 1) as ((reader, writer),):
            for _ in range(3):  # each head is counted by itself
                writer.write(short)
                status, _, _ = await answer(reader)
                assert status == 200


@pytest.mark.parametrize("first", [HALF, b"\r\n\r\n", b""])
async def test_a_head_that_does_not_come_ends_its_connection(tmp_path, first):
    async with house(tmp_path, limits=Limits(head_seconds=0.2)) as home:
        async with connections(home.port, 1, first) as ((reader, _),):
            told = await ends(reader)
        assert (b" 408 " in told and b"too-slow" in told) == bool(first)
        async with connections(home.port, 1, ALIVE) as ((reader, writer),):  # and after an answer, too
            assert (await answer(reader))[0] == 200
            writer.write(HALF)
            assert b" 408 " in await ends(reader)


def refusals(home, problem: str) -> float:
    return home.rounds.metrics.registry.get_sample_value("choral_refusals_total", {"problem": problem}) or 0


async def test_what_is_refused_before_it_is_a_request_is_counted_as_well(tmp_path):
    limits = Limits(head_bytes=2000, head_seconds=0.2)
    settings = {"connections": 64, "connections_per_address": 2}
    async with house(tmp_path, limits=limits, settings=settings) as home:
        for count in (1, 2):
            await raw(home.port, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2000 + b"\r\n\r\n")
            assert refusals(home, "head-too-large") == count
        await raw(home.port, b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert refusals(home, "http") == 1
        async with connections(home.port, 1, HALF) as ((reader, _),):
            await ends(reader)
        assert refusals(home, "too-slow") == 1
        await until(lambda: not home.listener.open)
        async with connections(home.port, 2):
            await until(lambda: home.listener.open.total() == 2)
            await raw(home.port, ALIVE)
        assert refusals(home, "too-many-connections") == 1
        assert home.rounds.metrics.text().count(b"choral_refusals_total{") == 4  # and nothing else


async def test_a_head_that_trickles_has_no_more_time_than_one_that_stops(tmp_path):
    async with (
        house(tmp_path, limits=Limits(head_seconds=0.3)) as home,
        connections(home.port, 1, HALF) as ((reader, writer),),
    ):

        async def trickle():
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert (await answer(reader))[0] == 408
        trickling.cancel()


async def test_a_connection_that_waits_for_an_answer_is_no_late_head(tmp_path):
    async with house(tmp_path, limits=Limits(head_seconds=0.1), settings={"wait_seconds": 0.5}) as home:
        player = home.player(1)
        async with asyncio.timeout(5):
            asked = asyncio.create_task(player.transport.get("/v1/records?after=0"))
            await until(lambda: sum(path == "/v1/records?after=0" for _, path in home.asked) >= 2)
        asked.cancel()
        await player.leave()


async def test_three_hundred_half_heads_lock_nobody_out(tmp_path):
    async with house(tmp_path) as home, connections(home.port, 300, HALF):
        async with home.players(1, 2, 3) as players, asyncio.timeout(8):
            records = await asyncio.gather(*(player.play(home.head) for player in players))
        assert {record.version for record in records} == {1}


async def test_requests_that_are_sent_ahead_are_few(tmp_path):
    async with house(tmp_path) as home:
        async with connections(home.port, 1, ALIVE * 4) as ((reader, _),):
            assert [(await answer(reader))[0] for _ in range(4)] == [200] * 4
        async with connections(home.port, 1, ALIVE * 5000) as ((reader, _),):
            assert (await ends(reader)).count(b"HTTP/1.1 ") <= 6


async def test_a_handshake_that_does_not_come_ends_its_connection(tmp_path):
    authority = new_authority("house")
    new_server(authority, ["127.0.0.1"]).save(tmp_path, "server.pem", "server.key")
    certificate = ServerCertificate(tmp_path / "server.pem", tmp_path / "server.key")
    listener = Listener("127.0.0.1", 0, most=4, per_address=4, tls=True)

    async def app(scope, receive, send):
        raise AssertionError("nobody gets here")

    server = line.server(app, Limits(head_seconds=0.2), ssl_context_factory=lambda *_: certificate.context)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    async with connections(listener.getsockname()[1], 4, b"\x16\x03\x01") as found:
        await until(lambda: listener.open.total() == 4)  # they count before they are anything
        assert all([not await ends(reader) for reader, _ in found])
        assert listener.open.total() == 0
    server.should_exit = True
    await running


# ----- connections ----------------------------------------------------------------------------


async def test_one_connection_too_many_is_told_so_at_once_and_the_others_live_on(tmp_path):
    async with house(tmp_path, settings={"connections": 64, "connections_per_address": 20}) as home:
        async with connections(home.port, 20) as found:
            await until(lambda: home.listener.open.total() == 20)
            status, headers, body = await raw(home.port, ALIVE)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert json.loads(body)["type"] == "urn:choral:problem:too-many-connections"
            reader, writer = found[0]
            writer.write(ALIVE)
            assert (await answer(reader))[0] == 200
        await until(lambda: not home.listener.open)
        assert (await raw(home.port, ALIVE))[0] == 200


async def test_the_limit_is_for_each_address_and_for_all(tmp_path):
    async with house(tmp_path, settings={"connections": 16, "connections_per_address": 12}) as home:
        with contextlib.ExitStack() as stack:

            def connect(origin: str) -> socket.socket:
                sock = stack.enter_context(socket.socket())
                sock.bind((origin, 0))
                sock.setblocking(True)
                sock.connect(("127.0.0.1", home.port))
                return sock

            for _ in range(12):
                connect("127.0.0.2")
            await until(lambda: home.listener.open["127.0.0.2"] == 12)
            for _ in range(4):
                connect("127.0.0.3")
            await until(lambda: home.listener.open["127.0.0.3"] == 4)
            status, _, _ = await raw(home.port, ALIVE)  # from 127.0.0.1: all are taken
            assert status == 503


def test_what_one_machine_can_have_many_of_is_one_address():
    assert network("192.0.2.7") != network("192.0.2.8")
    assert network("2001:db8::1") == network("2001:db8::ffff:1%eth0") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.7") == "192.0.2.7"


@pytest.mark.parametrize(
    ("files", "most", "per_address", "expected"),
    [
        (None, None, None, (8192, 1024)),
        (1024, None, None, (1024 - KEPT_FILES, (1024 - KEPT_FILES) // 2)),
        (1024, 5000, 4000, (1024 - KEPT_FILES, 1024 - KEPT_FILES)),
        (1 << 20, 100, None, (100, 50)),
        (64, None, None, (1, 1)),
    ],
)
def test_no_more_connections_are_taken_than_there_are_files_for(files, most, per_address, expected):
    assert room_for(files, most, per_address) == expected


def test_the_limit_of_open_files_is_raised_to_what_is_allowed():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_when_no_file_is_left_accepting_rests(tmp_path, monkeypatch):
    """asyncio asks thousands of times in one go, and says each time that it could not."""
    async with house(tmp_path) as home:
        told, asked = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        real = Listener._accept

        def out_of_files(self):
            asked.append(1)
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(Listener, "_accept", out_of_files)
        async with connections(home.port, 3, ALIVE) as ((reader, _), *_):
            await asyncio.sleep(0.3)
            assert (len(asked), len(told)) == (1, 1)
            monkeypatch.setattr(Listener, "_accept", real)
            assert (await answer(reader))[0] == 200  # and it is taken up again


# ----- what lies unread -----------------------------------------------------------------------


async def test_what_is_not_read_of_an_answered_body_does_not_stay_for_ever(tmp_path):
    async with house(tmp_path, limits=Limits(head_seconds=0.2)) as home:
        asked = b"POST /v1/rounds HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        async with connections(home.port, 1, asked) as ((reader, writer),):
            assert (await answer(reader))[0] == 401
            writer.write(b"x" * 50000)  # and the rest never comes
            assert await ends(reader) == b""
        async with connections(home.port, 1, asked) as ((reader, writer),):
            assert (await answer(reader))[0] == 401
            writer.write(b"x" * 100000 + ALIVE)  # whoever does send it goes on as before
            assert (await answer(reader))[0] == 200
