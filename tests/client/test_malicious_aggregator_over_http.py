"""An aggregator that lies to the real client loop: a clear error or a retry, never a leak or a hang (§2)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import zlib
from dataclasses import replace

import pytest

from choral.client import member
from choral.client.journal import Journal
from choral.errors import (
    AggregatorUnavailable,
    ChoralError,
    ParameterError,
    RecordError,
    UpdateError,
    WireError,
)
from choral.federation.records import Records
from choral.primitives.identity import Identity
from choral.protocol import wire
from choral.protocol.messages import Inbox, Roster
from choral.protocol.transcript import sign
from house import House, Told, house, until


@pytest.fixture
async def home(tmp_path):
    async with house(tmp_path, 4, rounds=1) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(member, "_PAUSE", 0.01)


def on(method: str, part: str, told):
    """A lie about requests whose path contains `part`; `told` is an answer, or makes one."""
    return lambda m, path: (told() if callable(told) else told) if m == method and part in path else None


def sent_vectors(home: House) -> list[str]:
    return [path for method, path in home.asked if method == "PUT"]


async def fails(home: House, kind: type[ChoralError], match: str) -> None:
    with pytest.raises(kind, match=match):
        await asyncio.wait_for(home.member(1, patience=1.0), 5)
    assert not sent_vectors(home)


# ----- the log --------------------------------------------------------------------------------


def records(*entries, newest=None) -> Told:
    return Told(wire.encode(Records(entries[-1].version if newest is None else newest, tuple(entries))))


async def test_a_forged_record_is_refused(home):
    stranger = Identity.generate(os.urandom)
    home.lies = [on("GET", "/v1/records", records(sign(stranger, home.head)))]
    await fails(home, RecordError, "not signed by the aggregator's pinned key")


async def test_a_record_with_one_changed_field_is_refused(home):
    home.lies = [on("GET", "/v1/records", records(replace(home.head, parameters=bytes(32))))]
    await fails(home, RecordError, "not signed")


async def test_a_log_that_does_not_begin_at_the_beginning_is_refused(home):
    late = sign(home.aggregator.identity, replace(home.head, version=1, previous=home.head.digest))
    home.lies = [on("GET", "/v1/records", records(late))]
    await fails(home, RecordError, "came where version 0 was expected")


async def test_a_log_that_was_rolled_back_is_refused(home):
    seen = sign(home.aggregator.identity, replace(home.head, version=5))
    journal = Journal(home.root / "m1/state")
    journal.saw(seen)
    journal.close()
    await fails(home, RecordError, "rolled back|has seen 5|ends at version 0")


async def test_a_fork_at_the_very_version_that_was_seen_is_noticed_at_once(home):
    seen = sign(home.aggregator.identity, replace(home.head, rule_state=bytes(32)))
    journal = Journal(home.root / "m1/state")
    journal.saw(seen)
    journal.close()
    await fails(home, RecordError, "another one than this member has seen")


async def test_a_fork_after_what_was_seen_is_refused(home):
    other = sign(home.aggregator.identity, replace(home.head, version=1, previous=bytes(32)))
    home.lies = [on("GET", "/v1/records", records(home.head, other))]
    await fails(home, RecordError, "does not follow")


async def test_an_aggregator_that_names_versions_it_does_not_show_is_refused(home):
    home.lies = [on("GET", "/v1/records", Told(wire.encode(Records(10**9, ()))))]
    await fails(home, RecordError, "but no record after")


async def test_an_aggregator_that_shows_the_same_again_and_again_is_not_asked_in_a_frenzy(home):
    home.lies = [on("GET", "after=0", records(home.head))]
    running = asyncio.create_task(home.member(1))
    await asyncio.sleep(0.5)
    running.cancel()
    assert len(home.asked) < 20


async def test_another_model_than_the_record_names_is_refused(home):
    data = home.training.blob(home.head.parameters)
    home.lies = [on("GET", "/v1/models/", Told(data[:-4] + b"\0\0\x80\x3f"))]
    await fails(home, RecordError, "not the one that its record names")


async def test_a_model_of_nothing_but_nan_is_refused(home, monkeypatch):
    from choral.learning import model_file  # noqa: PLC0415

    data = home.training.blob(home.head.parameters)
    data = data[:-4] + b"\xff\xff\xff\x7f"
    evil = sign(home.aggregator.identity, replace(home.head, parameters=model_file.digest(data)))
    home.lies = [on("GET", "/v1/records", records(evil)), on("GET", "/v1/models/", Told(data))]
    await fails(home, UpdateError, "not finite")


async def test_another_task_is_refused(home, tmp_path):
    async with house(tmp_path / "other", 4, clip=4.0) as other:
        home.lies = [on("GET", "/v1/task", Told(other.aggregator.task.encode()))]
        await fails(home, ParameterError, "another task")


# ----- rounds ---------------------------------------------------------------------------------


def messages(home: House) -> list[str]:
    return [path.rpartition("/")[2] for method, path in home.asked if method in ("POST", "PUT")]


async def test_a_cohort_of_one_gets_no_shares(home):
    home.lies = [on("POST", "/v1/rounds", lambda: Told(wire.encode(Roster(()))))]
    running = asyncio.create_task(home.member(1))
    await until(lambda: len(home.told(1, "refused")) == 7)
    assert set(messages(home)) == {"rounds"}
    assert "a cohort of 0 was offered" in home.told(1, "refused")[0]["reason"]
    waits = [told["seconds"] for told in home.told(1, "refused")]
    assert waits == [1, 2, 4, 8, 16, 32, 60]  # it goes on, and does not ask in a frenzy
    running.cancel()


async def test_an_inbox_of_another_round_gets_no_vector_and_a_complaint_is_made(home):
    async with home.players(2, 3, 4) as others:
        home.lies = [on("POST", "/shares", Told(wire.encode(Inbox(bytes(32), (), ()))))]
        running = asyncio.create_task(home.member(1))
        await until(lambda: home.status()["cohorts"])
        playing = asyncio.gather(*(player.play(home.head) for player in others), return_exceptions=True)
        await until(lambda: "complaint" in messages(home))
        assert not sent_vectors(home)
        playing.cancel()
        running.cancel()
    assert "a message of round" in home.told(1, "refused")[0]["reason"]
    await asyncio.gather(playing, running, return_exceptions=True)


async def test_an_outcome_that_cannot_be_is_fetched_once_more(home):
    lied = []

    def lie(method, path):
        if not path.endswith("/unmask") or lied:
            return None
        lied.append(path)
        return Told(wire.encode(replace(home.head, signature=bytes(64))))

    home.lies = [lie]
    results = await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3, 4))), 8)
    assert lied
    assert {record.version for record in results} == {1}
    assert not any(home.told(i, "refused") for i in (1, 2, 3, 4))


async def test_a_log_that_says_otherwise_than_the_round_did_is_a_fork(home):
    lied = []

    def lie(method, path):
        if not path.endswith("/unmask") or lied:
            return None
        (found,) = home.rounds.conductor.running.values()
        record = replace(
            home.head, version=1, base=home.head.digest, previous=home.head.digest,
            round_id=found.id, survivors=tuple(found.machine.survivors().members),
        )  # fmt: skip
        lied.append(1)
        return Told(wire.encode(sign(home.aggregator.identity, record)))

    home.lies = [lie]
    results = await asyncio.wait_for(
        asyncio.gather(*(home.member(i) for i in (1, 2, 3, 4)), return_exceptions=True), 8
    )
    errors = [result for result in results if isinstance(result, RecordError)]
    assert len(errors) == 1
    assert "not the one that this member's round was told" in errors[0].reason


# ----- answers of the wrong kind --------------------------------------------------------------


async def test_not_yet_for_ever_is_asked_again_calmly(home):
    home.lies = [on("POST", "/v1/rounds", Told(b"", 202, {"Retry-After": "0"}))]
    running = asyncio.create_task(home.member(1))
    await asyncio.sleep(1.0)
    running.cancel()
    assert 2 < sum(path == "/v1/rounds" for _, path in home.asked) < 30
    assert not sent_vectors(home)


GARBAGE = pytest.mark.parametrize("body", [b"", b"<html>It works!</html>", b"\xa1\x00", b"\xff" * 1000])


@GARBAGE
@pytest.mark.parametrize("part", ["/v1/task", "/v1/records", "/v1/models/"])
async def test_garbage_is_fetched_once_more_and_then_ends_in_a_clear_error(home, part, body):
    home.lies = [on("GET", part, Told(body))]
    with pytest.raises((WireError, RecordError, ParameterError)):
        await asyncio.wait_for(home.member(1, patience=1.0), 5)
    assert sum(path.startswith(part) for _, path in home.asked) == 2


@GARBAGE
@pytest.mark.parametrize(
    "part", ["/v1/task", "/v1/records", "/v1/models/", "/v1/rounds", "/shares", "/masked"]
)
async def test_one_damaged_answer_ends_nothing(home, part, body):
    lied = []

    def lie(method, path):
        if lied or (not path.partition("?")[0].endswith(part) and not path.startswith("/v1/models/")):
            return None
        lied.append(path)
        return Told(body)

    home.lies = [lie]
    records = await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3, 4))), 8)
    assert lied
    assert {record.version for record in records} == {1}
    assert not any(home.told(i, "refused") for i in (1, 2, 3, 4))


@pytest.mark.parametrize("part", ["/v1/rounds", "/shares", "/masked", "/consistency", "/unmask"])
async def test_garbage_in_a_round_ends_that_round_and_no_member(home, part):
    members = [asyncio.create_task(home.member(i)) for i in (1, 2, 3, 4)]

    def refused():
        return [told for i in (1, 2, 3, 4) for told in home.told(i, "refused")]

    html = Told(b"<html>It works!</html>")
    home.lies = [lambda m, path: html if m != "GET" and path.endswith(part) else None]
    await until(refused)
    home.lies = []
    assert {record.version for record in await asyncio.wait_for(asyncio.gather(*members), 20)} == {1}
    assert not [culprit for told in refused() for culprit in told["culprits"]]


@pytest.mark.parametrize("part", ["/v1/task", "/v1/records", "/v1/models/"])
async def test_an_answer_without_end_is_read_only_as_far_as_an_honest_one_can_go(home, part):
    sent = 0

    def endless():
        nonlocal sent
        for _ in itertools.count():
            sent += 1 << 18
            yield bytes(1 << 18)

    home.lies = [lambda method, path: Told(endless()) if part in path else None]
    await fails(home, WireError, "longer than")
    assert sent < 64 << 20  # what the sockets hold, and no more


async def test_an_announced_length_is_not_believed_either(home):
    home.lies = [
        on(
            "GET",
            "/v1/task",
            lambda: Told(iter([bytes(1 << 18)] * 400), 200, {"Content-Length": str(1 << 40)}),
        )
    ]
    await fails(home, WireError, "longer than")


async def test_a_compressed_answer_is_not_unpacked(home):
    bomb = zlib.compress(bytes(1 << 24))
    home.lies = [on("GET", "/v1/task", Told(bomb, 200, {"Content-Encoding": "deflate"}))]
    await fails(home, WireError, "compressed")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_elsewhere_is_not_followed(home, tmp_path, status):
    async with house(tmp_path / "elsewhere", 4) as elsewhere:
        home.lies = [
            lambda method, path: (
                Told(b"", status, {"Location": elsewhere.url + path})
                if path.startswith("/v1/rounds")
                else None
            )
        ]
        with pytest.raises(AggregatorUnavailable, match=f"HTTP {status}"):
            await asyncio.wait_for(home.member(1, patience=0.3), 5)
        assert not elsewhere.asked


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b'{"type": 5, "detail": "x"}',
        b'{"type": "urn:choral:problem:peer"}',
        b'{"type": "urn:choral:problem:peer", "detail": "x", "culprits": 5}',
        b'{"type": "urn:choral:problem:nothing", "detail": {"a": 1}, "hint": ["b"]}',
        b'{"type": "urn:choral:problem:peer", "detail": "x", "culprits": [[[1]], null]}',
        b"[" * 100000,
        b"x" * 200000,
    ],
)
async def test_a_refusal_that_cannot_be_read_is_an_error_all_the_same(home, body):
    home.lies = [on("GET", "/v1/task", Told(body, 403))]
    with pytest.raises(ChoralError):
        await asyncio.wait_for(home.member(1, patience=0.2), 5)


async def test_what_a_refusal_says_cannot_move_the_cursor(home):
    said = json.dumps({"type": "urn:choral:problem:wire", "detail": "\x1b[2J\x1b]0;gotcha\x07" + "x" * 9999})
    home.lies = [on("GET", "/v1/task", Told(said.encode(), 400))]
    with pytest.raises(WireError) as error:
        await asyncio.wait_for(home.member(1), 5)
    assert error.value.reason.isprintable()
    assert len(error.value.reason) <= 500


async def test_unavailable_for_ever_ends_when_patience_does(home):
    home.lies = [on("GET", "/v1/task", Told(b"", 503))]
    with pytest.raises(AggregatorUnavailable, match="did not answer"):
        await asyncio.wait_for(home.member(1, patience=0.3), 5)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"state": "done", "details": 3}', b'{"state": "done"}', b"[" * 100000]
)
async def test_a_garbled_outcome_of_the_last_round_stops_nobody(home, body):
    journal = Journal(home.root / "m1/state")
    journal.spend(b"\x07" * 32, home.head, bytes(32))
    journal.close()
    home.lies = [on("GET", "/v1/rounds/0707", Told(body))]
    await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3, 4))), 8)
    assert home.told(1, "last outcome")[0]["version"] is None
