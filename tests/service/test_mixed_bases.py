"""Late members count, if the task lets them: older bases in one cohort, discounted, over real HTTP."""

import asyncio
import os
import time

import numpy as np
import pytest

from choral.client.learner import Update, discounted
from choral.errors import Superseded
from choral.learning import Softmax, model_file
from choral.learning.update import flatten
from choral.protocol import phases
from choral.protocol.member import MemberRound
from choral.vectors.fixed_point import decode, encode
from choral.vectors.totals import Totals
from house import CLASSES, FEATURES, house

MEMBERS = (1, 2, 3, 4)


class Slow(Softmax):
    """A model whose training takes its time."""

    def train(self, parameters, X, y, rng):  # noqa: N803
        time.sleep(0.6)
        return super().train(parameters, X, y, rng)


def offering(player, anchor, staleness):
    """A player's machine with what the client would offer: its constant update, discounted."""
    known = phases.Member(
        player.name, player.me.identity, player.me.federation.pinned, player.me.parameters,
        anchor.context, player.me.sealing, staleness,
    )  # fmt: skip
    offered = discounted(Update(player.vector, Totals(10, 2, 1, 1.0)), staleness)
    return MemberRound(known, offered.vector, offered.totals.encode(), os.urandom)


async def play(player, machine):
    inbox = await player.share(machine, await player.advertise(machine))
    endorsements = await player.endorse(machine, await player.mask(machine, inbox))
    return await player.reveal(machine, endorsements)


def model_of(home, record):
    arrays = home.aggregator.task.arrays
    return flatten(model_file.decode(home.training.blob(record.parameters), arrays), arrays)


async def test_an_older_update_is_in_the_sum_at_its_discount(tmp_path):
    async with (
        house(tmp_path, 4, max_staleness=2, settings={"cohort": 4}) as home,
        home.players(*MEMBERS) as players,
        asyncio.timeout(8),
    ):
        for _ in range(2):
            anchor = home.head
            await asyncio.gather(*(play(player, offering(player, anchor, 0)) for player in players))
        anchor, before = home.head, model_of(home, home.head)
        stale = (0, 0, 1, 2)
        records = await asyncio.gather(
            *(play(player, offering(player, anchor, s)) for player, s in zip(players, stale, strict=True))
        )
        assert {record.digest for record in records} == {home.head.digest}
        assert set(home.head.survivors) == {"m1", "m2", "m3", "m4"}
        moved = model_of(home, home.head) - before
        expected = sum(0.01 * i * (1 + s) ** -0.5 for i, s in zip(MEMBERS, stale, strict=True)) / 4
        np.testing.assert_allclose(moved, expected, atol=1e-5)
        metrics = home.head.metrics
        assert (metrics.weight, metrics.examples) == (40, 4)  # of the two that measured this very base
        row = home.store.rounds()[-1]
        assert row.facts.stale == {"m3": 1, "m4": 2}


async def test_a_cohort_on_an_older_version_is_not_opened_and_one_that_waits_is_told(tmp_path):
    async with (
        house(tmp_path, 6, max_staleness=3, settings={"cohort": 3}) as home,
        home.players(1, 2, 3, 4) as players,
        asyncio.timeout(8),
    ):
        old = home.head
        running = [asyncio.create_task(player.play(old)) for player in players[:2]]
        held, came = await players[2].play(old, until="mask")
        waiting = asyncio.create_task(players[3].advertise(offering(players[3], old, 0)))
        survivors = await players[2].mask(held, came)
        await players[2].reveal(held, await players[2].endorse(held, survivors))
        await asyncio.gather(*running)
        with pytest.raises(Superseded):
            await waiting
        with pytest.raises(Superseded, match="the newest is 1"):
            await players[3].advertise(offering(players[3], old, 0))


async def test_a_slow_member_counts_late_with_the_real_loop_and_a_fast_cohort_does_not_wait(tmp_path):
    async with house(
        tmp_path,
        4,
        rounds=6,
        max_staleness=5,
        settings={"cohort": 3, "join_seconds": 0.05, "pace_seconds": 0.1},
    ) as home:
        trainer = Slow(FEATURES, CLASSES, batch=8)
        late = asyncio.create_task(home.member(4, trainer=trainer))
        await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 2, 3))), 15)
        await asyncio.wait_for(late, 8)
        stale = [row.facts.stale for row in home.store.rounds() if row.state == "done"]
        assert any("m4" in one for one in stale), stale
        assert not home.told(4, "refused")


async def test_by_default_every_member_starts_from_the_newest_version(tmp_path):
    async with house(tmp_path, 3) as home, home.players(1, 2, 3) as players, asyncio.timeout(8):
        assert home.aggregator.task.max_staleness == 0
        await asyncio.gather(*(player.play(home.head) for player in players))
        with pytest.raises(Exception, match="1 versions old"):
            await players[0].advertise(offering(players[0], home.head, 1))


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_a_discount_is_exact_to_half_a_unit_and_keeps_the_weight(staleness):
    from choral.vectors.fixed_point import RingPlan  # noqa: PLC0415

    plan = RingPlan(3, 8.0, 10)
    delta = np.random.default_rng(0).normal(0, 1, 500).astype(np.float32)
    update = Update(encode(delta, 10, plan).vector, Totals(10, 4.0, 3.0, 1.5, 2.0, 1.0))
    found = discounted(update, staleness)
    np.testing.assert_allclose(
        decode(found.vector, 10, plan), delta * (1 + staleness) ** -0.5, atol=2 * plan.step, rtol=1e-6
    )
    assert (found.totals.weight, found.totals.clipped, found.totals.capped) == (10, 2.0, 1.0)
    assert found.totals.examples == (0 if staleness else 4.0)
