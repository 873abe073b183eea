"""A round in this process: the protocol's machine, and what the service knows around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any

from choral.errors import ChoralError
from choral.federation.records import Record
from choral.protocol.aggregator import AggregatorRound, Phase
from choral.protocol.messages import FromMember, MaskedVector
from choral.protocol.rounds import PHASES
from choral.service.state.facts import Facts, RoundRow, Saw

DISPUTES = 32  # pairs that a round's row, or a line of the log, has room for


class StillWaiting(Exception):
    """The phase is not over yet: ask again (§7, 202)."""


async def or_timeout(waiting: Awaitable[object], seconds: float) -> None:
    """Wait, but not for longer than that.

    In the caller's own task: `asyncio.wait_for` of Python 3.11 makes another one, which a caller that is
    cancelled at the very end leaves behind, with whatever lock it takes then; and it may swallow the cancel.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting


@dataclass(eq=False)
class LiveRound:
    """A round in this process: the machine, and what surrounds it.

    Attributes:
        sessions: which process of a member has joined.
        answers: encoded, of the phases whose answer is the same for everybody.
        at: the phase that is being collected, also after the machine has given up.
        got, gave: bytes of messages and of answers by phase.
        without: by member, whom it asked not to be in a cohort with.
        apart: who was left out of the cohort for that, and why.
        settled: who would be, for what is known.
        summing: the last message is in, and no deadline counts any more.
        trouble: why nothing moves although the members have done their part.
        culprits: whose shares were wrong in a round that has its sum.
        disputes: dealer and holder of a wrong share in it, one of whom lied; the first few.
        late: members that were there when the cohort closed without them.
        saw: histograms of what the aggregator received and of the sum, for the page.
        lock: held while the machine works in a thread.
        wake: set when something may have ended the open phase.
    """

    machine: AggregatorRound
    base: Record
    opened: float
    began: float
    deadline: float = 0.0
    failure: ChoralError | None = None
    record: Record | None = None
    summing: bool = False
    trouble: ChoralError | None = None
    culprits: tuple[str, ...] = ()
    disputes: tuple[tuple[str, str], ...] = ()
    driver: asyncio.Task[None] | None = None
    sessions: dict[str, str] = field(default_factory=dict)
    answers: dict[Phase, bytes] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    at: Phase = Phase.ADVERTISE
    got: Counter[str] = field(default_factory=Counter)
    gave: Counter[str] = field(default_factory=Counter)
    without: dict[str, frozenset[str]] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)
    settled: tuple[Any, dict[str, str]] | None = None
    late: list[str] = field(default_factory=list)
    saw: Saw = field(default_factory=Saw)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    closed: dict[Phase, asyncio.Event] = field(default_factory=lambda: {p: asyncio.Event() for p in PHASES})

    @property
    def id(self) -> bytes:
        return self.machine.round_id or b""

    @property
    def short(self) -> str:
        """The id as logs show it."""
        return self.id.hex()[:12]

    @property
    def bytes_in(self) -> int:
        return self.got.total()

    @property
    def bytes_out(self) -> int:
        return self.gave.total()

    @property
    def over(self) -> bool:
        return self.failure is not None or self.record is not None

    async def take(self, message: FromMember) -> None:
        """Hand a message to the machine. Not to be cancelled: vectors are added in a thread."""
        async with self.lock:
            if isinstance(message, MaskedVector):
                await asyncio.to_thread(self.machine.receive, message)
            else:
                self.machine.receive(message)
        self.wake.set()

    def dropped(self) -> dict[str, str]:
        """Members of the cohort that are not in the sum, with the phase whose message is missing."""
        lost: dict[str, str] = {}
        for phase in (Phase.MASK, Phase.SHARE):  # who missed *share* missed *mask* as well
            there = set(self.machine.received(phase))
            roster = self.machine.received(Phase.ADVERTISE)
            lost |= {name: phase.value for name in roster if name not in there}
        return lost

    def stale(self, members: Iterable[str]) -> dict[str, int]:
        """Of those members whose update starts from an older version than the cohort stands on: how much."""
        wanted = set(members)
        roster = self.machine.roster().members
        return {
            entry.member: entry.staleness for entry in roster if entry.staleness and entry.member in wanted
        }

    def facts(self) -> Facts:
        """What has happened so far."""
        roster = self.machine.received(Phase.ADVERTISE)
        return Facts(
            roster=tuple(roster),
            survivors=tuple(self.machine.received(Phase.MASK)),
            dropped=self.dropped(),
            late=tuple(self.late),
            apart=tuple(self.apart),
            stale=self.stale(roster),
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
            received=dict(self.got),
            sent=dict(self.gave),
            saw=self.saw,
            disputes=self.disputes,
        )

    def row(self, state: str, facts: Facts, seconds: float | None = None) -> RoundRow:
        return RoundRow(self.id, self.base.version, self.opened, state, seconds, facts)
