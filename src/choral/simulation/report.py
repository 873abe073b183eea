"""What a simulation says: of one round, and of all of them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from choral.learning.trainer import Evaluation
from choral.protocol.aggregator import Phase, Total
from choral.simulation.cohort import Outcome


@dataclass(frozen=True, eq=False)
class Report:
    """One round and the model after it.

    Attributes:
        round: counted from 1.
        version: of the newest model; one more than before unless the round aborted.
        round_id: what the protocol calls this round, 32 bytes; None without a roster.
        invited: how many members were drawn.
        roster: U1, those of them who advertised.
        survivors: U3, whose updates are in the model, in roster order; empty when aborted.
        dropped: who vanished in which phase.
        aborted: why there was no sum, or None.
        missing: who was waited for in vain when it aborted.
        measured: the newest model on the test set.
        seconds: for training, the round and the next model; without measuring it.
        bytes_up: of all members' message bodies, 0 when messages were not encoded.
        bytes_down: of all the aggregator's.
        total: the sum that the aggregator got; its arrays are as large as the model.
    """

    round: int
    version: int
    round_id: bytes | None
    invited: int
    roster: tuple[str, ...]
    survivors: tuple[str, ...]
    dropped: Mapping[str, Phase]
    aborted: str | None
    missing: tuple[str, ...]
    measured: Evaluation
    seconds: float
    bytes_up: int
    bytes_down: int
    total: Total | None

    @classmethod
    def of(
        cls,
        outcome: Outcome,
        *,
        number: int,
        version: int,
        invited: int,
        measured: Evaluation,
        seconds: float,
    ) -> Report:
        """The report of a round that ended with `outcome`."""
        return cls(
            round=number,
            version=version,
            round_id=outcome.round_id,
            invited=invited,
            roster=outcome.roster,
            survivors=outcome.total.survivors if outcome.total else (),
            dropped=outcome.dropped,
            aborted=outcome.aborted.reason if outcome.aborted else None,
            missing=outcome.aborted.missing if outcome.aborted else (),
            measured=measured,
            seconds=seconds,
            bytes_up=sum(traffic.up for traffic in outcome.traffic.values()),
            bytes_down=sum(traffic.down for traffic in outcome.traffic.values()),
            total=outcome.total,
        )

    @property
    def dropped_by_phase(self) -> dict[str, int]:
        """How many vanished in which phase, in the order of the phases; phases without any are left out."""
        counts = Counter(self.dropped.values())
        return {phase.value: counts[phase] for phase in Phase if counts[phase]}


class Spread(NamedTuple):
    """Of a number that every round has."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Summary:
    """Of a stretch of rounds.

    Attributes:
        rounds: how many there were.
        aborted: how many of them for which reason.
        dropped: how many members vanished in which phase, over all rounds.
        accuracy: of the newest model, 0 to 1.
        seconds: a round.
        bytes_up: a member and round: mean over the rosters of the rounds that gave a sum; None without any.
        bytes_down: likewise.
    """

    rounds: int
    aborted: Mapping[str, int]
    dropped: Mapping[str, int]
    accuracy: float
    seconds: Spread
    bytes_up: float | None
    bytes_down: float | None

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Summary:
        """The summary of at least one report."""
        dropped: Counter[str] = Counter()
        for report in reports:
            dropped.update(report.dropped_by_phase)
        whole = [report for report in reports if report.aborted is None]
        members = sum(len(report.roster) for report in whole)
        return cls(
            rounds=len(reports),
            aborted=Counter(report.aborted for report in reports if report.aborted is not None),
            dropped={phase.value: dropped[phase.value] for phase in Phase if dropped[phase.value]},
            accuracy=reports[-1].measured.accuracy,
            seconds=Spread.of([report.seconds for report in reports]),
            bytes_up=sum(report.bytes_up for report in whole) / members if members else None,
            bytes_down=sum(report.bytes_down for report in whole) / members if members else None,
        )
