"""What one member can have of the aggregator at once: counted and traced over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import tracemalloc
import weakref

import pytest
from quart import Quart, Response, request

from choral.learning import model_file
from choral.protocol.sealing import AesGcm
from choral.service.http import line
from choral.service.http.bodies import read_vector
from choral.service.http.exchange import Asked, Exchange
from choral.service.http.line import Limits
from choral.service.http.listener import Listener
from choral.service.http.turns import OPEN_REQUESTS, UPLOAD_BYTES, Lending, Uploads, Visits
from house import answer, house, problem, raw, until

MIB = 1 << 20


@contextlib.asynccontextmanager
async def serving(view, limits: Limits | None = None):
    """An application of one view that takes bodies, as the aggregator serves its own; the port."""
    app = Quart(__name__, static_folder=None)
    app.asgi_http_class, app.request_class = Exchange, Asked
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.route("/", methods=["GET", "PUT"])(view)
    listener = Listener("127.0.0.1", 0, most=100, per_address=100)
    server = line.server(app, limits, timeout_graceful_shutdown=0)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await running


@contextlib.asynccontextmanager
async def connected(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def asked(player, method: str, path: str, length: int = 0) -> bytes:
    """The head of a request of `player`."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Authorization: {player.header(method, path, time.time())}\r\n\r\n"
    ).encode()


# ----- bodies ---------------------------------------------------------------------------------


async def test_memory_for_a_vector_is_taken_as_it_arrives_and_not_as_it_is_announced():
    async def view() -> Response:
        return Response(str(len(await read_vector(1 << 30, 10))))

    async with serving(view) as port, contextlib.AsyncExitStack() as stack:
        tracemalloc.start()
        try:
            for _ in range(20):
                _, writer = await stack.enter_async_context(connected(port))
                writer.write(
                    b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000)
                )
            await asyncio.sleep(0.2)
            assert tracemalloc.get_traced_memory()[1] < 20 * MIB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("head", [b"", b"\x01", b"\0\0\0\0", b"\x05\0\0\0hello", b"\x08\0\0\0" + b"k" * 8])
@pytest.mark.parametrize("apart", [True, False])
async def test_a_vector_is_whole_and_its_words_are_aligned_however_it_arrives(head, apart):
    body = head + bytes(range(64)) if len(head) >= 4 else head
    got = []

    async def view() -> Response:
        data = await read_vector(1 << 20, 5)
        got.append(bytes(data))
        at = memoryview(data)
        import numpy as np  # noqa: PLC0415

        return Response(str(np.frombuffer(at, "u1").ctypes.data + len(head)) if at else "0")

    async with serving(view) as port, connected(port) as (reader, writer):
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(len(body) if apart else 0):
            writer.write(body[at : at + 1])
            await asyncio.sleep(0.001)
        writer.write(b"" if apart else body)
        status, _, address = await answer(reader)
    assert (status, got) == (200, [body])
    assert len(head) < 4 or int(address) % 8 == 0


async def test_what_nobody_reads_yet_stays_with_its_sender():
    go = asyncio.Event()

    async def view() -> Response:
        await go.wait()
        size = 0
        async for piece in request.body:
            size += len(piece)
        return Response(str(size))

    async with serving(view) as port, connected(port) as (reader, writer):
        size = 64 * MIB
        piece = bytes(MIB)
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)

        async def send():
            for _ in range(size // MIB):
                writer.write(piece)
                await writer.drain()

        tracemalloc.start()
        try:
            sending = asyncio.create_task(send())
            await asyncio.sleep(0.3)
            assert not sending.done()
            assert tracemalloc.get_traced_memory()[1] < 6 * MIB
            go.set()
            assert (await answer(reader))[2] == b"%d" % size
            assert tracemalloc.get_traced_memory()[1] < 6 * MIB
        finally:
            tracemalloc.stop()
            sending.cancel()


@pytest.mark.parametrize(
    "fields", [b"Content-Length: 5", b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"]
)
@pytest.mark.parametrize("path", [b"/v1/records?after=0", b"/livez", b"/v1/task", b"/nothing"])
async def test_a_get_has_no_body(tmp_path, fields, path):
    async with house(tmp_path) as home:
        found = await raw(home.port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n")
        assert problem(found)["status"] == 400
        assert "no body" in problem(found)["detail"]
        assert found[1]["connection"] == "close"


# ----- answers --------------------------------------------------------------------------------


async def test_a_model_is_in_memory_once_however_many_do_not_read_it_and_they_are_cut_off(
    tmp_path, monkeypatch
):
    async with house(tmp_path, limits=Limits(stalled_seconds=3.0)) as home:
        size = 32 * MIB
        loads = []

        def blob(digest: bytes) -> bytes:
            loads.append(digest)
            return bytes(size)

        monkeypatch.setattr(home.training, "blob", blob)
        path = "/v1/models/" + "ab" * 32
        async with contextlib.AsyncExitStack() as stack:
            tracemalloc.start()
            try:
                for i in (1, 2, 3):
                    player = home.player(i)
                    for _ in range(OPEN_REQUESTS):
                        _, writer = await stack.enter_async_context(connected(home.port))
                        writer.write(asked(player, "GET", path))
                    await player.leave()
                visits, models = home.app.extensions["visits"], home.app.extensions["models"]
                await until(lambda: len(visits) == 3 * OPEN_REQUESTS)
                assert len(models) == 1
                await until(lambda: not visits, 15)  # nobody reads: all are hung up on
                assert tracemalloc.get_traced_memory()[1] < size + 12 * MIB
                assert not models
                assert len(loads) == 1
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] < 8 * MIB
            finally:
                tracemalloc.stop()
        async with connected(home.port) as (reader, writer):  # who reads has it whole
            writer.write(asked(home.player(1), "GET", path))
            assert (await answer(reader))[2] == bytes(size)


async def test_a_model_that_browsers_do_not_read_is_in_memory_once_too(tmp_path, monkeypatch):
    async with house(tmp_path, limits=Limits(stalled_seconds=3.0)) as home:
        loads = []

        def blob(digest: bytes) -> bytes:
            loads.append(digest)
            return bytes(16 * MIB)

        monkeypatch.setattr(home.store, "blob", blob)
        monkeypatch.setattr(model_file, "digest", lambda data: home.head.parameters)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                _, writer = await stack.enter_async_context(connected(home.port))
                writer.write(b"GET /models/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            models = home.app.extensions["models"]
            await until(lambda: any(loan.users == 20 for loan in models._loans.values()))
            assert (len(loads), len(models)) == (1, 1)
            await until(lambda: not models, 15)


async def test_a_slow_reader_that_reads_is_not_cut_off():
    async def view() -> Response:
        return Response(bytes(16 * MIB))

    async with serving(view, Limits(stalled_seconds=0.3)) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        got, began = 0, time.monotonic()
        while got < 16 * MIB:
            got += len(await reader.read(1 << 17))
            await asyncio.sleep(0.008)
        assert time.monotonic() - began > 0.6


async def test_a_load_that_fails_fails_for_those_who_asked_and_is_tried_anew():
    lending: Lending[int] = Lending()
    ends = []

    def fail() -> bytes:
        raise OSError("no disk")

    both = [lending.lend(1, fail, ends.append) for _ in range(2)]
    assert [type(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [OSError] * 2
    for end in ends:
        end()
    assert await lending.lend(1, lambda: b"x", ends.append) == b"x"


# ----- requests of a member -------------------------------------------------------------------


async def test_of_two_thousand_polls_with_one_header_six_are_open_and_the_members_own_lives(tmp_path):
    async with house(tmp_path, settings={"wait_seconds": 5.0}) as home:
        victim = home.player(1)
        own = asyncio.create_task(victim.transport.get("/v1/records?after=0"))
        visits = home.app.extensions["visits"]
        await until(lambda: len(visits) == 1)
        poll = asked(victim, "GET", "/v1/records?after=0")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(200):
                _, writer = await stack.enter_async_context(connected(home.port))
                writer.write(poll)
                await asyncio.sleep(0.001)
                assert len(visits) <= OPEN_REQUESTS
            await until(lambda: len(visits) == OPEN_REQUESTS)
            assert not own.done()
            assert home.rounds.presence.connected("m1")
            asked_before = len([path for _, path in home.asked if path == "/v1/records?after=0"])
            assert asked_before >= 150  # they did come in
        own.cancel()
        await victim.leave()


def test_a_request_too_many_ends_the_oldest_of_those_that_are_most_alike():
    ended = []
    visits = Visits(most=3)
    leaves = {
        name: visits.enter("m1", header, lambda name=name: ended.append(name))
        for name, header in [("own", "a"), ("r1", "b"), ("r2", "b"), ("r3", "b"), ("new", "c")]
    }
    assert ended == ["r1", "r2"]
    visits.enter("m2", "b", lambda: ended.append("other"))
    assert len(visits) == 4
    for leave in leaves.values():
        leave()
        leave()
    assert len(visits) == 1
    assert ended == ["r1", "r2"]


# ----- uploads --------------------------------------------------------------------------------


async def test_the_newer_upload_of_a_member_takes_over_and_the_older_is_hung_up_on(tmp_path):
    async with house(tmp_path) as home, home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, inbox = await one.play(base, until="mask")
        body = b"".join(one.me.sealing.encode_vector(machine.receive(inbox)))
        path = f"{one.at(machine)}/masked"
        uploads = home.app.extensions["uploads"]
        async with connected(home.port) as (broken, writer):
            writer.write(asked(one, "PUT", path, len(body)) + body[:-1])
            await until(lambda: uploads.held == 1)
            waiting = asyncio.create_task(one.transport.send("PUT", path, body))
            with contextlib.suppress(ConnectionError):
                assert await broken.read() == b""
        await waiting
        assert uploads.held == 0
        assert set(home.status()["cohorts"][0]["in"]["mask"]) == {"m1", "m2", "m3"}
        others.cancel()


async def test_a_vector_that_was_taken_is_not_held_while_its_sender_waits(tmp_path, monkeypatch):
    decode, vectors = AesGcm.decode_vector, []

    def decoded(self, *args):
        vector = decode(self, *args)
        vectors.append(weakref.ref(vector.main))
        return vector

    monkeypatch.setattr(AesGcm, "decode_vector", decoded)
    async with house(tmp_path) as home, home.players(1, 2, 3) as players, asyncio.timeout(8):
        base = home.head
        came = await asyncio.gather(*(player.play(base, until="mask") for player in players))
        waiting = [
            asyncio.create_task(player.mask(*found))
            for player, found in zip(players[:2], came[:2], strict=True)
        ]
        await until(lambda: len(home.status()["cohorts"][0]["in"]["mask"]) == 2)
        uploads = home.app.extensions["uploads"]
        await until(lambda: uploads.held == 0)
        gc.collect()
        assert [ref() for ref in vectors] == [None, None]
        assert not any(task.done() for task in waiting)  # they wait for the third
        for task in waiting:
            task.cancel()


async def test_uploads_wait_for_their_turn_and_those_that_do_not_get_one_are_told_so(tmp_path):
    async with house(tmp_path, 4, settings={"phase_seconds": 3.0}) as home:
        uploads = home.app.extensions["uploads"]
        uploads._room, uploads.most = asyncio.Semaphore(1), 1
        async with home.players(1, 2, 3, 4) as players, asyncio.timeout(8):
            base = home.head
            came = await asyncio.gather(*(player.play(base, until="mask") for player in players))
            slow = players[0]
            path = f"{slow.at(came[0][0])}/masked"
            async with connected(home.port) as (_, writer):
                writer.write(asked(slow, "PUT", path, 1000) + b"abc")
                await until(lambda: uploads.held == 1)
                tasks = [
                    asyncio.create_task(player.mask(*found))
                    for player, found in zip(players[1:], came[1:], strict=True)
                ]
                await asyncio.sleep(0.2)
                assert uploads.held == 1
                assert home.status()["cohorts"][0]["in"]["mask"] == []
            # the slow one is gone: the others' turns come, one after the other
            survivors = await asyncio.gather(*tasks)
            assert {frozenset(found.members) for found in survivors} == {frozenset(["m2", "m3", "m4"])}


@pytest.mark.parametrize("bytes_a_second", [0, 100])
async def test_who_is_too_slow_for_the_deadline_does_not_keep_the_others_waiting_for_it(
    tmp_path, bytes_a_second
):
    async with house(tmp_path, 4, settings={"phase_seconds": 6.0}) as home:
        uploads = home.app.extensions["uploads"]
        uploads._room, uploads.most = asyncio.Semaphore(1), 1
        async with home.players(1, 2, 3, 4) as players, asyncio.timeout(15):
            base = home.head
            came = await asyncio.gather(*(player.play(base, until="mask") for player in players))
            slow = players[0]
            async with connected(home.port) as (reader, writer):
                writer.write(asked(slow, "PUT", f"{slow.at(came[0][0])}/masked", 1000) + b"abc")

                async def trickle():
                    while bytes_a_second:
                        writer.write(b"x")
                        await asyncio.sleep(1 / bytes_a_second)

                trickling = asyncio.create_task(trickle())
                await until(lambda: uploads.held == 1)
                others = [
                    asyncio.create_task(player.mask(*found))
                    for player, found in zip(players[1:], came[1:], strict=True)
                ]
                found = await answer(reader)
                trickling.cancel()
                assert problem(found)["title"] == "too slow"
                (live,) = home.rounds.conductor.lives()
                assert time.monotonic() < live.deadline - 1  # long before that of the phase
            survivors = await asyncio.gather(*others)
            assert {frozenset(found.members) for found in survivors} == {frozenset(["m2", "m3", "m4"])}


async def test_a_slow_sender_has_all_its_time_while_nobody_waits():
    async def view() -> Response:
        return Response(str(len(await read_vector(1000, 1.2))))

    async with serving(view) as port, connected(port) as (reader, writer):
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
        await asyncio.sleep(0.8)
        writer.write(b"x" * 20)
        assert (await answer(reader))[0] == 200


async def test_whose_turn_does_not_come_in_time_is_refused():
    uploads = Uploads(UPLOAD_BYTES)
    clock = asyncio.get_running_loop().time
    async with contextlib.AsyncExitStack() as stack:
        for i in range(uploads.most):
            await stack.enter_async_context(uploads.turn(f"m{i}", lambda: None, clock() + 5))
        with pytest.raises(Exception, match="other vectors were on their way") as refused:
            async with uploads.turn("late", lambda: None, clock() + 0.05):
                pass
        assert refused.value.status == 408
        assert uploads.held == uploads.most
    assert (uploads.held, uploads._of) == (0, {})


@pytest.mark.parametrize(
    ("vector", "most"), [(1 << 30, 4), (1 << 20, 512), (100, UPLOAD_BYTES // 100), (0, UPLOAD_BYTES)]
)
def test_as_many_uploads_are_held_as_fit(vector, most):
    assert Uploads(vector).most == most
