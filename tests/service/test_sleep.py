"""Time in which the aggregator did not run counts for nobody: not for a phase, not for a member."""

from __future__ import annotations

import asyncio

import pytest

from choral.service.rounds.presence import Presence
from direct import Direct, settled
from house import until


@pytest.mark.parametrize("asleep", [2.0, 3600.0])
async def test_a_phase_that_was_asleep_has_its_time_again(tmp_path, asleep):
    """The messages that wait in the sockets are read after the first look at the deadline."""
    async with Direct(tmp_path, settings={"phase_seconds": 1.5}) as home, asyncio.timeout(60):
        machines = [home.machine(name) for name in home.names]
        rosters = await asyncio.gather(*map(home.join, machines))
        (live,) = home.conductor.running.values()
        left = live.deadline - home.now
        early = [
            asyncio.create_task(home.share(machine, roster))
            for machine, roster in zip(machines[:3], rosters, strict=False)
        ]
        await until(lambda: len(live.machine.received(live.at)) == 3)
        home.now += asleep
        live.wake.set()
        await settled()
        assert live.deadline - home.now == pytest.approx(left, abs=0.3)  # but for the tick
        await home.share(machines[3], rosters[3])
        assert len((await early[0]).dealt) == 4


async def test_a_phase_ends_at_its_deadline_when_the_aggregator_was_awake(tmp_path):
    async with Direct(tmp_path, settings={"phase_seconds": 1.5}) as home, asyncio.timeout(60):
        machines = [home.machine(name) for name in home.names]
        rosters = await asyncio.gather(*map(home.join, machines))
        (live,) = home.conductor.running.values()
        early = [
            asyncio.create_task(home.share(machine, roster))
            for machine, roster in zip(machines[:3], rosters, strict=False)
        ]
        await until(lambda: len(live.machine.received(live.at)) == 3)
        for _ in range(10):  # looks that are a fifth of a second apart
            home.now += 0.2
            live.wake.set()
            await settled()
        assert len((await early[0]).dealt) == 3


def test_a_member_is_not_gone_because_nobody_could_hear_it():
    now = [100.0]
    presence = Presence(["a", "b"], lambda: now[0], gone_seconds=3, startup_seconds=10, changed=lambda: None)
    with presence.connection("a", "s"):
        pass
    now[0] += 2
    presence.slept(102, 162)
    presence.slept(102, 162)  # two rounds notice the same pause
    now[0] = 162
    assert presence.waited_for("a")
    assert presence.waited_for("b")  # 8 of its 10 seconds are left
    assert presence.seconds_since("a") == 2
    now[0] += 1.1
    assert not presence.waited_for("a")
    now[0] += 7
    assert not presence.waited_for("b")
