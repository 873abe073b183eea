"""Both ends of a round played in one process, every message through its encoding.

A `Stage` owns honest members and an honest aggregator; a test plays whoever lies by changing what goes
from one to the other. Members are called a, b, c … in roster order, so that "a" has share index 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol import phases, wire
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.member import MemberRound
from choral.protocol.messages import Complaint, Inbox, MaskedVector, Roster, Shares
from choral.protocol.parameters import Parameters
from choral.protocol.transcript import sign

CTX = bytes(range(32))
D, A = 5, 3


def enrol(n: int, seed: bytes = b"identities") -> dict[str, Identity]:
    """Identities named in ascending order of their keys."""
    source = seeded(seed)
    keys = sorted((Identity.generate(source) for _ in range(n)), key=lambda identity: identity.public)
    return dict(zip("abcdefghijklmnopqrstuvwxyz", keys, strict=False))


def through_wire(message: Any, d: int = D, a: int = A) -> Any:
    """The message as its receiver decodes it."""
    if isinstance(message, MaskedVector):
        return wire.decode_vector(b"".join(wire.encode_vector(message)), d, a)
    return wire.decode(type(message), wire.encode(message))


class Stage:
    """A cohort of `n` members `a` to …, of which `joining` take part, and their aggregator."""

    def __init__(
        self,
        n: int = 5,
        *,
        seed: bytes = b"round",
        ctx: bytes = CTX,
        d: int = D,
        a: int = A,
        minimum: int = 3,
        tolerated: int | None = None,
        zeros: bool = False,
        enrolled: int | None = None,
    ) -> None:
        self.d, self.a, self.ctx, self.seed = d, a, ctx, seed
        self.identities = enrol(enrolled or n)
        self.pinned = {name: identity.public for name, identity in self.identities.items()}
        self.parameters = Parameters(max(n, 2), d, a, min(minimum, n), tolerated)
        self.names = list(self.identities)[:n]
        rng = np.random.default_rng(list(seed))
        self.vectors = {
            name: np.zeros(d, np.uint32) if zeros else rng.integers(0, 2**32, d, dtype=np.uint32)
            for name in self.names
        }
        self.totals = {
            name: np.zeros(a, np.uint64) if zeros else rng.integers(0, 2**64, a, dtype=np.uint64)
            for name in self.names
        }
        self.members = {name: self.member(name) for name in self.names}
        self.aggregator = AggregatorRound(self.pinned, self.parameters, ctx)
        self.sent: dict[str, list[Any]] = {name: [] for name in self.names}

    def member(self, name: str, **changes: Any) -> MemberRound:
        """A fresh machine for `name`, the same every time; `changes` to what it knows."""
        known = {
            "name": name,
            "identity": self.identities[name],
            "pinned": self.pinned,
            "parameters": self.parameters,
            "ctx": self.ctx,
        } | changes
        source = seeded(self.seed + name.encode())
        return MemberRound(phases.Member(**known), self.vectors[name], self.totals[name], source)

    def send(self, message: Any) -> None:
        """A member's message to the aggregator."""
        self.aggregator.receive(through_wire(message, self.d, self.a))

    def ask(self, name: str, message: Any) -> Any:
        """The aggregator's message to a member, and what it answers."""
        answer = self.members[name].receive(through_wire(message))
        self.sent[name].append(answer)
        return answer

    # ----- phase by phase: who takes part, and what a liar makes of a message -------------------

    def advertise(self, who: Iterable[str] | None = None, change: Callable[[str, Any], Any] | None = None):
        for name in self.names if who is None else who:
            message = self.members[name].advertise
            self.send(change(name, message) if change else message)
        self.aggregator.close()
        return self.aggregator.roster()

    def share(self, who: Iterable[str] | None = None, change: Callable[[str, Any], Any] | None = None):
        self._phase(who or self.names, lambda name: self.aggregator.roster(), change)
        return {name: self.aggregator.inbox(name) for name in self.aggregator.expected(self.aggregator.phase)}

    def mask(self, who: Iterable[str], change: Callable[[str, Any], Any] | None = None):
        self._phase(who, self.aggregator.inbox, change)
        return self.aggregator.survivors()

    def agree(self, who: Iterable[str], change: Callable[[str, Any], Any] | None = None):
        self._phase(who, lambda name: self.aggregator.survivors(), change)
        return self.aggregator.endorsements()

    def reveal(self, who: Iterable[str], change: Callable[[str, Any], Any] | None = None):
        self._phase(who, lambda name: self.aggregator.endorsements(), change)
        return self.aggregator.total

    def _phase(self, who, question, change) -> None:
        for name in who:
            answer = self.ask(name, question(name))
            message = change(name, answer) if change else answer
            if message is not None:
                self.send(message)
        self.aggregator.close()

    # ----- shortcuts ----------------------------------------------------------------------------

    def to_roster(self) -> Roster:
        return self.advertise()

    def to_inboxes(self, who: Iterable[str] | None = None) -> dict[str, Inbox]:
        self.advertise()
        return self.share(who)

    def to_survivors(self, who: Iterable[str] | None = None):
        inboxes = self.to_inboxes()
        return self.mask(who or list(inboxes))

    def to_endorsements(self, who: Iterable[str] | None = None):
        survivors = self.to_survivors(who)
        return self.agree(survivors.members)

    def expected(self, names: Iterable[str]) -> tuple[list[int], list[int]]:
        """The plain sums over `names`, in Python's own integers."""
        names = list(names)
        main = [sum(int(self.vectors[name][at]) for name in names) % 2**32 for at in range(self.d)]
        totals = [sum(int(self.totals[name][at]) for name in names) % 2**64 for at in range(self.a)]
        return main, totals

    def total(self) -> tuple[list[int], list[int]]:
        total = self.aggregator.total
        return total.main.tolist(), total.auxiliary.tolist()

    def signed(self, name: str, message: Any) -> Any:
        """The message as `name` signs it."""
        return sign(self.identities[name], message)

    def complaint(self, name: str, error: Any) -> Complaint:
        """What a member tells the aggregator when it leaves."""
        return self.members[name].complaint(error)


def reseal(stage: Stage, sender: str, shares: Shares, pieces: dict[str, bytes]) -> Shares:
    """A dealer that lies: other pieces, properly sealed, to the members named."""
    machine = stage.members[sender]
    cohort, dealing = machine._cohort, machine._dealing
    seals = list(shares.seals)
    for recipient, piece in pieces.items():
        seals[cohort.index[recipient] - 1] = machine.me.sealing.seal(
            cohort.way(sender, recipient), dealing.agreed[recipient], piece
        )
    return Shares(shares.member, shares.round_id, shares.commitment, tuple(seals), shares.signature)
