"""Whatever is killed, lost, late or doubled: every version is the sum of its survivors, nothing goes twice.

Real members with real journals and the real rounds on a real store, in one event loop: no socket, no thread,
no time that is waited for. A failure names the number of its schedule and what happened last;
`CHORAL_SCHEDULE=NUMBER` plays that one alone, and with `-s` all that happened in it is printed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from schedules import Play, Schedule
from structlog.testing import capture_logs
from witness import check

from virtual import now, run

CHUNKS, EACH = 8, 125
ONE = os.environ.get("CHORAL_SCHEDULE")
_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory, where there is such a place: what is killed here is no machine, and waits for no disk."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("schedules")
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


def play(number: int, root: Path) -> Play:
    """A schedule to its end, and what must hold of it.

    Raises:
        AssertionError: what does not, with the number and what happened.
    """
    state = Path(tempfile.mkdtemp(dir=root))

    async def main() -> Play:
        found = Play(Schedule.of(number), root, state)
        try:
            await found.run()
            check(found)
        except BaseException as error:
            error.add_note(f"in {found.schedule}, after {now():.3f} s")
            error.add_note("\n".join(map(str, found.seen.events[-60:])))
            raise
        return found

    try:
        with capture_logs() as logs:
            found = run(main())
        faults = {"a round failed", "an event was lost on one that wanted it"}
        assert faults.isdisjoint(told["event"] for told in logs), f"schedule {number}: {logs}"
        return found
    finally:
        shutil.rmtree(state)


def chunks() -> list[range]:
    if ONE:
        return [range(int(ONE), int(ONE) + 1)]
    return [range(at * EACH, (at + 1) * EACH) for at in range(CHUNKS)]


@pytest.mark.no_cover  # measured, they take more than twice as long, and cover what others do
@pytest.mark.parametrize("numbers", chunks(), ids=lambda numbers: f"{numbers[0]}-{numbers[-1]}")
def test_whatever_happens_every_version_is_the_sum_of_its_survivors_and_nothing_goes_twice(root, numbers):
    did: Counter[str] = Counter()
    for number in numbers:
        found = play(number, root)
        did["killed"] += found.seen.kills
        did["lied"] += found.seen.lies
        did.update(event for _, _, event, _ in found.seen.events)
    if ONE:
        print(found.schedule, *found.seen.events, sep="\n")
        return
    # that the schedules are hard on them
    assert did["killed"] >= EACH
    assert did["lied"] >= EACH // 10
    assert min(did["aborted"], did["refused"], did["last outcome"]) > 0, did


def test_the_same_number_is_the_same_schedule_down_to_the_last_event(root):
    for number in (5, 11):
        first, second = (play(number, root).seen for _ in range(2))
        assert first.events == second.events
        assert first.sums.keys() == second.sums.keys()
