"""Whose turn it is, on the aggregator's side: `receive(message)`, `close()` (§4).

The machine never looks at a clock: the caller closes a phase, when `awaited` is empty or its deadline
is over. A wrong message costs its sender a refusal and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from choral.errors import OutOfPhase, PeerError, RoundAborted
from choral.primitives.keystream import add_keystreams
from choral.protocol.admission import (
    check_advertise,
    check_complaint,
    check_consistency,
    check_reveal,
    check_shares,
    check_vector,
)
from choral.protocol.disputes import Dispute
from choral.protocol.messages import (
    Advertise,
    Complaint,
    Consistency,
    Dealt,
    Endorsement,
    Endorsements,
    FromMember,
    Inbox,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Signed,
    Survivors,
)
from choral.protocol.parameters import Parameters
from choral.protocol.phases import Cohort
from choral.protocol.rounds import PHASES, STEP_IN, STEP_OF, Phase, after
from choral.protocol.sealing import AES_GCM, Sealing
from choral.protocol.transcript import dealt_digest, round_id, signed_by
from choral.protocol.unmask import mask_streams

__all__ = ["AggregatorRound", "Phase", "Total"]


@dataclass(frozen=True)
class Total:
    """The sum over the survivors: main uint32[d] mod 2^32, auxiliary uint64[a] mod 2^64.

    Attributes:
        culprits: members that wrong shares prove to have lied (§4.5).
        disputes: dealer and holder of a wrong share, one of whom lied, where neither is proven.
    """

    main: NDArray[np.uint32]
    auxiliary: NDArray[np.uint64]
    survivors: tuple[str, ...]
    culprits: tuple[str, ...]
    disputes: tuple[Dispute, ...] = ()


class AggregatorRound:
    """One round, from the first advertisement to the sum.

    Args:
        pinned: identity keys of the enrolled members by name.
        parameters: the aggregator's own; members decide by theirs.
        ctx: what this cohort's updates start from.
        sealing: what members seal shares with, which says how long a seal is.
    """

    def __init__(
        self,
        pinned: Mapping[str, bytes],
        parameters: Parameters,
        ctx: bytes,
        *,
        sealing: Sealing = AES_GCM,
        threads: int = 1,
    ) -> None:
        self.pinned = pinned
        self.parameters = parameters
        self.ctx = ctx
        self.phase = Phase.ADVERTISE
        self.total: Total | None = None
        self._seal_bytes = sealing.seal_bytes
        self._threads = threads
        self._received: dict[Phase, dict[str, Any]] = {phase: {} for phase in PHASES}
        self.complaints: dict[str, Complaint] = {}
        self._cohort: Cohort
        self._endorsements: Endorsements
        self._main = np.zeros(parameters.dimension, np.uint32)
        self._auxiliary = np.zeros(parameters.auxiliary, np.uint64)

    # ----- what is known ----------------------------------------------------------------------

    @property
    def round_id(self) -> bytes | None:
        """Known once the cohort is closed."""
        return self._cohort.round_id if hasattr(self, "_cohort") else None

    @property
    def threshold(self) -> int:
        return self._cohort.threshold

    def received(self, phase: Phase) -> list[str]:
        """Who sent its message of `phase`, in roster order (§1: U1 to U3)."""
        return sorted(self._received[phase], key=self.pinned.__getitem__)

    def expected(self, phase: Phase) -> list[str]:
        """Whose messages a phase may get: of *advertise* every enrolled member's."""
        before = STEP_IN[phase].of
        return self.received(before) if before else sorted(self.pinned, key=self.pinned.__getitem__)

    @property
    def awaited(self) -> list[str]:
        """Whose messages the open phase still lacks; not those who complained and left."""
        if self.phase not in PHASES:
            return []
        done = self._received[self.phase].keys() | self.complaints.keys()
        return [name for name in self.expected(self.phase) if name not in done]

    @property
    def needed(self) -> int:
        """Fewest messages with which the open phase can be closed; 0 once the round is over."""
        if self.phase not in PHASES:
            return 0
        match STEP_IN[self.phase].fewest:
            case "n_min":
                return self.parameters.minimum
            case "quorum":
                return self.parameters.quorum(len(self._cohort.roster))
            case "t":
                return self.threshold

    # ----- messages ---------------------------------------------------------------------------

    def receive(self, message: FromMember) -> None:
        """Take a member's message. A complaint takes its sender out of those who are awaited.

        The very same message again is no error and changes nothing.

        Raises:
            PeerError: not enrolled, not signed, not well-formed for this round.
            OutOfPhase: too early, too late, or different from what the member sent before.
        """
        if isinstance(message, Complaint):
            self._take_complaint(message)
            return
        step = STEP_OF[type(message)]
        head = message.head if isinstance(message, MaskedVector) else message
        sender = head.member
        self._check_enrolled(sender, step.rule(0))
        known = self._received[step.phase].get(sender)
        if known == head:
            return
        if known is not None:
            raise OutOfPhase(
                f"{sender} sent a different {type(message).__name__} before",
                culprits=[sender],
                hint="is another process running with this member's key?",
                rule=step.rule(1),
            )
        if self.phase is not step.phase and not (step.late and self.phase is after(step.phase)):
            raise OutOfPhase(
                f"the round is in phase {self.phase.value}, {sender} sent its message for {step.phase.value}",
                culprits=[sender],
                hint="too late for this round: train from the newest model and join the next one",
                rule=step.rule(2),
            )
        self._check_signature(head, step.rule(3))
        if step.of is not None:
            self._check_round(head, step.of, step.rule(4), step.rule(5))
        self._check_content(message)
        if isinstance(message, MaskedVector):
            self._main += message.main
            self._auxiliary += message.auxiliary
        self._received[step.phase][sender] = head

    def _take_complaint(self, message: Complaint) -> None:
        sender = message.member
        self._check_enrolled(sender, "4.6.1")
        self._check_signature(message, "4.6.2")
        self._check_round(message, Phase.ADVERTISE, "4.6.3", "4.6.4")
        check_complaint(message, self._cohort)
        self.complaints.setdefault(sender, message)

    def withdraw(self, member: str) -> None:
        """Forget an advertisement whose sender is gone, while the cohort is still open."""
        if self.phase is Phase.ADVERTISE:
            self._received[Phase.ADVERTISE].pop(member, None)

    def _check_enrolled(self, sender: str, rule: str) -> None:
        if sender not in self.pinned:
            raise PeerError(f"{sender} is not enrolled in this federation", culprits=[sender], rule=rule)

    def _check_signature(self, message: Signed, rule: str) -> None:
        sender = message.member
        if not signed_by(message, self.pinned[sender]):
            raise PeerError(
                f"the message is not signed by the pinned key of {sender}", culprits=[sender], rule=rule
            )

    def _check_content(self, message: FromMember) -> None:
        match message:
            case Advertise():
                entries = self._received[Phase.ADVERTISE].values()
                check_advertise(message, self.ctx, self.parameters, entries)
            case Shares():
                check_shares(message, self._cohort, self._seal_bytes)
            case MaskedVector():
                check_vector(message, self._r2, self.parameters)
            case Consistency():
                check_consistency(message, self._r2, self.received(Phase.MASK))
            case Reveal():
                u2, u3 = len(self._received[Phase.SHARE]), len(self._received[Phase.MASK])
                check_reveal(message, u3, u2 - u3)

    def _check_round(self, head: Any, of: Phase, same_round: str, took_part: str) -> None:
        sender = head.member
        if head.round_id != self.round_id:
            raise PeerError(
                f"{sender} sent a message of another round",
                culprits=[sender],
                hint="or it computes another threshold: compare `tolerated` in the federation files",
                rule=same_round,
            )
        if sender not in self._received[of]:
            raise OutOfPhase(
                f"{sender} is not in this phase: it missed an earlier one", culprits=[sender], rule=took_part
            )

    # ----- phases -----------------------------------------------------------------------------

    def close(self) -> None:
        """End the open phase with what has come in.

        Closing UNMASK computes the sum into `total`: seconds of work for large cohorts.

        Raises:
            RoundAborted: fewer messages than the phase needs, or secrets that cannot be recovered.
        """
        if self.phase not in PHASES:
            raise OutOfPhase(f"the round is over: {self.phase.value}")
        got = len(self._received[self.phase])
        if got < self.needed:
            missing = self.awaited
            late = f"phase {self.phase.value} got {got} of the {self.needed} messages that it needs"
            accused = {name for entry in self.complaints.values() for name in entry.culprits}
            self.abort()
            raise RoundAborted(
                late,
                missing=missing,
                culprits=sorted(accused),
                hint="the members go on to a new round by themselves",
                rule="4.6.9",
            )
        if self.phase is Phase.ADVERTISE:
            self._close_cohort()
        if self.phase is Phase.SHARE:
            self._r2 = dealt_digest(self._dealt())
        if self.phase is Phase.CONSISTENCY:
            self._endorsements = self._signed()
        if self.phase is Phase.UNMASK:
            try:
                self._unmask()
            except RoundAborted:
                self.abort()
                raise
        self.phase = after(self.phase)

    def abort(self) -> None:
        """End the round without a sum. Once it is over, changes nothing."""
        if self.phase in PHASES:
            self.phase = Phase.ABORTED
            del self._main, self._auxiliary

    def _close_cohort(self) -> None:
        roster = self.roster()
        threshold = self.parameters.check_cohort(len(roster.members))
        self._cohort = Cohort(round_id(self.ctx, roster, threshold), roster.members, self.pinned, threshold)

    def _dealt(self) -> tuple[Dealt, ...]:
        sent = self._received[Phase.SHARE]
        return tuple(
            Dealt(name, sent[name].commitment, sent[name].signature) for name in self.received(Phase.SHARE)
        )

    def _unmask(self) -> None:
        u3 = tuple(self.received(Phase.MASK))
        commitments = {entry.member: entry.commitment for entry in self._dealt()}
        streams, found = mask_streams(
            self._cohort,
            r2=self._r2,
            u2=self.received(Phase.SHARE),
            u3=u3,
            commitments=commitments,
            reveals=self._received[Phase.UNMASK],
            liars=max(self.parameters.colluders(len(self._cohort.roster)), 1),
        )
        add_keystreams(self._main, self._auxiliary, streams, threads=self._threads)
        self.total = Total(self._main, self._auxiliary, u3, found.culprits, found.disputes)
        del self._main, self._auxiliary  # whoever takes the sum decides how long it is held

    # ----- answers ----------------------------------------------------------------------------

    def roster(self) -> Roster:
        """U1, the answer to *advertise*."""
        sent = self._received[Phase.ADVERTISE]
        return Roster(tuple(sent[name] for name in self.received(Phase.ADVERTISE)))

    def inbox(self, member: str) -> Inbox:
        """U2 and the seals to `member`, the answer to *share*."""
        at = self._cohort.index[member] - 1
        sent = self._received[Phase.SHARE]
        seals = tuple(sent[name].seals[at] for name in self.received(Phase.SHARE))
        return Inbox(self._cohort.round_id, self._dealt(), seals)

    def survivors(self) -> Survivors:
        """U3, the answer to *mask*."""
        return Survivors(self._cohort.round_id, tuple(self.received(Phase.MASK)))

    def endorsements(self) -> Endorsements:
        """Every signature that was in when the phase closed, the answer to *consistency*."""
        return self._endorsements

    def _signed(self) -> Endorsements:
        sent = self._received[Phase.CONSISTENCY]
        entries = tuple(Endorsement(name, sent[name].signature) for name in self.received(Phase.CONSISTENCY))
        return Endorsements(self._cohort.round_id, entries)
