"""One cohort in memory: the protocol's own machines, with members that vanish where it is wanted (§4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from choral.errors import RoundAborted
from choral.protocol import wire
from choral.protocol.aggregator import AggregatorRound, Phase, Total
from choral.protocol.member import MemberRound
from choral.protocol.messages import FromAggregator, MaskedVector
from choral.protocol.parameters import Parameters
from choral.protocol.rounds import PHASES

Drops = Mapping[str, Phase]
"""By name: before sending its message of which phase a member vanishes for good."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of message bodies in one phase: all members' `up`, all answers they needed for it `down`."""

    up: int
    down: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a round ended: with a sum or with a reason, never with both.

    Attributes:
        total: the sum over the survivors, or None.
        aborted: why there is none, and who was missing.
        round_id: 32 bytes; None when it aborted before there was a roster.
        roster: U1, the members that advertised, in roster order.
        dropped: who vanished in which phase, of the phases that the round got to.
        traffic: by phase; empty when the messages were not encoded.
    """

    total: Total | None
    aborted: RoundAborted | None
    round_id: bytes | None
    roster: tuple[str, ...]
    dropped: Drops
    traffic: Mapping[Phase, Traffic]


def draw_drops(names: Sequence[str], probability: float, rng: np.random.Generator) -> dict[str, Phase]:
    """Each member vanishes with `probability` (0 to 1), in one of the five phases at random."""
    gone = rng.random(len(names)) < probability
    when = rng.integers(len(PHASES), size=len(names))
    return {name: PHASES[at] for name, out, at in zip(names, gone, when, strict=True) if out}


def run_round(
    cohort: Sequence[str],
    member: Callable[[str], MemberRound],
    aggregator: AggregatorRound,
    *,
    drops: Drops,
    encoded: bool = True,
) -> Outcome:
    """Drive one round from the first advertisement to its sum, or to where it aborts.

    Args:
        cohort: who is invited.
        member: makes the machine of one of them; called once for each that advertises, so that one
            that is gone by then costs nothing. Memory is O(len(cohort) * d).
        aggregator: fresh.
        drops: who vanishes when.
        encoded: send every message through its encoding and count the bytes.

    Raises:
        PeerError, WireError: a member and the aggregator disagree, which honest ones never do.
    """
    machines: dict[str, MemberRound] = {}
    traffic: dict[Phase, Traffic] = {}
    dropped: dict[str, Phase] = {}
    live = list(cohort)
    aborted = None
    try:
        for phase in PHASES:
            dropped.update((name, phase) for name in live if drops.get(name) is phase)
            live = [name for name in live if name not in dropped]
            wires = _Wires(aggregator.parameters, encoded)
            for name, question in _questions(aggregator, phase, live):
                if question is None:
                    machine = machines[name] = member(name)
                    answer: Any = machine.advertise
                else:
                    answer = machines[name].receive(wires.down(question))
                aggregator.receive(wires.up(answer))
            if encoded:
                traffic[phase] = Traffic(wires.bytes_up, wires.bytes_down)
            aggregator.close()
    except RoundAborted as error:
        aborted = error
    roster = tuple(aggregator.received(Phase.ADVERTISE))
    return Outcome(aggregator.total, aborted, aggregator.round_id, roster, dropped, traffic)


def _questions(
    aggregator: AggregatorRound, phase: Phase, names: Sequence[str]
) -> Iterator[tuple[str, FromAggregator | None]]:
    """What each of `names` answers in `phase`: one and the same object where all are asked the same."""
    if phase is Phase.MASK:
        yield from ((name, aggregator.inbox(name)) for name in names)
        return
    to_all: dict[Phase, Callable[[], FromAggregator | None]] = {
        Phase.ADVERTISE: lambda: None,
        Phase.SHARE: aggregator.roster,
        Phase.CONSISTENCY: aggregator.survivors,
        Phase.UNMASK: aggregator.endorsements,
    }
    question = to_all[phase]()
    yield from ((name, question) for name in names)


class _Wires:
    """One phase's messages as their receivers decode them, and how many bytes went each way."""

    def __init__(self, parameters: Parameters, encoded: bool) -> None:
        self._parameters = parameters
        self._encoded = encoded
        self.bytes_up = self.bytes_down = 0
        self._sent: Any = None
        self._arrived: Any = None
        self._size = 0

    def down(self, message: FromAggregator) -> Any:
        if not self._encoded:
            return message
        if message is not self._sent:  # what goes to all is encoded once, and one decoding stands for all
            data = wire.encode(message)
            self._sent, self._arrived, self._size = message, wire.decode(type(message), data), len(data)
        self.bytes_down += self._size
        return self._arrived

    def up(self, message: Any) -> Any:
        if not self._encoded:
            return message
        if isinstance(message, MaskedVector):
            data = b"".join(wire.encode_vector(message))
            self.bytes_up += len(data)
            return wire.decode_vector(data, self._parameters.dimension, self._parameters.auxiliary)
        data = wire.encode(message)
        self.bytes_up += len(data)
        return wire.decode(type(message), data)
