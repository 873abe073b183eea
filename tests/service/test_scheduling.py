"""Who is waited for and for how long; what happens when members come late, vanish, and come back (§7)."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from choral.client.journal import Journal
from choral.errors import Ending, OutOfPhase, RoundAborted, ShuttingDown, Superseded, UnknownRound
from choral.learning import model_file
from choral.protocol import wire
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.messages import MaskedVector
from choral.service.state.facts import Facts
from direct import Direct, settled
from house import Player, house, until


async def vanish_before(phase: str, player: Player, base) -> None:
    await player.play(base, until=phase)
    await player.leave()


# ----- members that vanish --------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "in_sum"), [("share", 3), ("mask", 3), ("consistency", 4), ("unmask", 4)])
async def test_a_round_completes_without_a_member_that_vanishes_in_any_phase(tmp_path, phase, in_sum):
    async with house(tmp_path, 4) as home, home.players(1, 2, 3, 4) as (victim, *others):
        began = time.monotonic()
        async with asyncio.timeout(8):
            *records, _ = await asyncio.gather(
                *(player.play(home.head) for player in others), vanish_before(phase, victim, home.head)
            )
        assert time.monotonic() - began < 3  # not a deadline of 5 s
        assert len({record.digest for record in records}) == 1
        assert len(records[0].survivors) == in_sum
        assert records[0].totals[0] == 10 * in_sum
        model = model_file.decode(home.training.blob(records[0].parameters))
        expected = np.mean([0.01, 0.02, 0.03, 0.04][4 - in_sum :])
        np.testing.assert_allclose(model["bias"], expected, atol=1e-6)


@pytest.mark.parametrize("phase", ["share", "mask"])
async def test_below_the_quorum_a_round_aborts_names_who_was_missing_and_a_new_one_starts(tmp_path, phase):
    async with house(tmp_path, 3, rounds=1) as home:
        members = [asyncio.create_task(home.member(i)) for i in (2, 3)]
        async with home.players(1) as (victim,):
            await vanish_before(phase, victim, home.head)
        await until(lambda: home.told(2, "aborted") and home.told(3, "aborted"))
        assert home.told(2, "aborted")[0]["missing"] == ["m1"]
        assert phase in home.told(2, "aborted")[0]["reason"]
        row = next(row for row in home.store.rounds() if row.state == "aborted")
        assert row.facts.missing == ("m1",)
        assert row.facts.kind is Ending.MISSING_MEMBERS
        records = await asyncio.wait_for(asyncio.gather(home.member(1), *members), 8)
        assert {record.version for record in records} == {1}
        assert len(home.head.survivors) == 3


async def test_who_asks_late_still_learns_why_a_round_was_aborted(tmp_path):
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        others = asyncio.gather(
            *(home.play(home.machine(name)) for name in ("m2", "m3")), return_exceptions=True
        )
        machine = home.machine("m1")
        inbox = await home.share(machine, await home.join(machine))
        await until(lambda: sorted(home.rounds.status()["cohorts"][0]["in"]["mask"]) == ["m2", "m3"])
        await home.later(5.1)  # m1 is still computing
        assert all(isinstance(error, RoundAborted) for error in await others)
        assert not home.conductor.lives()
        with pytest.raises(RoundAborted, match="phase mask"):
            await home.mask(machine, inbox)


async def test_a_member_that_is_switched_off_costs_one_startup_wait_and_not_one_a_round(tmp_path):
    patient = {"startup_seconds": 10.0, "join_seconds": 60.0}
    async with Direct(tmp_path, 4, rounds=4, settings=patient, here=3) as home, asyncio.timeout(60):
        playing = asyncio.gather(*(home.play(home.machine(name)) for name in home.names[:3]))
        await until(lambda: len(home.conductor.joined) == 3)
        await home.later(9.9)
        assert home.conductor.forming  # for a member that was never heard from
        await home.later(0.2)
        assert not home.conductor.forming
        await playing
        for _ in range(2):
            await asyncio.gather(*(home.play(home.machine(name)) for name in home.names[:3]))
        assert home.training.head.version == 3  # and no time has passed
        assert home.now == pytest.approx(1010.1)


async def test_a_member_that_is_switched_off_during_training_costs_its_grace_once(tmp_path):
    patient = {"gone_seconds": 3.0, "join_seconds": 60.0}
    async with Direct(tmp_path, 4, rounds=6, settings=patient, here=3) as home, asyncio.timeout(60):
        leaving = home.come("m4")
        await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        leaving.close()
        playing = asyncio.gather(*(home.play(home.machine(name)) for name in home.names[:3]))
        await until(lambda: len(home.conductor.joined) == 3 and home.conductor.forming)
        await home.later(2.9)
        assert home.conductor.forming
        await home.later(0.2)
        assert not home.conductor.forming
        await playing
        for _ in range(2):
            await asyncio.gather(*(home.play(home.machine(name)) for name in home.names[:3]))
        assert home.training.head.version == 4
        assert home.now == pytest.approx(1003.1)


# ----- members that come late -----------------------------------------------------------------


async def test_a_member_that_comes_late_is_in_the_next_round(tmp_path):
    async with Direct(tmp_path, 4, here=3) as home, asyncio.timeout(60):
        others = asyncio.gather(*(home.play(home.machine(name)) for name in ("m2", "m3")))
        machine = home.machine("m1")
        inbox = await home.share(machine, await home.join(machine))
        home.come("m4")
        waiting = asyncio.create_task(home.play(home.machine("m4")))
        await home.later(1.0)
        assert not waiting.done()  # it does not open a second cohort from the same version
        assert len(home.rounds.status()["cohorts"]) == 1
        await home.reveal(machine, await home.endorse(machine, await home.mask(machine, inbox)))
        await others
        with pytest.raises(Superseded):
            await waiting
        records = await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        assert set(records[0].survivors) == {"m1", "m2", "m3", "m4"}


async def test_a_latecomer_cannot_slip_between_a_cohort_and_its_round(tmp_path, monkeypatch):
    """While the closed cohort is being saved it is neither forming nor, if one is careless, running."""
    async with Direct(tmp_path, 4, here=3) as home, asyncio.timeout(60):
        save, saving, go = home.store.put_round, threading.Event(), threading.Event()

        def held_up(row):
            saving.set()
            go.wait(5)
            save(row)

        monkeypatch.setattr(home.store, "put_round", held_up)
        playing = asyncio.gather(*(home.play(home.machine(name)) for name in home.names[:3]))
        await until(saving.is_set)
        home.come("m4")
        joining = asyncio.create_task(home.join(home.machine("m4")))
        await settled()
        assert not home.conductor.forming  # it has not opened a second one
        go.set()
        with pytest.raises(Superseded):
            await joining
        await playing
        assert [row.state for row in home.store.rounds()] == ["done"]


async def test_a_member_whose_connection_heals_is_back_in_the_cohort(tmp_path):
    """It was withdrawn as gone; the same request again must not get a roster without it."""
    async with house(tmp_path, 4) as home:
        base = home.head
        async with home.players(2) as (two,), asyncio.timeout(8):
            first = home.player(1)
            machine = first.machine(base)
            joined = asyncio.create_task(first.advertise(machine))
            waiting = asyncio.create_task(two.play(base))
            await until(lambda: len(home.rounds.conductor.joined) == 2)
            joined.cancel()
            await first.leave()
            await until(lambda: home.status()["cohorts"][0]["in"]["advertise"] == ["m2"])
            async with home.players(1) as (back,):
                back.access = first.access
                back.transport._access = first.access
                again = asyncio.create_task(back.advertise(machine))
                await until(lambda: len(home.status()["cohorts"][0]["in"]["advertise"]) == 2)
                async with home.players(3) as (three,):
                    third = asyncio.create_task(three.play(base))
                    roster = await again
                    assert {entry.member for entry in roster.members} == {"m1", "m2", "m3"}
                    inbox = await back.share(machine, roster)
                    survivors = await back.mask(machine, inbox)
                    record = await back.reveal(machine, await back.endorse(machine, survivors))
                    assert await waiting == await third == record


async def test_a_member_that_comes_back_when_the_cohort_closed_without_it_is_told_so(tmp_path):
    async with house(tmp_path, 4) as home:
        base = home.head
        async with home.players(2, 3, 4) as (two, three, four), asyncio.timeout(8):
            first = home.player(1)
            machine = first.machine(base)
            waiting = asyncio.create_task(two.play(base))
            await until(lambda: home.status()["cohorts"])
            joined = asyncio.create_task(first.advertise(machine))
            await until(lambda: len(home.rounds.conductor.joined) == 2)
            joined.cancel()
            await first.leave()
            await until(lambda: home.status()["cohorts"][0]["in"]["advertise"] == ["m2"])
            others = asyncio.create_task(four.play(base))
            held, inbox = await three.play(base, until="mask")
            back = Player(home.root / "m1", home.url)
            with pytest.raises(OutOfPhase, match="closed without m1"):
                await back.advertise(machine)
            record = await three.reveal(held, await three.endorse(held, await three.mask(held, inbox)))
            assert await waiting == await others == record
            await back.leave()


async def test_a_member_that_joins_again_with_new_keys_replaces_its_advertisement(tmp_path):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as (one, two, three), asyncio.timeout(8):
        base = home.head
        lost = asyncio.create_task(one.advertise(one.machine(base)))
        await until(lambda: home.status()["cohorts"])
        lost.cancel()
        records = await asyncio.gather(*(player.play(base) for player in (one, two, three)))
        assert len(records[0].survivors) == 3


async def test_a_member_that_comes_when_the_training_is_over_says_so_and_ends(tmp_path):
    async with house(tmp_path, 4, rounds=1) as home:
        await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3))), 5)
        record = await asyncio.wait_for(home.member(4), 5)
        assert record.version == 1
        assert not home.told(4, "trained")
        assert home.told(4, "done")[0]["version"] == 1


async def test_a_restarted_member_trains_from_the_newest_model_and_not_from_what_it_remembers(tmp_path):
    async with house(tmp_path, 3, rounds=3) as home:
        journal = Journal(home.root / "m1/state")
        journal.saw(home.head)
        journal.close()
        async with home.players(1, 2, 3) as players:
            for _ in range(2):
                await asyncio.gather(*(player.play(home.head) for player in players))
        await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3))), 8)
        assert [told["version"] for told in home.told(1, "trained")] == [2]
        assert [told["version"] for told in home.told(1, "version")] == [1, 2, 3]


async def test_a_hundred_and_more_versions_are_caught_up_with_page_by_page(tmp_path, monkeypatch):
    from choral.service.http import app  # noqa: PLC0415

    monkeypatch.setattr(app, "PAGE", 2)
    async with house(tmp_path, 3, rounds=8) as home:
        async with home.players(1, 2, 3) as players:
            for _ in range(7):
                await asyncio.gather(*(player.play(home.head) for player in players))
        await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3))), 8)
        assert [told["version"] for told in home.told(1, "trained")] == [7]


# ----- several cohorts ------------------------------------------------------------------------


async def test_two_cohorts_run_side_by_side_from_one_version(tmp_path):
    async with (
        house(tmp_path, 6, max_staleness=1, settings={"cohort": 3}) as home,
        home.players(1, 2, 3, 4, 5, 6) as players,
        asyncio.timeout(8),
    ):
        base = home.head
        first = [asyncio.create_task(player.play(base)) for player in players[:2]]
        held, came = await players[2].play(base, until="mask")
        second = [asyncio.create_task(player.play(base)) for player in players[3:5]]
        also, there = await players[5].play(base, until="mask")
        assert [cohort["phase"] for cohort in home.status()["cohorts"]] == ["mask", "mask"]
        for player, machine, inbox in ((players[5], also, there), (players[2], held, came)):
            survivors = await player.mask(machine, inbox)
            await player.reveal(machine, await player.endorse(machine, survivors))
        records = [(await task) for task in (*second, *first)]
        assert [record.version for record in records] == [1, 1, 2, 2]
        assert {record.base for record in records} == {base.digest}
        assert set(records[0].survivors) | set(records[2].survivors) == {f"m{i}" for i in range(1, 7)}


async def test_a_round_that_became_too_old_is_aborted_and_changes_nothing(tmp_path):
    async with (
        house(tmp_path, 6, max_staleness=1, rounds=9, settings={"cohort": 3}) as home,
        home.players(1, 2, 3, 4, 5, 6) as players,
        asyncio.timeout(8),
    ):
        base = home.head
        first = [asyncio.create_task(player.play(base)) for player in players[:2]]
        held, came = await players[2].play(base, until="mask")
        for _ in range(2):
            await asyncio.gather(*(player.play(home.head) for player in players[3:]))
        survivors = await players[2].mask(held, came)
        with pytest.raises(RoundAborted, match="version 2 came first"):
            await players[2].reveal(held, await players[2].endorse(held, survivors))
        await asyncio.gather(*first, return_exceptions=True)
        assert home.store.round(held.round_id).facts.kind is Ending.SUPERSEDED
        assert home.head.version == 2


# ----- what a hang-up must not do -------------------------------------------------------------


async def test_a_sender_that_hangs_up_while_its_vector_is_added_does_not_spoil_the_sum(tmp_path, monkeypatch):
    """Two threads that add at once lose words. The lock outlives the request."""
    adding, most = 0, 0
    take = AggregatorRound.receive

    def slowly(self, message):
        nonlocal adding, most
        if not isinstance(message, MaskedVector):
            return take(self, message)
        adding += 1
        most = max(most, adding)
        time.sleep(0.2)
        take(self, message)
        adding -= 1

    monkeypatch.setattr(AggregatorRound, "receive", slowly)
    async with house(tmp_path, 4) as home, home.players(1, 2, 3, 4) as (victim, *others):
        base = home.head
        playing = asyncio.gather(*(player.play(base) for player in others))
        machine, inbox = await victim.play(base, until="mask")
        sending = asyncio.create_task(victim.mask(machine, inbox))
        await until(lambda: adding)
        sending.cancel()
        await victim.leave()
        record = (await asyncio.wait_for(playing, 8))[0]
        assert most == 1
        assert len(record.survivors) == 4  # it was taken whole
        model = model_file.decode(home.training.blob(record.parameters))
        np.testing.assert_allclose(model["bias"], 0.025, atol=1e-6)


@pytest.mark.parametrize("aborted", [False, True])
async def test_a_finished_round_is_freed(tmp_path, aborted):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as players, asyncio.timeout(8):
        base = home.head
        playing = asyncio.gather(*(player.play(base) for player in players[1:]), return_exceptions=True)
        machine, inbox = await players[0].play(base, until="mask")
        live = weakref.ref(home.rounds.find(machine.round_id))
        inner = weakref.ref(live().machine)
        if aborted:
            await players[0].leave()
        else:
            survivors = await players[0].mask(machine, inbox)
            await players[0].reveal(machine, await players[0].endorse(machine, survivors))
        await playing
        conductor = home.rounds.conductor
        await until(lambda: not conductor.running)
        await asyncio.sleep(0.05)
        gc.collect()
        assert live() is None
        assert inner() is None
        assert not conductor.joined
        assert not conductor._drivers


async def test_a_cohort_whose_members_all_went_away_is_forgotten(tmp_path):
    async with house(tmp_path, 3) as home:
        async with home.players(1) as (player,):
            joined = asyncio.create_task(player.advertise(player.machine(home.head)))
            await until(lambda: home.status()["cohorts"])
            joined.cancel()
        await until(lambda: not home.status()["cohorts"])
        assert not home.rounds.conductor.joined


# ----- stopping -------------------------------------------------------------------------------


async def test_draining_lets_the_running_round_end_and_turns_joiners_away(tmp_path):
    async with house(tmp_path, 6, max_staleness=1, settings={"cohort": 3}) as home:
        async with home.players(1, 2, 3, 4) as players, asyncio.timeout(8):
            base = home.head
            playing = [asyncio.create_task(player.play(base)) for player in players[:2]]
            machine, inbox = await players[2].play(base, until="mask")
            forming = home.player(5, patience=0.1)
            joined = asyncio.create_task(forming.advertise(forming.machine(base)))
            await until(lambda: len(home.status()["cohorts"]) == 2)
            began = time.monotonic()
            draining = asyncio.create_task(home.rounds.drain(30))
            with pytest.raises(Exception, match="stopping"):
                await joined
            assert not draining.done()
            survivors = await players[2].mask(machine, inbox)
            record = await players[2].reveal(machine, await players[2].endorse(machine, survivors))
            assert [await task for task in playing] == [record, record]
            await draining
            assert time.monotonic() - began < 3
            await forming.leave()
        assert home.head.version == 1


async def test_members_that_follow_the_log_do_not_spin_while_the_aggregator_stops(tmp_path):
    async with house(tmp_path, 3) as home:
        asked = 0
        watching = home.rounds.training

        class Counting:
            def __getattr__(self, name):
                nonlocal asked
                asked += name == "head"
                return getattr(watching, name)

        async with home.players(1, 2, 3):
            await home.rounds.drain(0)
            home.rounds.training = Counting()
            await asyncio.sleep(0.5)
        assert asked < 60


async def test_a_round_that_is_cut_off_by_the_stop_says_so(tmp_path):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as players:
        base = home.head
        playing = [asyncio.create_task(player.play(base)) for player in players[:2]]
        machine, _ = await players[2].play(base, until="mask")
        await home.rounds.drain(0.1)
        for task in playing:
            with pytest.raises((RoundAborted, UnknownRound, ShuttingDown), match="stopped"):
                await task
        row = home.store.round(machine.round_id)
        assert (row.state, row.facts.reason) == ("aborted", "the aggregator stopped")
        assert row.facts.kind is Ending.STOPPING


async def test_a_round_that_is_done_stays_done(tmp_path):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as players:
        record = (await asyncio.gather(*(player.play(home.head) for player in players)))[0]
        row = home.store.round(record.round_id)
        assert row.state == "done"
        home.store.put_round(replace(row, state="aborted", facts=Facts(reason="late")))
        assert home.store.round(record.round_id) == row
        found = await players[0].transport.get(f"/v1/rounds/{record.round_id.hex()}")
        assert b'"done"' in found
        assert wire.encode(record)
