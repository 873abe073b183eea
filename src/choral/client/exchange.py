"""A member's round, whatever carries it: five questions, each the answer to what came back (§4)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from choral.client.events import Phase, Tell, silent
from choral.errors import ChoralError, PeerError
from choral.federation.records import Record, Records
from choral.protocol import wire
from choral.protocol.member import MemberRound
from choral.protocol.messages import (
    Advertise,
    Complaint,
    Consistency,
    Endorsements,
    FromAggregator,
    Inbox,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)

T = TypeVar("T", bound=FromAggregator)
_REMEMBERED = 64  # answers that a repeat is recognised by


class Exchange(Protocol):
    """How a member's messages reach the aggregator, and its answers the member.

    Each question is answered once the aggregator has closed the phase. The very same question again is
    answered as before, so an implementation may ask as often as it has to.

    Raises, each of them:
        RoundAborted, UnknownRound, OutOfPhase: the round is over for this member.
        Superseded, ShuttingDown: there is none to join.
        PeerError, WireError: refused by the aggregator, or an answer that is no message.
        ChoralError: why nothing of it can be done.
    """

    async def join(self, advertise: Advertise, without: Sequence[str]) -> Roster:
        """Into a cohort, if possible one without these members (§4.6)."""

    async def share(self, shares: Shares) -> Inbox: ...

    async def mask(self, vector: MaskedVector) -> Survivors: ...

    async def endorse(self, consistency: Consistency) -> Endorsements: ...

    async def reveal(self, reveal: Reveal) -> Record: ...

    async def complain(self, complaint: Complaint) -> None:
        """Say why this member leaves a round."""


class Aggregator(Exchange, Protocol):
    """All that a member asks its aggregator for (§7.3)."""

    async def task(self) -> bytes:
        """The task's encoding."""

    async def records(self, after: int, resting: str | None = None) -> Records:
        """What follows version `after`; waits for one. `resting` says why nothing is sent (§5.1)."""

    async def model(self, digest: bytes) -> bytes:
        """The model file that a record names."""

    async def outcome(self, round_id: bytes) -> Any:
        """What became of a round, as the aggregator tells it: JSON of any shape."""

    async def status(self) -> Any:
        """Who is in, who is awaited: JSON of any shape."""


class Unwelcome(ChoralError):
    """A roster with somebody on it that this member asked to be without: not joined, and nobody's fault."""


class Repeats:
    """Answers of this run, by digest: one that comes a second time is no answer to a new question."""

    def __init__(self) -> None:
        self._seen: deque[bytes] = deque(maxlen=_REMEMBERED)

    def of(self, message: FromAggregator) -> bool:
        """Whether this very message came before; it is remembered."""
        digest = hashlib.sha256(wire.encode(message)).digest()
        known = digest in self._seen
        self._seen.append(digest)
        return known


async def play(
    exchange: Exchange,
    machine: MemberRound,
    *,
    spend: Callable[[bytes], None],
    check: Callable[[Record], None],
    waiting: AbstractAsyncContextManager[None],
    without: Sequence[str] = (),
    repeats: Repeats | None = None,
    tell: Tell = silent,
) -> Record:
    """One round from the advertisement to the record that it led to.

    Args:
        spend: called with the round's id, in a thread, before a byte of the masked vector leaves (§5.1).
        check: raises `PeerError` for a record that cannot be; it is then fetched once more.
        waiting: entered while the cohort is open.
        without: members that this one does not stand in a cohort with.

    Raises:
        Unwelcome: the cohort has one of them.
        ChoralError: refused by this member's machine or by the aggregator.
    """
    seen = repeats or Repeats()

    def take(message: FromAggregator) -> Any:
        repeated = seen.of(message)
        try:
            return machine.receive(message)
        except PeerError as error:
            if repeated:  # nobody but who repeats it is to blame
                error.reason += "; it is a repeat: this very answer came before, to another question"
                error.args, error.culprits = (error.reason,), ()
            raise

    def told(message: T) -> T:
        tell(Phase(type(message).__name__.lower()))
        return message

    async with waiting:
        roster = told(await exchange.join(machine.advertise, without))
    refuse(roster, without)
    inbox = told(await exchange.share(take(roster)))
    masked = await asyncio.to_thread(take, inbox)  # masks: heavy
    assert machine.round_id is not None  # noqa: S101
    await asyncio.to_thread(spend, machine.round_id)
    survivors = told(await exchange.mask(masked))
    endorsements = told(await exchange.endorse(take(survivors)))
    reveal = take(endorsements)
    try:
        check(record := await exchange.reveal(reveal))
    except PeerError:
        check(record := await exchange.reveal(reveal))
    return record


def refuse(roster: Roster, without: Collection[str]) -> None:
    """Raises `Unwelcome` if somebody on the roster is one of `without`."""
    if found := [entry.member for entry in roster.members if entry.member in without]:
        raise Unwelcome(
            f"a cohort with {', '.join(found)} was offered, this member asked for one without",
            hint="its messages were refused before; an aggregator of an older version does not heed the wish",
        )
