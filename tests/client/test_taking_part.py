"""The two ways in: `participate`, and `take_part` where an event loop is running already."""

from __future__ import annotations

import asyncio
import inspect
import os
import stat
from dataclasses import replace

import pytest
from click.testing import CliRunner

from choral.cli import cli
from choral.client import participate, take_part
from choral.client.events import KeptOut, Refused
from choral.client.journal import FILE
from choral.data import save_shard
from choral.errors import ParameterError, WireError
from choral.federation.records import Records
from choral.ping import HEARTBEAT
from choral.protocol import wire
from choral.protocol.transcript import sign
from house import Told, examples, house, until


def shard(folder, i):
    found = examples(i)
    return save_shard(folder / f"{i}.npy", found.X, found.y)


async def test_in_a_notebook_participate_names_what_to_await_and_that_works(tmp_path):
    async with house(tmp_path, 3, rounds=1) as home:
        shards = [shard(tmp_path, i) for i in (1, 2, 3)]
        with pytest.raises(ParameterError, match="event loop is running") as error:
            participate(home.root / "m1", shards[0])
        assert "await choral.client.take_part(" in (error.value.hint or "")
        records = await asyncio.wait_for(
            asyncio.gather(*(take_part(home.root / f"m{i}", shards[i - 1], url=home.url) for i in (1, 2, 3))),
            10,
        )
        assert {record.version for record in records} == {1}


def test_both_ways_in_take_the_same():
    there, here = (inspect.signature(way) for way in (participate, take_part))
    assert there == here


async def test_a_members_memory_is_for_its_own_eyes(tmp_path):
    async with house(tmp_path, 3, rounds=1) as home:
        await asyncio.wait_for(
            asyncio.gather(
                *(take_part(home.root / f"m{i}", shard(tmp_path, i), url=home.url) for i in (1, 2, 3))
            ),
            10,
        )
        state = home.root / "m1/state"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert stat.S_IMODE((state / FILE).stat().st_mode) == 0o600


@pytest.fixture
def careless():
    mask = os.umask(0)
    yield
    os.umask(mask)


async def test_what_join_makes_is_its_owners_only_and_a_notebooks_mask_is_left_alone(tmp_path, careless):
    async with house(tmp_path, 3, rounds=1) as home, asyncio.timeout(60):
        others = [
            asyncio.create_task(take_part(home.root / f"m{i}", shard(tmp_path, i), url=home.url))
            for i in (2, 3)
        ]
        await until(lambda: all((home.root / f"m{i}/state" / HEARTBEAT).exists() for i in (2, 3)))
        assert os.umask(0) == 0
        words = ["join", home.root / "m1", "--data", shard(tmp_path, 1), "--url", home.url]
        words += ["--witness", tmp_path / "seen"]
        done = await asyncio.to_thread(CliRunner().invoke, cli, [*map(str, words)])
        assert done.exit_code == 0, done.output
        await asyncio.gather(*others)
    made = [path for folder in (home.root / "m1/state", tmp_path / "seen") for path in folder.rglob("*")]
    files = [path for path in made if path.is_file()]
    assert {path.suffix for path in files} >= {".sqlite", ".npy"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_nothing_that_is_told_moves_a_cursor_or_goes_on_for_ever():
    said = Refused("\x1b[2J" + "y" * 9999, ("\x07m1",) * 9999, (["\x1b"],), 3)
    assert said.reason.isprintable()
    assert len(said.reason) <= 500
    assert set(said.culprits) == {"?m1"}
    assert len(said.culprits) <= 256
    assert said.avoided == (("?",),)
    assert said.seconds == 3
    assert KeptOut("\x07", None) == KeptOut("?", None)


async def test_a_name_that_moves_a_cursor_is_none_and_is_not_shown_as_it_is(tmp_path):
    async with house(tmp_path, 3, rounds=1) as home:
        evil = replace(home.head, version=1, previous=home.head.digest, survivors=("\x1b[31mred\x1b[0m",))
        told = Told(wire.encode(Records(1, (home.head, sign(home.aggregator.identity, evil)))))
        home.lies = [lambda method, path: told if path.startswith("/v1/records") else None]
        with pytest.raises(WireError) as error:
            await asyncio.wait_for(home.member(1), 5)
        assert error.value.reason.isprintable()
