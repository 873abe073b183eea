"""Cohorts as members ask for them, what is kept of those who join, what is said of who is missing (§4.6)."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest
from structlog.testing import capture_logs

from choral.errors import OutOfPhase, WireError
from choral.federation.records import Record
from choral.protocol.messages import Complaint
from choral.protocol.transcript import sign
from choral.service.state.facts import LONGEST, RoundRow
from choral.service.state.sqlite import FILE, Store
from direct import Direct, settled
from house import house, until


async def version(home: Direct, **asking: list[str]) -> tuple[Record, dict[str, str]]:
    """A round of all, `asking` by member; its record, and what those were told that had to wait."""
    waited: dict[str, str] = {}

    async def play(name: str) -> Record | None:
        try:
            return await home.play(home.machine(name), without=asking.get(name, ()))
        except OutOfPhase as error:
            waited[name] = f"{error.reason}; {error.hint}"
            return None

    records = await asyncio.gather(*map(play, home.names))
    return next(record for record in records if record), waited


async def test_members_that_ask_to_be_apart_are_in_no_cohort_together_and_take_turns(tmp_path):
    async with Direct(tmp_path, 5, rounds=9) as home, asyncio.timeout(60):
        for turn in ("m2", "m1", "m2"):
            record, waited = await version(home, m1=["m2"])
            assert set(waited) == {turn}
            assert set(record.survivors) == {"m1", "m2", "m3", "m4", "m5"} - {turn}
        assert (
            waited["m2"] == "the cohort closed without m2: m1 asked for cohorts without it; join the next one"
        )
        assert home.store.rounds()[-1].facts.apart == ("m2",)


async def test_whoever_is_named_by_more_than_can_be_lying_waits_until_they_stop(tmp_path):
    async with Direct(tmp_path, 5, rounds=9) as home, asyncio.timeout(60):
        for _ in range(2):
            _, waited = await version(home, m1=["m2"], m3=["m2"])
            assert list(waited) == ["m2"]
            assert "m1, m3 asked for" in waited["m2"] or "m3, m1 asked for" in waited["m2"]
        record, waited = await version(home)
        assert not waited
        assert len(record.survivors) == 5


async def test_a_cohort_that_would_be_too_small_apart_waits_for_more(tmp_path):
    async with Direct(tmp_path, 4, settings={"join_seconds": 1.0}) as home, asyncio.timeout(60):
        home.here.close()  # nobody is waited for but those that join
        for name in home.names[:3]:
            home.here.enter_context(home.rounds.presence.connection(name, home.session(name)))
        asking = {"m1": ["m2"]}
        early = [
            asyncio.create_task(home.play(home.machine(name), without=asking.get(name, ())))
            for name in home.names[:3]
        ]
        await until(lambda: home.conductor.forming)
        (live,) = home.conductor.forming.values()
        await until(lambda: len(live.machine.received(live.at)) == 3)
        for _ in range(5):
            home.now += 0.9
            live.wake.set()
            await settled()
        (cohort,) = home.rounds.status()["cohorts"]
        assert (cohort["phase"], cohort["awaited"], cohort["seconds_left"]) == ("advertise", ["m4"], None)
        home.here.enter_context(home.rounds.presence.connection("m4", home.session("m4")))
        record = await home.play(home.machine("m4"))
        assert set(record.survivors) == {"m1", "m3", "m4"}
        await asyncio.gather(*early, return_exceptions=True)


@pytest.mark.parametrize(
    ("without", "says"),
    [(["m1", "m9"], "'m9' under `without`, which is no member"), (["m1"] * 17, "found 17 names")],
)
async def test_only_members_can_be_named_and_few(tmp_path, without, says):
    async with Direct(tmp_path, 3) as home:
        with pytest.raises(WireError, match=says):
            await home.join(home.machine("m2"), without=without)
        assert not home.conductor.forming


async def test_over_http_whom_a_member_names_is_part_of_what_it_signs(tmp_path):
    async with house(tmp_path, 4) as home, home.players(1, 2, 3, 4) as players, asyncio.timeout(8):
        machines = [player.machine(home.head) for player in players]
        joining = [
            asyncio.create_task(player.send("POST", f"/v1/rounds{query}", machine.advertise))
            for player, machine, query in zip(players, machines, ("?without=m2,m1", "", "", ""), strict=True)
        ]
        with pytest.raises(OutOfPhase, match="m1 asked for cohorts without it"):
            await joining[1]
        assert all(await asyncio.gather(joining[0], *joining[2:]))


# ----- what is kept, and what is said ---------------------------------------------------------


async def test_of_a_member_that_advertises_again_and_again_the_newest_is_kept(tmp_path):
    async with Direct(tmp_path, 3) as home:
        tasks = []
        for _ in range(50):
            tasks.append(asyncio.create_task(home.join(home.machine("m1"))))
            await asyncio.sleep(0)
        await until(lambda: len(home.conductor.joined) == 1)
        await settled()
        newest = home.conductor.joined["m1"][0]
        (live,) = home.conductor.forming.values()
        assert live.machine.roster().members == (newest,)
        for task in tasks:
            task.cancel()


async def test_below_the_minimum_status_names_who_is_missing_and_counts_no_seconds(tmp_path):
    """Not *waiting for nobody, 11 s left*: no deadline closes a cohort that is too small."""
    async with Direct(tmp_path, 3) as home:
        home.here.close()
        home.now += 100
        with home.rounds.presence.connection("m1", "s"), home.rounds.presence.connection("m2", "s"):
            tasks = [asyncio.create_task(home.join(home.machine(name))) for name in ("m1", "m2")]
            await until(lambda: len(home.conductor.joined) == 2)
            (cohort,) = home.rounds.status()["cohorts"]
            assert (cohort["awaited"], cohort["seconds_left"]) == (["m3"], None)
            for task in tasks:
                task.cancel()


async def test_at_the_minimum_status_names_who_is_waited_for_and_the_time_that_is_left(tmp_path):
    async with Direct(tmp_path, 4, settings={"join_seconds": 30.0}) as home:
        tasks = [asyncio.create_task(home.join(home.machine(name))) for name in ("m1", "m2", "m3")]
        await until(lambda: len(home.conductor.joined) == 3)
        (cohort,) = home.rounds.status()["cohorts"]
        assert (cohort["awaited"], cohort["seconds_left"]) == (["m4"], 30.0)
        for task in tasks:
            task.cancel()


async def test_a_member_between_two_requests_is_connected(tmp_path):
    async with Direct(tmp_path, 3, settings={"gone_seconds": 3.0}) as home:
        home.here.close()
        home.now += 2.9
        assert home.rounds.status()["members"]["m1"]["connected"] is True
        home.now += 0.2
        assert home.rounds.status()["members"]["m1"]["connected"] is False


async def test_whom_complaints_name_is_in_the_log_and_in_the_rounds_row_once(tmp_path):
    async with Direct(tmp_path, 4) as home, asyncio.timeout(60):
        machines = [home.machine(name) for name in home.names]
        await asyncio.gather(*map(home.join, machines[:2]), *map(home.join, machines[2:]))
        (live,) = home.conductor.running.values()
        for name in home.names:  # so that the phase has all that it waits for
            complaint = Complaint(name, live.id, "why", ("m2",), bytes(64))
            with capture_logs() as lines:
                await home.rounds.complain(sign(home.identity(name), complaint), 1)
            (line,) = [line for line in lines if line["event"] == "a member left the round"]
            assert line["accused"] == ["m2"]
        await until(lambda: not home.conductor.running)
        row = home.store.round(live.id)
        assert row.state == "aborted"
        assert row.facts.culprits == ("m2",)


def test_a_row_of_an_older_version_that_is_huge_can_be_read(tmp_path):
    store = Store(tmp_path)
    details = {
        "reason": "x" * 100_000, "culprits": [f"member-{i}" for i in range(15_000)],
        "dropped": {f"member-{i}": "mask" for i in range(15_000)}, "version": 3,
    }  # fmt: skip
    store.put_round(RoundRow(b"r" * 32, 0, 1.0, "aborted", 2.0))
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("update rounds set details = ?", [json.dumps(details)])
    db.close()
    found = store.round(b"r" * 32)
    assert len(json.dumps(found.told())) < 20_000
    assert found.facts.culprits == tuple(details["culprits"][:256])
    assert found.facts.reason == "x" * LONGEST
    assert found.facts.version == 3
    assert store.rounds() == [found]
    store.close()
