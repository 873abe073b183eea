"""Who reads a whole log (`log`, `plot`, `predict`, `doctor`) comes to an end, and believes no wrong one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from choral.errors import RecordError
from choral.federation.enrolment import Participant
from choral.federation.records import Record, Records
from choral.inspection.reachability import asked
from choral.inspection.reading import Log
from choral.protocol import wire
from choral.protocol.transcript import sign
from house import House, Told, house

ROUNDS = 3


def endless(home: House):
    """Records without end, each signed and following from the one before."""
    records: list[Record] = [home.head]

    def page(after: int, size: int) -> tuple[Record, ...]:
        while len(records) <= after + size:
            last = records[-1]
            following = replace(last, version=last.version + 1, previous=last.digest, base=last.digest)
            records.append(sign(home.aggregator.identity, following))
        return tuple(records[after + 1 : after + 1 + size])

    return page


def lying(home: House, answer) -> list[int]:
    """Who asks for records is told `answer(after)`; what was asked for."""
    pages: list[int] = []

    def lie(method: str, path: str) -> Told | None:
        if not path.startswith("/v1/records?after="):
            return None
        pages.append(int(path.rpartition("=")[2]))
        return Told(wire.encode(answer(pages[-1])), headers={"Content-Type": "application/cbor"})

    home.lies = [lie]
    return pages


async def read(home: House) -> Log:
    me = Participant.load(home.root / "m1")
    found = me.federation.model_copy(
        update={"aggregator": me.federation.aggregator.model_copy(update={"url": home.url})}
    )
    return await asyncio.to_thread(Log, replace(me, federation=found))


async def look(home: House):
    me = Participant.load(home.root / "m1")
    return {found.what: found for found in await asyncio.to_thread(lambda: list(asked(me, home.url)))}


@pytest.mark.parametrize("size", [1, 2, 50])
@pytest.mark.parametrize("newest", [None, ROUNDS, 10**9])
async def test_a_log_without_end_is_read_no_further_than_the_task_goes(tmp_path, size, newest):
    async with house(tmp_path, rounds=ROUNDS) as home, asyncio.timeout(60):
        page = endless(home)
        pages = lying(home, lambda after: Records(newest or after + size + 1, page(after, size)))
        if newest == ROUNDS and size < 50:  # that is a log with an end
            assert len((await read(home)).records) == ROUNDS + 1
            return
        with pytest.raises(RecordError, match="the task has 3 rounds"):
            await read(home)
        assert len(pages) <= ROUNDS + 1
        found = await look(home)
        assert found["log and model"].how == "fail"
        assert "the task has 3 rounds" in found["log and model"].found
        assert found["task there"].how == "ok"  # what was good before is said as well


async def test_a_log_that_ends_before_it_says_is_no_whole_log(tmp_path):
    async with house(tmp_path, rounds=ROUNDS) as home, asyncio.timeout(60):
        page = endless(home)
        lying(home, lambda after: Records(2, page(after, 1) if after < 1 else ()))
        with pytest.raises(RecordError, match="version 2 as its newest, but no record after 1"):
            await read(home)


async def test_the_first_record_that_is_wrong_is_the_last_that_is_read(tmp_path):
    async with house(tmp_path, rounds=ROUNDS) as home, asyncio.timeout(60):
        page = endless(home)
        pages = lying(
            home, lambda after: Records(3, tuple(replace(one, signature=bytes(64)) for one in page(after, 1)))
        )
        with pytest.raises(RecordError, match="not signed"):
            await read(home)
        assert pages == [-1]


async def test_another_model_than_the_record_names_is_not_believed(tmp_path):
    async with house(tmp_path, rounds=ROUNDS) as home, asyncio.timeout(60):
        log = await read(home)
        good = await asyncio.to_thread(log.model, log.record(0))
        assert (await look(home))["log and model"].how == "ok"
        home.lies = [lambda method, path: Told(good + b"x") if path.startswith("/v1/models/") else None]
        with pytest.raises(RecordError, match="version 0 is not the one that its record names"):
            await asyncio.to_thread(log.model, log.record(0))
        found = (await look(home))["log and model"]
        assert (found.how, "do not train on it" in found.do) == ("fail", True)
