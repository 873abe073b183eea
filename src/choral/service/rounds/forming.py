"""Which members a cohort takes, whom it waits for, and when it can close (§4.6)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog

from choral.errors import KeptOut
from choral.federation.enrolment import Participant
from choral.protocol.aggregator import Phase
from choral.service.rounds.apart import keep_apart, some
from choral.service.rounds.live import LiveRound
from choral.service.rounds.presence import Presence
from choral.service.rounds.room import UNSAVED, Room
from choral.service.settings import Settings
from choral.service.state.sqlite import Kept, Store

_FRESH = 1.0  # seconds for which a look at who is kept out is good

log = structlog.get_logger("choral.rounds")


class Forming:
    """What decides over open cohorts, but for the clock of each."""

    def __init__(
        self,
        aggregator: Participant,
        settings: Settings,
        store: Store,
        presence: Presence,
        room: Room,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._parameters = aggregator.parameters
        self._members = tuple(aggregator.federation.members)
        self._settings = settings
        self._store = store
        self._presence = presence
        self._room = room
        self._clock = clock
        self._wall = wall
        self._turns: dict[str, int] = {}  # which cohort it was that a member had to wait at last
        self._cohorts = 0
        self._kept: Mapping[str, Kept] = {}
        self._looked = -_FRESH

    # ----- who can take part ------------------------------------------------------------------

    @property
    def kept_out(self) -> Mapping[str, Kept]:
        """Who is kept out of cohorts, as the store has it: `choral readmit` changes it beside us."""
        if self._clock() - self._looked >= _FRESH:
            self._look()
        return self._kept

    def _look(self) -> None:
        try:
            self._kept = self._store.kept_out()
        except sqlite3.Error:  # what was known stays so, until the disk is back
            log.warning("who is kept out cannot be read")
        self._looked = self._clock()

    def refuse_kept_out(self, member: str) -> None:
        """Raises `KeptOut` if the member is; looked up anew."""
        self._look()
        kept = self._kept.get(member)
        if kept is not None:
            raise KeptOut(
                f"{member} is kept out of cohorts since round {kept.round.hex()[:12]}: {kept.reason}",
                hint="whoever runs the aggregator can let it back in: choral readmit FOLDER " + member,
            )

    def keep_out(self, live: LiveRound, proven: Iterable[str], reason: str) -> None:
        """Whoever of this cohort is proven to have lied, until somebody lets it in again (§4.6).

        What cannot be saved has to be proven again.
        """
        there = live.machine.received(Phase.ADVERTISE)
        members = [name for name in proven if name in there]
        kept = Kept(live.id, reason[:300], self._wall())
        for member in members:
            log.error(
                "a member is kept out of cohorts", member=member, round=live.short,
                reason=kept.reason, hint=f"choral readmit FOLDER {member} lets it back in",
            )  # fmt: skip
            try:
                self._store.keep_out(member, kept)
            except UNSAVED as error:
                self._room.failed(error)
        if members:
            self._look()

    @property
    def stuck(self) -> str:
        """Why no cohort can come about before somebody does something; empty while one can.

        Members that pause come back by themselves, and those that are away may: they are not counted.
        """
        kept = [name for name in self._members if name in self.kept_out]
        others = [name for name in self._members if name not in self.kept_out]
        spent = [name for name in others if self._presence.resting(name) == "spent"]
        able = len(others) - len(spent)
        if able >= self._parameters.minimum:
            return ""
        why = [f"kept out: {some(kept)}"] if kept else []
        why += [f"have used up what they may send: {some(spent)}"] if spent else []
        return (
            f"{able} of {len(self._members)} members can send, a cohort needs {self._parameters.minimum}"
            f" ({'; '.join(why)})"
        )

    # ----- an open cohort ---------------------------------------------------------------------

    def kept_apart(self, live: LiveRound) -> Mapping[str, str]:
        """Who waits for another cohort, and why; of one that is open, who would if it closed now."""
        if live.machine.phase is not Phase.ADVERTISE:
            return live.apart
        return self._apart(live, live.machine.received(Phase.ADVERTISE))

    def awaited(self, live: LiveRound, busy: Collection[str]) -> list[str]:
        """Who may still join, and is worth waiting for."""
        return [
            name
            for name in self._may_join(live, busy)
            if self._presence.waited_for(name) and self._presence.resting(name) is None
        ]

    def missing(self, live: LiveRound, busy: Collection[str]) -> list[str]:
        """The same; below the minimum, everybody who may still join, whether they are there or not."""
        return self._may_join(live, busy) if self.short(live) else self.awaited(live, busy)

    def _may_join(self, live: LiveRound, busy: Collection[str]) -> list[str]:
        return [name for name in live.machine.awaited if name not in busy and name not in self.kept_out]

    def short(self, live: LiveRound) -> bool:
        """Whether an open cohort has too few members to be closed, whatever the clock says."""
        there = live.machine.received(Phase.ADVERTISE)
        return len(there) - len(self._apart(live, there)) < live.machine.needed

    def withdraw_the_gone(self, live: LiveRound) -> int:
        """Take those off that went away, or are kept out since; how many are left."""
        for member in live.machine.received(Phase.ADVERTISE):
            if not self._presence.waited_for(member) or member in self.kept_out:
                live.machine.withdraw(member)
        return len(live.machine.received(Phase.ADVERTISE))

    def complete(self, live: LiveRound, busy: Collection[str], *, over: bool) -> bool:
        """Whether the cohort can close, and then it has to: who must wait for the next one is off.

        Below the minimum it stays open: nothing is lost by waiting.

        Raises:
            NoRoom: it could, but what it leads to could not be saved.
        """
        machine = live.machine
        there = machine.received(Phase.ADVERTISE)
        out = self._apart(live, there)
        got = len(there) - len(out)
        target = min(self._settings.cohort or len(machine.pinned), machine.parameters.largest)
        enough = got >= machine.needed and (over or not self.awaited(live, busy))
        if not enough and got < max(target, machine.needed):
            return False
        self._room.check()
        self._cohorts += 1
        for member, why in out.items():
            machine.withdraw(member)
            live.apart[member] = why
            self._turns[member] = self._cohorts
        if out:
            log.info("members are kept apart", waiting=some(list(out)), why=some(list(out.values()), 3))
        return True

    def _apart(self, live: LiveRound, there: list[str]) -> dict[str, str]:
        if not live.without:
            return {}
        asked = tuple(sorted((name, tuple(sorted(named))) for name, named in live.without.items()))
        key = (tuple(there), asked, self._cohorts)
        if live.settled is None or live.settled[0] != key:  # it takes a while where many ask for much
            out = keep_apart(
                there, live.without, colluders=self._parameters.colluders(len(there)),
                least=live.machine.needed, turns=self._turns,
            )  # fmt: skip
            live.settled = (key, out)
        return live.settled[1]
