"""Whatever comes in is answered with problem+json, costs its sender a refusal and nobody else anything."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote

import numpy as np
import pytest

from choral.binding.access import Access, header
from choral.errors import (
    IdentityError,
    OutOfPhase,
    PeerError,
    RoundAborted,
    Superseded,
    TwoProcesses,
    UnknownRound,
    WireError,
)
from choral.learning import model_file
from choral.primitives.identity import Identity
from choral.protocol import wire
from choral.protocol.messages import Advertise, Inbox, MaskedVector, Shares
from choral.protocol.transcript import sign
from house import House, Player, answer, house, make_folder, problem, raw, until


@pytest.fixture
async def home(tmp_path):
    async with house(tmp_path, 3) as found:
        yield found


def request(home: House, i: int, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request of member i as bytes; headers given replace the usual ones, None leaves one out."""
    player = home.player(i)
    usual = {
        "Host": "x",
        "Authorization": player.header(method, path, time.time()),
        "Content-Length": str(len(body)),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1"] + [f"{k}: {v}" for k, v in usual.items() if v is not None]
    return "\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + body


async def finishes(home: House, *who: int) -> None:
    """These members still complete a round."""
    before = home.head.version
    async with home.players(*who) as players, asyncio.timeout(8):
        records = await asyncio.gather(*(player.play(home.head) for player in players))
    assert {record.version for record in records} == {before + 1}
    assert home.head.version == before + 1


# ----- who asks -------------------------------------------------------------------------------


async def test_a_request_without_a_signature_is_refused_with_a_hint(home):
    found = problem(await raw(home.port, request(home, 1, "GET", "/v1/task", Authorization=None)))
    assert found["status"] == 401
    assert found["type"] == "urn:choral:problem:identity"
    assert "Choral member=" in found["hint"]


@pytest.mark.parametrize(
    "path", ["/v1/records", "/v1/models/" + "0" * 64, "/v1/rounds/" + "0" * 64, "/v1/task"]
)
async def test_every_get_is_bound_to_a_member(home, path):
    for value in (None, "Basic YTpi", 'Choral member="m1"', "Choral " + "x" * 5000):
        found = problem(await raw(home.port, request(home, 1, "GET", path, Authorization=value)))
        assert found["status"] == 401


async def test_a_key_that_is_not_enrolled_is_refused(home, tmp_path):
    stranger = Identity.generate(os.urandom)
    for name in ("m1", "nobody"):
        value = header(stranger, Access(name, "0" * 16), "GET", "/v1/task", time.time())
        found = problem(await raw(home.port, request(home, 1, "GET", "/v1/task", Authorization=value)))
        assert found["status"] == 401
        assert found["type"] == "urn:choral:problem:identity"
    other = make_folder(tmp_path / "other", 3)  # a member of another federation, with the same name
    async with Player(other / "m1", home.url) as visitor:
        with pytest.raises(IdentityError, match="not signed by the pinned key of m1"):
            await visitor.transport.get("/v1/task")


async def test_a_signature_is_for_one_method_and_one_path(home):
    player = home.player(1)
    value = player.header("GET", "/v1/task", time.time())
    for method, path in (("GET", "/v1/records?after=0"), ("POST", "/v1/rounds"), ("GET", "/v1/task?a=1")):
        found = problem(await raw(home.port, request(home, 1, method, path, Authorization=value)))
        assert found["status"] == 401


@pytest.mark.parametrize("off", [-400, 400])
async def test_an_old_header_is_worth_nothing_and_the_refusal_tells_both_clocks(home, off):
    """Whose clock is wrong cannot be known here: a member compares the two times with others."""
    now = time.time()
    value = home.player(1).header("GET", "/v1/task", now + off)
    found = problem(await raw(home.port, request(home, 1, "GET", "/v1/task", Authorization=value)))
    assert (found["status"], found["type"], found["rule"]) == (401, "urn:choral:problem:clock", "7.4")
    assert "the clock that is off" in found["hint"]
    assert ("ahead" if off > 0 else "ago") in found["detail"]
    signed, here = (datetime.fromisoformat(text) for text in re.findall(r"20\S+Z", found["detail"]))
    assert abs(signed.timestamp() - now - off) <= 1
    assert 0 <= here.timestamp() - now + 1 <= 5


@pytest.mark.parametrize("when", [0, 10**12 - 1])
async def test_any_time_in_a_header_is_answered(home, when):
    value = home.player(1).header("GET", "/v1/task", when)
    found = problem(await raw(home.port, request(home, 1, "GET", "/v1/task", Authorization=value)))
    assert found["type"] == "urn:choral:problem:clock"


async def test_the_aggregators_own_key_may_look_but_not_take_part(home):
    value = header(
        home.aggregator.identity, Access("aggregator", "0" * 16), "GET", "/v1/records?after=-1", time.time()
    )
    status, _, _ = await raw(home.port, request(home, 1, "GET", "/v1/records?after=-1", Authorization=value))
    assert status == 200
    value = header(
        home.aggregator.identity, Access("aggregator", "0" * 16), "POST", "/v1/rounds", time.time()
    )
    assert (
        problem(await raw(home.port, request(home, 1, "POST", "/v1/rounds", Authorization=value)))["status"]
        == 401
    )


async def test_a_long_poll_with_the_aggregators_key_ends_like_any_other(tmp_path):
    async with house(tmp_path, settings={"wait_seconds": 0.05}) as home:
        path = "/v1/records?after=0"
        value = header(home.aggregator.identity, Access("aggregator", "0" * 16), "GET", path, time.time())
        status, headers, _ = await raw(home.port, request(home, 1, "GET", path, Authorization=value))
        assert (status, headers["retry-after"]) == (202, "0")


async def test_one_member_cannot_send_in_the_name_of_another(home):
    async with home.players(2) as (two,):
        message = wire.encode(two.machine(home.head).advertise)
        found = problem(await raw(home.port, request(home, 1, "POST", "/v1/rounds", message)))
        assert (found["status"], found["type"]) == (401, "urn:choral:problem:identity")
        assert "m1 sent a message in the name of m2" in found["detail"]


# ----- which task -----------------------------------------------------------------------------


async def test_an_update_of_another_federations_model_is_refused(home, tmp_path):
    async with house(tmp_path / "other", 3, seed=7) as other, home.players(1) as (player,):
        machine = player.machine(other.head)
        with pytest.raises(PeerError, match="not of this federation"):
            await player.advertise(machine)
    await finishes(home, 1, 2, 3)


async def test_an_old_model_is_superseded_and_an_old_advertisement_cannot_be_replayed(home):
    base = home.head
    old = home.player(1).machine(base).advertise
    await finishes(home, 1, 2, 3)
    async with home.players(1) as (player,):
        with pytest.raises(Superseded):
            await player.send("POST", "/v1/rounds", old)


# ----- what is in the body --------------------------------------------------------------------


def spoilt(data: bytes) -> dict[str, bytes]:
    value = {"kind": "advertise"}
    return {
        "nothing": b"",
        "truncated": data[:-1],
        "trailing bytes": data + b"\x00",
        "twice": data + data,
        "not CBOR": b"\xff" * 40,
        "another message": wire.pack({"kind": "shares", "member": "m1"}),
        "missing fields": wire.pack(value),
        "indefinite length": b"\xbf" + data[1:] + b"\xff",
        "tag bomb": b"\xd8\x1c" * 50 + data,
        "nested": b"\x81" * 5000 + b"\x00",
        "JSON": b'{"kind": "advertise"}',
        "keys in another order": wire.cbor2.dumps(
            dict(reversed(wire.cbor2.loads(data).items())), canonical=False
        ),
        "huge length": b"\x5b" + b"\xff" * 8,
    }


async def test_only_the_canonical_encoding_of_a_message_is_taken(home):
    async with home.players(1) as (player,):
        for what, body in spoilt(wire.encode(player.machine(home.head).advertise)).items():
            found = problem(await raw(home.port, request(home, 1, "POST", "/v1/rounds", body)))
            assert (found["status"], found["type"]) == (400, "urn:choral:problem:wire"), what
    await finishes(home, 1, 2, 3)


async def test_a_message_with_a_changed_byte_is_refused(home):
    async with home.players(1) as (player,):
        good = player.machine(home.head).advertise
        for field in ("ctx", "seal_key", "mask_key", "nonce", "signature"):
            value = getattr(good, field)
            bad = replace(good, **{field: bytes([value[0] ^ 1]) + value[1:]})
            with pytest.raises(PeerError):
                await player.send("POST", "/v1/rounds", bad)
    await finishes(home, 1, 2, 3)


async def test_a_duplicate_is_answered_as_before_and_counts_once(home):
    async with home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head

        async def twice():
            machine = one.machine(base)
            rosters = await asyncio.gather(*(one.advertise(machine) for _ in range(3)))
            assert rosters[0] == rosters[1] == rosters[2]
            inboxes = await asyncio.gather(*(one.share(machine, rosters[0]) for _ in range(2)))
            masked = await asyncio.gather(*(one.mask(machine, inboxes[0]) for _ in range(3)))
            got = wire.decode(
                type(masked[0]), await one.transport.get(f"/v1/rounds/{machine.round_id.hex()}/masked")
            )
            assert masked[0] == masked[2] == got
            signed = await asyncio.gather(*(one.endorse(machine, masked[0]) for _ in range(2)))
            return await asyncio.gather(*(one.reveal(machine, signed[0]) for _ in range(2)))

        (first, again), other, _ = await asyncio.gather(twice(), two.play(base), three.play(base))
    assert first == again == other
    assert first.totals[0] == 30  # three members of weight 10, each once


async def test_a_reordered_a_foreign_and_a_conflicting_message_are_refused_and_the_round_goes_on(home):
    async with home.players(1, 2, 3) as players, asyncio.timeout(8):
        one, two, three = players
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, roster = await one.play(base, until="share")
        shares = machine.receive(roster)
        assert isinstance(shares, Shares)
        at = one.at(machine)
        elsewhere = at.replace(at[-8:], "00000000")
        with pytest.raises(UnknownRound):
            await one.transport.send("PUT", f"{elsewhere}/masked", b"x")
        with pytest.raises(WireError, match="not the one in the message"):
            await one.send("POST", f"{elsewhere}/shares", shares)
        with pytest.raises(PeerError, match="did not deal shares"):  # asked before the vector is read
            await one.transport.send("PUT", f"{at}/masked", b"x")
        with pytest.raises(PeerError, match="seals"):
            await one.send(
                "POST", f"{at}/shares", sign(one.me.identity, replace(shares, seals=shares.seals[:-1]))
            )
        inbox = await one.send("POST", f"{at}/shares", shares, Inbox)
        with pytest.raises(OutOfPhase, match="different Shares"):
            await one.send(
                "POST", f"{at}/shares", sign(one.me.identity, replace(shares, commitment=bytes(32)))
            )
        survivors = await one.mask(machine, inbox)
        endorsements = await one.endorse(machine, survivors)
        record = await one.reveal(machine, endorsements)
        assert await others == [record, record]
        with pytest.raises(UnknownRound):  # replayed when the round is over
            await one.send("POST", f"{at}/shares", shares)
        assert (await one.reveal(machine, endorsements)) == record  # but the outcome can be asked for


@pytest.mark.parametrize("change", [-8, -4, -1, 1, 4, 8])
async def test_a_masked_vector_of_another_length_is_refused_and_the_right_one_is_still_taken(home, change):
    async with home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, inbox = await one.play(base, until="mask")
        vector = machine.receive(inbox)
        body = b"".join(wire.encode_vector(vector))
        wrong = body[:change] if change < 0 else body + bytes(change)
        with pytest.raises(WireError, match="a masked vector of"):
            await one.transport.send("PUT", f"{one.at(machine)}/masked", wrong)
        record = await one.reveal(machine, await one.endorse(machine, await one.mask(machine, inbox)))
        assert await others == [record, record]
    assert len(record.survivors) == 3


async def test_a_vector_with_changed_words_is_not_the_one_that_was_signed(home):
    async with home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, inbox = await one.play(base, until="mask")
        vector = machine.receive(inbox)
        other = MaskedVector(vector.head, vector.main + np.uint32(1), vector.auxiliary)
        with pytest.raises(PeerError, match="not the one that it signed"):
            await one.send("PUT", f"{one.at(machine)}/masked", wire.encode_vector(other))
        record = await one.reveal(machine, await one.endorse(machine, await one.mask(machine, inbox)))
        assert await others == [record, record]
    model = model_file.decode(home.training.blob(record.parameters))
    np.testing.assert_allclose(
        model["bias"], 0.02, atol=1e-6
    )  # the mean of 0.01, 0.02 and 0.03: added once each


# ----- sizes and speeds -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "size"), [("POST", "/v1/rounds", 1 << 30), ("POST", "/v1/rounds", (1 << 20) + 1)]
)
async def test_a_body_over_the_limit_is_refused_before_a_byte_of_it_is_read(home, method, path, size):
    found = await raw(home.port, request(home, 1, method, path, Content_Length=str(size)))  # and only waits
    assert problem(found)["status"] == 413
    assert problem(found)["type"] == "urn:choral:problem:too-large"
    assert found[1]["connection"] == "close"


async def test_a_vector_over_the_limit_is_refused_before_a_byte_of_it_is_read(home):
    async with home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, inbox = await one.play(base, until="mask")
        path = f"{one.at(machine)}/masked"
        found = problem(await raw(home.port, request(home, 1, "PUT", path, Content_Length=str(1 << 40))))
        assert found["status"] == 413
        assert "disagree on the size of the model" in found["hint"]
        record = await one.reveal(machine, await one.endorse(machine, await one.mask(machine, inbox)))
        assert await others == [record, record]


async def test_a_vector_for_an_unknown_round_is_refused_before_it_is_read(home):
    path = f"/v1/rounds/{'ab' * 32}/masked"
    found = problem(await raw(home.port, request(home, 1, "PUT", path, Content_Length="100000")))
    assert (found["status"], found["type"]) == (404, "urn:choral:problem:unknown-round")


async def test_a_body_without_a_length_is_refused(home):
    chunked = request(home, 1, "POST", "/v1/rounds", Content_Length=None, Transfer_Encoding="chunked")
    found = problem(await raw(home.port, chunked + b"5\r\nhello\r\n0\r\n\r\n"))
    assert (found["status"], found["type"]) == (411, "urn:choral:problem:length-required")


async def test_a_sender_that_trickles_is_cut_off_and_the_others_finish_at_the_deadline(tmp_path):
    async with (
        house(tmp_path, 4, settings={"phase_seconds": 0.6}) as home,
        home.players(1, 2, 3, 4) as (slow, *others),
    ):
        base = home.head
        began = time.monotonic()
        playing = asyncio.gather(*(player.play(base) for player in others))
        machine, inbox = await slow.play(base, until="mask")
        body = b"".join(wire.encode_vector(machine.receive(inbox)))
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        path = f"{slow.at(machine)}/masked"
        writer.write(request(home, 1, "PUT", path, Content_Length=str(len(body))))

        answered = asyncio.create_task(answer(reader))

        async def trickle():
            for at in range(len(body)):
                if not answered.done():
                    writer.write(body[at : at + 1])
                    await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        records = await asyncio.wait_for(playing, 5)
        assert time.monotonic() - began < 3
        found = problem(await asyncio.wait_for(answered, 5))
        assert (found["status"], found["type"]) == (408, "urn:choral:problem:too-slow")
        assert all("m1" not in record.survivors and len(record.survivors) == 3 for record in records)
        trickling.cancel()
        writer.close()


async def test_a_hundred_connections_that_say_nothing_hold_nobody_up(home):
    writers = [(await asyncio.open_connection("127.0.0.1", home.port))[1] for _ in range(100)]
    for writer in writers[:50]:
        writer.write(b"POST /v1/rounds HTTP/1.1\r\nHost: x\r\nContent-Le")
    await finishes(home, 1, 2, 3)
    for writer in writers:
        writer.close()


# ----- two processes --------------------------------------------------------------------------


async def test_two_processes_with_one_key_are_told_so(home):
    async with home.players(1, 1, 2) as (first, second, other):
        base = home.head
        joined = asyncio.create_task(first.advertise(first.machine(base)))
        await until(lambda: home.status()["cohorts"])
        with pytest.raises(TwoProcesses, match="another process has joined with the key of m1") as error:
            await second.advertise(second.machine(base))
        assert "one process a member" in error.value.hint
        assert error.value.culprits == ("m1",)
        joined.cancel()
        await other.leave()
    await finishes(home, 1, 2, 3)


async def test_two_processes_are_told_so_also_while_a_round_is_running(home):
    async with home.players(1, 2, 3, 1) as (first, two, three, second), asyncio.timeout(8):
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, inbox = await first.play(base, until="mask")
        with pytest.raises(TwoProcesses):
            await second.advertise(second.machine(base))
        record = await first.reveal(machine, await first.endorse(machine, await first.mask(machine, inbox)))
        assert await others == [record, record]


# ----- HTTP -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../../etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/zz",
        "/v1/models/" + "0" * 63,
        "/v1/models/" + "0" * 64,
        "/v1/models/" + "0" * 10000,
        "/v1/models/%00%ff",
        "/v1/rounds/xyz",
        "/v1/rounds/" + "0" * 64,
        "/v1/rounds/" + "0" * 64 + "/masked",
        "/nothing",
        "/dashboard/..%2fapp.py",
    ],
)
async def test_an_address_of_nothing_is_a_problem_and_not_a_failure(home, path):
    found = await raw(home.port, request(home, 1, "GET", path))
    assert found[0] in (401, 404), found  # a signature is over the path, so an odd one may not verify either
    problem(found)
    assert b"root:" not in found[2]


@pytest.mark.parametrize(
    "after",
    ["99999999999999999999999", "-99999999999999999999999", "x", "", "1e5", "9" * 5000, "%D9%A3", "1_0"],
)
@pytest.mark.parametrize("path", ["/v1/records?after=", "/v1/versions?before=", "/v1/records?after=0&after="])
async def test_what_is_no_number_of_a_version_is_refused_with_a_sentence(home, path, after):
    found = problem(await raw(home.port, request(home, 1, "GET", path + after, Host="localhost")))
    assert found["status"] == 400
    assert "expected a whole number" in found["detail"]
    assert len(found["detail"]) < 200


@pytest.mark.parametrize("after", ["-1", "0", "5", "9" * 18])
async def test_any_number_may_be_asked_for_as_the_version_to_begin_after(tmp_path, after):
    async with house(tmp_path, settings={"wait_seconds": 0.05}) as home:
        status, _, _ = await raw(home.port, request(home, 1, "GET", f"/v1/records?after={after}"))
        assert status in (200, 202)


@pytest.mark.parametrize("version", ["9" * 18, "9" * 19, "9" * 30, "9" * 4000])
async def test_a_number_in_an_address_may_have_any_length(home, version):
    asked = f"GET /models/{version} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    found = problem(await raw(home.port, asked))
    assert found["status"] == (404 if len(version) < 19 else 400)


@pytest.mark.parametrize("digest", ["ab " * 21 + "ab", "AB" * 32 + "\t", "0x" + "0" * 62, "٣" * 64])
async def test_a_digest_is_64_hexadecimal_digits_and_nothing_else(home, digest):
    signed = home.player(1).header("GET", "/v1/models/" + digest, time.time())
    asked = request(home, 1, "GET", "/v1/models/" + quote(digest), Authorization=signed)
    found = problem(await raw(home.port, asked))
    assert found["status"] == 404
    assert "64 hexadecimal digits" in found["detail"]


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/v1/task"), ("PUT", "/v1/rounds"), ("PATCH", "/v1/records")]
)
async def test_a_wrong_method_is_told_the_right_ones(home, method, path):
    found = await raw(home.port, request(home, 1, method, path))
    assert problem(found)["status"] == 405
    assert "GET" in found[1]["allow"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # a TLS hello
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/rounds HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/rounds HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/rounds HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/task?" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_leaves_the_aggregator_up(home, data):
    try:
        status, _, _ = await raw(home.port, data, seconds=1, close=True)
        assert 400 <= status < 600
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        pass  # hung up on
    status, _, body = await raw(home.port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, json.loads(body)) == (200, {"status": "alive"})


@pytest.mark.parametrize("count", [3, 32, 33, 15_000])
async def test_a_refusal_is_readable_however_much_went_wrong(home, monkeypatch, count):
    async def fail(*_: object) -> None:
        raise RoundAborted(
            "x" * 100_000, culprits=["c" * 1000] * count, missing=[f"m{i}" for i in range(count)],
            hint="h" * 100_000, rule="4.5",
        )  # fmt: skip

    monkeypatch.setattr(home.rounds, "outcome", fail)
    found = await raw(home.port, request(home, 1, "GET", "/v1/rounds/" + "0" * 64))
    details = problem(found)
    assert len(found[2]) < 8000
    assert (len(details["detail"]), len(details["hint"]), details["rule"]) == (500, 500, "4.5") or count > 32
    assert len(details["detail"]) <= 500
    assert len(details["culprits"]) == len(details["missing"]) == min(count, 32)
    assert max(map(len, details["culprits"])) == 64
    assert (f"and {count - 32} more missing" in details["detail"]) == (count > 32)


async def test_large_messages_are_decoded_beside_the_event_loop(home, monkeypatch):
    threads: dict[int, int] = {}
    decode = wire.decode

    def told(kind: type, data: bytes) -> object:
        threads[len(data)] = threading.get_ident()
        return decode(kind, data)

    monkeypatch.setattr(wire, "decode", told)
    for size in (100, 5000):
        path = f"/v1/rounds/{'0' * 64}/complaint"
        found = problem(await raw(home.port, request(home, 1, "POST", path, b"\x61" * size)))
        assert found["type"] == "urn:choral:problem:wire"
    assert threads[100] == threading.get_ident() != threads[5000]


async def test_a_failure_inside_is_a_problem_without_its_details(home, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(home.training, "blob", fail)
    found = await raw(home.port, request(home, 1, "GET", "/v1/models/" + "0" * 64))
    assert problem(found)["status"] == 500
    assert b"secret" not in found[2]


async def test_a_body_that_ends_early_is_no_message(home):
    async with home.players(1) as (player,):
        body = wire.encode(player.machine(home.head).advertise)
        data = request(home, 1, "POST", "/v1/rounds", body)[:-5]
        _, writer = await asyncio.open_connection("127.0.0.1", home.port)
        writer.write(data)
        writer.write_eof()
        await asyncio.sleep(0.05)
        writer.close()
        assert not home.status()["cohorts"]
    await finishes(home, 1, 2, 3)


async def test_somebody_elses_advertisement_gets_nobody_a_roster(home):
    """The nonce alone must not do: it is on every roster."""
    async with home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head
        others = asyncio.gather(two.play(base), three.play(base))
        machine, inbox = await one.play(base, until="mask")
        stolen = replace(two.machine(base).advertise, nonce=machine.advertise.nonce)
        assert isinstance(stolen, Advertise)
        with pytest.raises(
            (PeerError, TimeoutError)
        ):  # like any other latecomer it waits for the next cohort
            async with asyncio.timeout(0.3):
                await two.send("POST", "/v1/rounds", stolen)
        record = await one.reveal(machine, await one.endorse(machine, await one.mask(machine, inbox)))
        assert await others == [record, record]
