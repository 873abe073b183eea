"""A member that takes longer than the others wait for it."""

from __future__ import annotations

import pytest
from schedules import Death, Play, Schedule
from witness import check

from virtual import Process, now, run


class OneIsSlow(Play):
    """Whatever m4 does in a thread, its training above all, takes a second to begin and a second to end."""

    def _process(self, name: str, death: Death | None) -> Process:
        process = super()._process(name, death)
        if name == "m4":
            process.pause = lambda: 1.0
        return process


@pytest.mark.parametrize("staleness", [0, 2])
def test_the_slow_member_of_the_last_round_ends_too_also_when_old_updates_are_welcome(tmp_path, staleness):
    schedule = Schedule(0, 4, 1, staleness, deaths={}, bad=0.0, slow=0.001, lie=None)

    async def main() -> Play:
        play = OneIsSlow(schedule, tmp_path, tmp_path / "state", join_seconds=0.05, gone_seconds=0.05)
        await play.run()
        assert now() < 30
        return play

    play = run(main())
    check(play)
    assert "m4" not in play.seen.ended["m4"].survivors
    assert len(play.seen.ended["m4"].survivors) == 3
    told = [(event, details) for _, name, event, details in play.seen.events if name == "m4"]
    events = [event for event, _ in told]
    # it began from the version before the last, and had not ended when that one came
    assert events.index("version") < events.index("trained")
    assert dict(told)["trained"]["version"] == 0
    assert events[-1] == "done"
    assert len(events) < 20  # and does not ask a thousand times
