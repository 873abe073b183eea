"""The one table of a round (§4.6): which phase follows which, who sends what in it, and what is answered.

Both machines go by it, and so does whatever shows a round: §4.6 is drawn from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from choral.protocol.messages import (
    Advertise,
    Consistency,
    Endorsements,
    FromMember,
    Inbox,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)


class Phase(Enum):
    """What the aggregator is collecting. The values are the labels of metrics, rows and log lines."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONSISTENCY = "consistency"
    UNMASK = "unmask"
    DONE = "done"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Step:
    """One phase.

    Attributes:
        message: what members send in it.
        of: whose messages: those who sent theirs in that phase; None is every enrolled member.
        cohort: what those are called (§1).
        fewest: how many messages close it: n_min, the quorum or the threshold (§4).
        answer: what the aggregator tells a member when it is closed; None is the new model record.
        late: whether a message is still taken while the next phase is open.
        section: of the specification.
        checks: the number of the aggregator's first check there; the member's checks come before it.
    """

    phase: Phase
    message: type[FromMember]
    of: Phase | None
    cohort: str
    fewest: Literal["n_min", "quorum", "t"]
    answer: type | None
    section: str
    checks: int
    late: bool = False

    def rule(self, check: int) -> str:
        """The name of the aggregator's check, counted from 0."""
        return f"{self.section}.{self.checks + check}"


ROUND = (
    Step(Phase.ADVERTISE, Advertise, None, "every enrolled member", "n_min", Roster, "4.1", 1),
    Step(Phase.SHARE, Shares, Phase.ADVERTISE, "`U1`", "quorum", Inbox, "4.2", 6),
    # with fewer dealers than survivors are needed, members would spend their updates for nothing (§5)
    Step(Phase.MASK, MaskedVector, Phase.SHARE, "`U2`", "quorum", Survivors, "4.3", 8),
    # a survivor that signs late still gets the signatures of the others
    Step(Phase.CONSISTENCY, Consistency, Phase.MASK, "`U3`", "t", Endorsements, "4.4", 5, late=True),
    # a member that missed the consistency phase may still not unmask
    Step(
        Phase.UNMASK, Reveal, Phase.CONSISTENCY, "those who signed in consistency", "t", None, "4.5", 5
    ),
)  # fmt: skip
PHASES = tuple(step.phase for step in ROUND)
LABELS = tuple(phase.value for phase in PHASES)
STEP_IN = {step.phase: step for step in ROUND}
STEP_OF: dict[type, Step] = {step.message: step for step in ROUND}


def after(phase: Phase) -> Phase:
    """What follows when a phase that collects is closed."""
    return (*PHASES[1:], Phase.DONE)[PHASES.index(phase)]
