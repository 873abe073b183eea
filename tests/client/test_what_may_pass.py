"""What something on the way says, and what may pass, ends no member (§7.5)."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from test_transport import OK, Server, problem, transport

from choral.client import member as client
from choral.client.clocks import Clocks
from choral.client.events import calling
from choral.client.journal import Journal
from choral.client.refusals import TooLarge, Unexplained, refusal
from choral.errors import (
    AggregatorUnavailable,
    ChoralError,
    ClockError,
    IdentityError,
    KeptOut,
    NoRoom,
    ParameterError,
    PeerError,
    RoundAborted,
    Superseded,
    TwoProcesses,
    UnknownRound,
)
from house import Told, house, until

HTML = b"<html>nginx</html>"


def page(status: int, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/html\r\n{more}Content-Length: {len(HTML)}\r\n\r\n"
    return head.encode() + HTML


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504, 520])
async def test_the_page_of_a_proxy_is_tried_again_like_a_broken_connection_with_a_word(status):
    slept: list[float] = []
    told: list[Any] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with (
        Server(lambda n, _: page(status) if n < 6 else OK) as server,
        transport(
            server.url, patience=None, sleep=sleep, tell=calling(lambda *a, **k: told.append(k))
        ) as http,
    ):
        assert await http.get("/v1/records?after=0") == b"ok"
    assert len(slept) == 6
    assert slept == sorted(slept)
    assert [f"HTTP {status}" in said["reason"] for said in told] == [True]


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_within_a_round_it_is_tried_for_a_while_only(status):
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async with (
        Server(lambda n, _: page(status)) as server,
        transport(server.url, patience=None, sleep=sleep, clock=lambda: now[0]) as http,
    ):
        with pytest.raises(Unexplained, match=f"HTTP {status} without an explanation"):
            await http.send("POST", "/v1/rounds/x/shares", b"x", unexplained=60.0)
    assert 60 <= now[0] < 70


async def test_a_limit_of_a_proxy_is_a_sentence_that_says_what_it_must_allow():
    async with Server(lambda n, _: page(413)) as server, transport(server.url, patience=None) as http:
        with pytest.raises(TooLarge, match=r"HTTP 413: a proxy on the way takes no body of 2\.3 MB") as error:
            await http.send("PUT", "/v1/rounds/x/masked", [bytes(2_300_000)])
    assert "to 4 MB at least" in (error.value.hint or "")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x" * 70000,
        b"[" * 100000,
        json.dumps({"type": "urn:choral:problem:peer", "detail": "x", "culprits": ["m"] * 20000}).encode(),
        json.dumps({"type": "about:blank", "detail": "x"}).encode(),
    ],
)
async def test_a_refusal_that_cannot_be_read_ends_a_round_and_no_member(tmp_path, monkeypatch, body):
    monkeypatch.setattr("choral.client.over_http._IN_ROUND", 0.2)
    async with house(tmp_path, 4, rounds=1) as home:
        members = [asyncio.create_task(home.member(i)) for i in (1, 2, 3, 4)]
        home.lies = [lambda method, path: Told(body, 409) if path.endswith("/consistency") else None]
        await until(lambda: all(home.told(i, "aborted") for i in (1, 2, 3, 4)), 8)
        home.lies = []
        records = await asyncio.wait_for(asyncio.gather(*members), 20)
        assert {record.version for record in records} == {1}


@pytest.mark.parametrize("status", [404, 413, 429, 403, 502])
@pytest.mark.parametrize("part", ["/v1/rounds", "/masked", "/v1/models", "/v1/records"])
async def test_members_go_on_once_the_proxy_lets_them(tmp_path, monkeypatch, status, part):
    monkeypatch.setattr(client, "_TOO_LARGE", 0.2)
    async with house(tmp_path, 4, rounds=1, settings={"phase_seconds": 2.0}) as home:
        lied = []

        def lie(method, path):
            if part not in path or len(lied) > 8:
                return None
            lied.append(path)
            return Told(HTML, status)

        home.lies = [lie]
        records = await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3, 4))), 30)
        assert lied
        assert {record.version for record in records} == {1}


async def test_a_retry_after_is_heeded_within_bounds():
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    answers = [
        page(429, "Retry-After: 7\r\n"),
        page(429, "Retry-After: 86400\r\n"),
        page(503, "Retry-After: soon\r\n"),
    ]
    async with (
        Server(lambda n, _: answers[n] if n < 3 else OK) as server,
        transport(server.url, patience=None, sleep=sleep) as http,
    ):
        await http.get("/")
    assert slept[0] == 7.0
    assert slept[1] == 60.0
    assert slept[2] < 1


@pytest.mark.parametrize(
    "told",
    [
        Told(b"x" * (1 << 24)),
        Told(b'{"type": "urn:choral:problem:internal", "detail": "x"}', 500),
        Told(HTML, 404),
        Told(b'{"type": "urn:choral:problem:identity", "detail": "x"}', 400),
        Told(b'{"state": "\\u001b[2J", "details": {}}'),
    ],
)
async def test_no_failure_to_learn_an_old_outcome_keeps_a_member_from_starting(tmp_path, monkeypatch, told):
    monkeypatch.setattr("choral.client.over_http._ASIDE", 0.2)
    async with house(tmp_path, 4, rounds=1) as home:
        journal = Journal(home.root / "m1/state")
        journal.spend(b"\x07" * 32, home.head, bytes(32))
        journal.close()
        home.lies = [lambda method, path: told if path.startswith("/v1/rounds/0707") else None]
        await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3, 4))), 15)
        (said,) = home.told(1, "last outcome")
        assert said["version"] is None
        assert said["state"].isprintable()


def test_a_refusal_cannot_pass_for_an_error_of_the_members_own_making():
    """Or an aggregator, or whoever writes its answers, ends members by a word."""
    for slug in (
        "parameter",
        "update",
        "spent",
        "tls",
        "shard",
        "aggregator-unavailable",
        "error",
        "nothing",
    ):
        body = json.dumps({"type": f"urn:choral:problem:{slug}", "detail": "x"}).encode()
        assert type(refusal(409, body, 0)) is ChoralError


def test_every_refusal_of_the_service_arrives_as_what_it_is_with_its_rule():
    for kind in (ClockError, KeptOut, NoRoom, PeerError, RoundAborted, Superseded, UnknownRound):
        body = json.dumps(
            {"type": f"urn:choral:problem:{kind.slug}", "detail": "x", "rule": "4.2.2"}
        ).encode()
        found = refusal(409, body, 0)
        assert type(found) is kind
        assert found.rule == "4.2.2"


def test_the_names_of_a_refusal_are_bounded():
    body = json.dumps({"type": "urn:choral:problem:peer", "detail": "x", "culprits": ["m" * 9999] * 9999})
    found = refusal(409, body.encode(), 0)
    assert len(found.culprits) <= 256
    assert max(map(len, found.culprits)) <= 500


# ----- clocks -------------------------------------------------------------------------------------


class Time:
    """This machine's clock, and what passes."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_700_000_000.0, 50.0

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def date(self, ahead: float = 0.0) -> str:
        return formatdate(self.wall + ahead, usegmt=True)

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall, lambda: self.steady)


def test_the_clock_that_moved_is_the_one_that_is_named():
    machine = Time()
    clocks = machine.clocks()
    assert "one of the two clocks is wrong" in clocks.blame(machine.date(3600))
    clocks.good(machine.date())
    machine.go(1000)
    assert clocks.blame(machine.date()) is None
    assert "the aggregator's clock was moved by +3600 s" in clocks.blame(machine.date(3600))
    true = machine.date()
    machine.wall -= 7200
    assert "this machine's clock was moved by -7200 s" in clocks.blame(true)
    assert clocks.blame(None) is None
    assert clocks.blame("yesterday") is None


def refused(date: str, slug: str = "clock") -> bytes:
    return problem(401, slug).replace(b"\r\n\r\n", f"\r\nDate: {date}\r\n\r\n".encode(), 1)


async def test_a_clock_that_is_off_for_a_while_ends_no_member_that_was_good_before():
    machine = Time()
    told: list[str] = []

    async def sleep(seconds: float) -> None:
        machine.go(seconds)

    def script(n: int, _: bytes) -> bytes:
        good = OK.replace(b"\r\n\r\n", f"\r\nDate: {machine.date()}\r\n\r\n".encode())
        return refused(machine.date(5000)) if 0 < n < 60 else good

    async with (
        Server(script) as server,
        transport(
            server.url,
            patience=None,
            sleep=sleep,
            wall=lambda: machine.wall,
            clock=lambda: machine.steady,
            tell=lambda event: told.append(event.reason),
        ) as http,
    ):
        await http.get("/")
        assert await http.get("/") == b"ok"
    assert machine.steady > 1500
    assert len(told) == 1
    assert "the aggregator's clock was moved by +5000 s" in told[0]


async def test_at_first_contact_a_clock_is_a_mistake_and_both_are_named():
    machine = Time()
    async with (
        Server(lambda n, _: refused(machine.date(5000))) as server,
        transport(server.url, patience=None, wall=lambda: machine.wall) as http,
    ):
        with pytest.raises(ClockError, match=r"this machine says 2023-.*, the aggregator 2023-.* is wrong"):
            await http.get("/")
    assert len(server.requests) == 1


async def test_a_clock_that_is_off_passes_also_where_no_answer_has_a_date():
    """As over files (§7.6)."""
    machine = Time()

    async def sleep(seconds: float) -> None:
        machine.go(seconds)

    async with (
        Server(lambda n, _: problem(401, "clock") if 0 < n < 60 else OK) as server,
        transport(
            server.url, patience=None, sleep=sleep, wall=lambda: machine.wall, clock=lambda: machine.steady
        ) as http,
    ):
        await http.get("/")
        assert await http.get("/") == b"ok"
    assert machine.steady > 1500


async def test_a_key_that_was_good_is_tried_for_ten_minutes_before_it_is_none():
    machine = Time()

    async def sleep(seconds: float) -> None:
        machine.go(seconds)

    async with (
        Server(lambda n, _: OK if n == 0 else problem(401, "identity")) as server,
        transport(
            server.url, patience=None, sleep=sleep, wall=lambda: machine.wall, clock=lambda: machine.steady
        ) as http,
    ):
        await http.get("/")
        began = machine.steady
        with pytest.raises(IdentityError, match="because"):
            await http.get("/")
    assert 600 <= machine.steady - began < 700
    assert len(server.requests) < 40


# ----- proxies, addresses, cookies -------------------------------------------------------------------


async def test_a_loopback_aggregator_never_goes_through_a_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with Server(lambda n, _: OK) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            async with transport(url, patience=0.5) as http:
                assert await http.get("/") == b"ok"


async def test_any_other_goes_through_it_and_a_proxy_that_is_away_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with transport("http://aggregator.example:8750", patience=0.2) as http:
        with pytest.raises(
            AggregatorUnavailable, match=r"through the proxy of http_proxy=http://…@127"
        ) as error:
            await http.get("/")
    assert "NO_PROXY: aggregator.example" in (error.value.hint or "")
    assert "secret" not in error.value.reason


@pytest.mark.parametrize("proxy", ["ftp://proxy", "socks5://proxy:1080", "::", "http://a:b:c"])
async def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(ParameterError, match="HTTP_PROXY=") as error:
        async with transport("http://aggregator.example:8750", patience=0.2) as http:
            await http.get("/")
    assert error.value.hint
    async with transport("http://127.0.0.1:9", patience=0.0) as http:  # that of this machine does without
        with pytest.raises(AggregatorUnavailable):
            await http.get("/")


async def test_ipv6_addresses_are_addresses():
    server = await asyncio.start_server(_ok, "::1", 0)
    port = server.sockets[0].getsockname()[1]
    async with transport(f"http://[::1]:{port}/", patience=1.0) as http:
        assert await http.get("/v1/task") == b"ok"
    server.close()
    with pytest.raises(ParameterError, match="in brackets"):
        transport(f"http://::1:{port}")


async def _ok(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    await writer.drain()


async def test_no_cookie_is_kept():
    cookie = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: id=1; Path=/; Max-Age=9999\r\n\r\n")
    async with Server(lambda n, _: cookie) as server, transport(server.url) as http:
        for _ in range(3):
            await http.get("/")
    assert not any("cookie" in headers for _, headers, _ in server.requests)


# ----- two processes -------------------------------------------------------------------------------


def test_a_header_that_is_replayed_for_as_long_as_it_is_good_ends_no_new_process(tmp_path):
    """§7.4: a header is good for 300 s either way of the aggregator's clock: 600 s at most."""
    from socketless import Federation, Seat, now, run  # noqa: PLC0415

    class Doubled(Seat):
        until = 600.0

        async def join(self, advertise, without):
            if now() < self.until:
                raise TwoProcesses("another process has joined", culprits=[self.name])
            return await super().join(advertise, without)

    async def play(until: float) -> None:
        federation = Federation(tmp_path / str(until), 3, rounds=1)
        seat = Doubled(federation, "m1")
        seat.until = until
        assert {record.version for record in await federation.train(m1={"seat": seat})} == {1}

    run(play(600.0))
    began = time.monotonic()
    with pytest.raises(TwoProcesses):
        run(play(1e9))  # a second process that stays is an end
    assert time.monotonic() - began < 30


# ----- kept out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("let_in", [1000.0, 1e9])
def test_a_member_that_is_kept_out_asks_ever_less_often_until_it_is_let_in_or_training_is_over(
    tmp_path, let_in
):
    from socketless import Federation, Seat, now, run  # noqa: PLC0415

    asked: list[float] = []

    class Outside(Seat):
        async def join(self, advertise, without):
            asked.append(now())
            if now() < let_in:
                raise KeptOut("m1 is kept out", hint="choral readmit")
            return await super().join(advertise, without)

    async def play() -> float:
        async def late(name: str) -> None:
            await asyncio.sleep(400 if let_in == 1e9 else 0)
            with federation.member(name) as found:
                await found.run()

        with federation.member("m1", seat=Outside(federation, "m1")) as outside:
            record, *_ = await asyncio.gather(outside.run(), late("m2"), late("m3"), late("m4"))
        assert record.version == 1
        return now()

    federation = Federation(tmp_path, 4, rounds=1, minimum=4 if let_in < 1e9 else 3)
    ended = run(play())
    waits = [round(later - before) for before, later in pairwise(asked)]
    assert len(federation.told("m1", "kept out")) == 1
    assert KeptOut("x").passes  # a process that restarts by its code may do so
    if let_in < 1e9:
        assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        assert len(federation.told("m1", "let back in")) == 1
    else:  # with the training, and not when it would have asked again
        assert waits == [5, 10, 20, 40, 80, 160]
        assert ended < asked[-1] + 300
        assert not federation.told("m1", "let back in")
