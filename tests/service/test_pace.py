"""What the rounds leave behind for those who watch, and how fast they follow each other."""

from __future__ import annotations

import asyncio
import time

from house import house


async def test_the_pace_keeps_versions_apart_and_rounds_remember_who_dropped_where(tmp_path):
    pace = {"pace_seconds": 0.6}
    async with house(tmp_path, 4, settings=pace) as home, home.players(1, 2, 3, 4) as (victim, *others):
        first = home.head
        began = time.monotonic()
        async with asyncio.timeout(10):
            await asyncio.gather(*(player.play(first) for player in (victim, *others)))
            machine = victim.machine(home.head)
            shared = asyncio.create_task(victim.advertise(machine))
            going_on = [asyncio.create_task(player.play(home.head)) for player in others]
            await victim.share(machine, await shared)
            await victim.transport.__aexit__()
            await asyncio.gather(*going_on)
        assert time.monotonic() - began >= 0.6
        done = home.store.rounds()[-1]
        assert done.facts.dropped == {victim.name: "mask"}
        assert sorted(done.facts.survivors) == ["m2", "m3", "m4"]
