"""HTTP as the client does it: retries, long polls, nothing half."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from choral.binding.access import Access, verify_access
from choral.binding.sizes import largest_answer
from choral.client.events import PutOff, Unreachable
from choral.client.transport import Transport
from choral.errors import (
    AggregatorUnavailable,
    ChoralError,
    IdentityError,
    OutOfPhase,
    ParameterError,
    RoundAborted,
    TwoProcesses,
    WireError,
)
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from house import Proxy, house, until

ME = Identity.generate(seeded(b"me"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[int, bytes], bytes | None]


class Server:
    """Answers its n-th request as a script says; None hangs up in the middle of the body."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                line, *rest = head.strip().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (entry.partition(":") for entry in rest)}
                number = len(self.requests)
                answer = self.script(number, head.encode())
                length = int(headers.get("content-length", 0))
                body = await reader.readexactly(length // 2 if answer is None else length)
                self.requests.append((line, headers, body))
                if answer is None:
                    writer.transport.abort()
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def transport(url: str, **changes: Any) -> Transport:
    given: dict[str, Any] = {"patience": 5.0, "jitter": lambda: 0.0, "verify": False} | changes
    return Transport(url, ME, Access("me", "0" * 16), **given)


def problem(status: int, slug: str, more: str = "") -> bytes:
    body = f'{{"type": "urn:choral:problem:{slug}", "detail": "because"{more}}}'.encode()
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\n".encode()
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def test_an_upload_that_breaks_off_is_sent_again_whole():
    pieces = [b"head", bytes(range(256)) * 20000, b"tail"]
    async with Server(lambda n, _: None if n in (1, 2) else OK) as server, transport(server.url) as client:
        await client.get("/")
        assert await client.send("PUT", "/v1/rounds/x/masked", pieces) == b"ok"
    assert [len(body) for _, _, body in server.requests[1:3]] == [len(b"".join(pieces)) // 2] * 2
    assert server.requests[3][2] == b"".join(pieces)


async def test_a_vector_is_not_sent_again_to_wait_for_its_answer():
    wait = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    async with Server(lambda n, _: wait if n < 2 else OK) as server, transport(server.url) as client:
        assert await client.send("PUT", "/masked", [b"vector"], again=("GET", "/masked")) == b"ok"
    assert [(line.split()[0], body) for line, _, body in server.requests] == [
        ("PUT", b"vector"), ("GET", b""), ("GET", b""),
    ]  # fmt: skip


async def test_every_request_is_signed_for_itself():
    async with Server(lambda n, _: OK) as server, transport(server.url) as client:
        await client.get("/v1/records?after=3")
        await client.send("POST", "/v1/rounds", b"x")
    for (line, headers, _), (method, path) in zip(
        server.requests, [("GET", "/v1/records?after=3"), ("POST", "/v1/rounds")], strict=True
    ):
        assert line.startswith(f"{method} {path} ")
        found = verify_access(
            headers["authorization"], method, path, keys={"me": ME.public}, now=time.time(), skew=5
        )
        assert found == Access("me", "0" * 16)


async def test_failures_of_the_server_are_retried_with_growing_pauses():
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    reports = []
    async with (
        Server(lambda n, _: problem([500, 502, 503, 504][n % 4], "internal") if n < 9 else OK) as server,
        transport(server.url, sleep=sleep, tell=lambda event: reports.append(event.name)) as client,
    ):
        assert await client.get("/") == b"ok"
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert 2 < pauses[-1] <= 5
    assert reports == ["put off"]


@pytest.mark.parametrize(
    ("answer", "events"),
    [
        (problem(503, "no-room"), [("put off", "because", "no-room")]),
        (problem(503, "shutting-down"), [("put off", "because", "shutting-down")]),
        (b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n",
         [("unreachable", "HTTP 502 without an explanation", "aggregator-unavailable")]),
    ],
)  # fmt: skip
async def test_an_aggregator_that_answers_is_not_said_to_be_unreachable(answer, events):
    told = []

    def tell(event: PutOff | Unreachable) -> None:
        told.append((event.name, event.reason, event.problem))

    async with (
        Server(lambda n, _: answer if n < 6 else OK) as server,
        transport(server.url, sleep=lambda _: asyncio.sleep(0), tell=tell) as client,
    ):
        assert await client.get("/") == b"ok"
        assert told == events
        server.requests.clear()
        assert await client.get("/") == b"ok"
    assert told == events * 2  # once in each wait


async def test_each_reason_to_wait_is_told_once_however_they_alternate():
    told = []
    away = b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n"
    async with (
        Server(lambda n, _: OK if n == 12 else problem(503, "no-room") if n % 2 else away) as server,
        transport(
            server.url, sleep=lambda _: asyncio.sleep(0), tell=lambda event: told.append(event.name)
        ) as client,
    ):
        await client.get("/")
    assert sorted(told) == ["put off", "unreachable"]


@pytest.mark.parametrize("what", ["nobody there", "503 for ever"])
async def test_patience_has_an_end_that_says_what_failed(what):
    async with Server(lambda n, _: problem(503, "shutting-down")) as server:
        url = server.url if "503" in what else "http://127.0.0.1:9"
        async with transport(url, patience=0.2) as client:
            with pytest.raises(AggregatorUnavailable, match="did not answer for") as error:
                await client.get("/")
    assert ("because" in error.value.reason) == ("503" in what)


@pytest.mark.parametrize(
    ("answer", "kind", "names"),
    [
        (problem(401, "identity"), IdentityError, {}),
        (problem(408, "too-slow"), OutOfPhase, {}),
        (problem(409, "two-processes", ', "culprits": ["m1"]'), TwoProcesses, {"culprits": ("m1",)}),
        (problem(409, "round-aborted", ', "missing": ["m2"]'), RoundAborted, {"missing": ("m2",)}),
        (problem(400, "wire"), WireError, {}),
        (problem(413, "too-large"), ChoralError, {}),
    ],
)
async def test_a_refusal_arrives_as_the_error_that_it_names(answer, kind, names):
    async with Server(lambda n, _: answer) as server, transport(server.url) as client:
        with pytest.raises(kind) as error:
            await client.get("/")
    for name, value in names.items():
        assert getattr(error.value, name) == value
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["", "localhost:8750", "ftp://localhost", "http://", "http://[", "file:///etc/passwd"]
)
def test_an_address_that_is_none_is_refused_and_not_tried_for_ever(url):
    with pytest.raises(ParameterError, match="address of the aggregator"):
        transport(url)


async def test_a_member_that_is_offline_for_a_while_catches_up_by_itself(tmp_path):
    async with house(tmp_path, 4, rounds=40) as home, Proxy(home.port) as proxy:
        others = [asyncio.create_task(home.member(i)) for i in (1, 2, 3)]
        far = asyncio.create_task(home.member(4, url=proxy.url))
        await until(lambda: home.head.version >= 2, 8)
        proxy.cut()
        missed = home.head.version + 3
        await until(lambda: home.head.version >= missed, 8)
        proxy.heal()
        await until(lambda: home.head.version > missed and "m4" in home.head.survivors, 8)
        for task in (*others, far):
            task.cancel()
        await asyncio.gather(*others, far, return_exceptions=True)
        versions = [told["version"] for told in home.told(4, "version")]
        assert versions == list(range(len(versions)))


async def test_an_honest_answer_fits_into_the_limit(tmp_path):
    async with house(tmp_path, 4) as home:
        limit = largest_answer(home.aggregator.task)
        assert len(home.training.blob(home.head.parameters)) < limit
        assert limit < 1 << 20
