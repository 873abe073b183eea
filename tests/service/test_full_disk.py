"""A full disk costs time and nothing else: no update is spent, no sum is lost, nobody reads Python."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import namedtuple

import pytest
from structlog.testing import capture_logs

from choral.errors import AggregatorUnavailable, NoRoom
from choral.service.rounds import room
from choral.service.state import sqlite as store
from direct import Direct, settled
from house import house, until

Usage = namedtuple("Usage", "total used free")


class Disk:
    """What is free, as the aggregator sees it."""

    free = 1 << 40

    def usage(self, path):
        return Usage(1 << 40, 0, self.free)


@pytest.fixture
def disk(monkeypatch):
    found = Disk()
    monkeypatch.setattr(store, "shutil", type("", (), {**vars(shutil), "disk_usage": found.usage}))
    monkeypatch.setattr(room, "PAUSES", (0.01, 0.02))
    return found


def full(times, then):
    """A store that refuses so often, the way SQLite does on a full disk."""

    def saving(*arguments, **more):
        nonlocal times
        times -= 1
        if times >= 0:
            raise sqlite3.OperationalError("database or disk is full")
        return then(*arguments, **more)

    return saving


async def test_no_cohort_is_opened_without_room_for_its_model_and_the_log_says_so_once(tmp_path, disk):
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        disk.free = 1 << 20
        machine = home.machine("m1")
        with capture_logs() as lines:
            for _ in range(20):
                with pytest.raises(NoRoom, match="1 MiB are free where its state is, it needs 17 MiB"):
                    await home.join(machine)
        assert [line["event"] for line in lines] == ["nothing can be saved"]
        assert not home.conductor.forming
        assert not home.store.rounds()
        disk.free = 1 << 30
        with capture_logs() as lines:
            await asyncio.gather(
                home.play(machine), *(home.play(home.machine(name)) for name in home.names[1:])
            )
        assert [line["event"] for line in lines][:2] == ["what is made can be saved again", "a cohort closed"]
        assert home.training.head.version == 1


async def test_no_cohort_closes_without_room_and_the_same_members_go_on_when_there_is(tmp_path, disk):
    async with Direct(tmp_path, 3, settings={"wait_seconds": 2.0}) as home, asyncio.timeout(60):
        machines = [home.machine(name) for name in home.names]
        waiting = [asyncio.create_task(home.join(machine)) for machine in machines[:2]]
        await until(lambda: home.conductor.forming)
        await settled()
        disk.free = 0
        waiting.append(asyncio.create_task(home.join(machines[2])))
        for told in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(told, NoRoom)
        assert not home.store.rounds()  # no round, so nothing that anybody spent
        disk.free = 1 << 30
        records = await asyncio.gather(*map(home.play, machines))
        assert {record.version for record in records} == {1}


async def test_a_larger_model_needs_more_room(tmp_path, disk):
    async with Direct(tmp_path, 3) as home:
        d = home.aggregator.task.dimension
        assert home.training.next_bytes >= 12 * d  # a rule's state may be twice the model
        disk.free = (16 << 20) + 2 * home.training.next_bytes
        home.conductor.room.check()
        disk.free -= 1
        with pytest.raises(NoRoom):
            home.conductor.room.check()


async def test_a_sum_whose_saving_failed_is_kept_and_saved_again(tmp_path, disk, monkeypatch):
    async with Direct(tmp_path, 3, settings={"wait_seconds": 0.02}) as home, asyncio.timeout(60):
        monkeypatch.setattr(room, "PAUSES", (0.1, 0.1))
        monkeypatch.setattr(home.store, "append", full(3, home.store.append))
        machines = [home.machine(name) for name in home.names]
        told = []

        async def play(machine):
            inbox = await home.share(machine, await home.join(machine))
            endorsements = await home.endorse(machine, await home.mask(machine, inbox))
            reveal = machine.receive(endorsements)
            while True:
                try:
                    return await home.reveal_again(reveal)
                except NoRoom as error:
                    told.append(error.reason)

        with capture_logs() as lines:
            records = await asyncio.gather(*map(play, machines))
        assert {record.digest for record in records} == {home.training.head.digest}
        assert home.training.head.version == 1
        assert set(told) == {"the aggregator cannot save anything now: database or disk is full"}
        assert [row.state for row in home.store.rounds()] == ["done"]
        assert [line["event"] for line in lines].count("nothing can be saved") == 1
        assert "Traceback" not in str(lines)
        assert "exc_info" not in str(lines)


async def test_what_was_saved_late_is_what_would_have_been_saved_at_once(tmp_path, disk, monkeypatch):
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        at_once = home.training.head
    async with Direct(tmp_path / "again", 3, settings={"wait_seconds": 5.0}) as home, asyncio.timeout(60):
        monkeypatch.setattr(home.store, "append", full(2, home.store.append))
        await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        assert home.training.head.parameters == at_once.parameters
        assert home.training.head.totals == at_once.totals


async def test_a_round_that_cannot_be_remembered_ends_with_a_sentence_and_the_next_one_waits(
    tmp_path, disk, monkeypatch
):
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        monkeypatch.setattr(room, "PAUSES", (5.0, 30.0))
        monkeypatch.setattr(home.store, "put_round", full(2, home.store.put_round))
        machines = [home.machine(name) for name in home.names]
        for _ in range(2):  # at once the second time: it is known, and no cohort is opened
            told = await asyncio.gather(*map(home.join, machines), return_exceptions=True)
            for error in told:
                assert isinstance(error, NoRoom)
                assert "OperationalError" not in error.reason
        assert not home.conductor.forming
        home.now += 11  # two failures: of the round's opening, and of its end
        records = await asyncio.gather(*map(home.play, machines))
        assert {record.version for record in records} == {1}


async def test_a_member_waits_on_a_full_disk_and_its_reason_is_the_disk(tmp_path, disk):
    async with house(tmp_path, 3) as home:
        disk.free = 0
        player = home.player(1, patience=0.3)
        with pytest.raises(AggregatorUnavailable, match="0 MiB are free where its state is"):
            await player.advertise(player.machine(home.head))
        await player.leave()


async def test_the_room_is_a_figure_for_an_alert(tmp_path, disk):
    async with Direct(tmp_path, 3) as home:
        disk.free = 123 << 20
        found = home.rounds.metrics.registry.get_sample_value
        assert found("choral_state_free_bytes") == 123 << 20
        assert found("choral_next_version_bytes") == home.training.next_bytes
