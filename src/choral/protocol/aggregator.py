"""Whose turn it is, on the aggregator's side: `receive(message)`, `close()` (§4).

The machine never looks at a clock: the caller closes a phase, when `awaited` is empty or its deadline
is over. A wrong message costs its sender a refusal and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from choral.errors import OutOfPhase, PeerError, RoundAborted
from choral.primitives.agreement import usable
from choral.primitives.keystream import add_keystreams
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
    Masked,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Signed,
    Survivors,
)
from choral.protocol.parameters import Parameters
from choral.protocol.phases import Cohort
from choral.protocol.transcript import dealt_digest, round_id, signed_by, survivors_digest, vector_digest
from choral.protocol.unmask import mask_streams


class Phase(Enum):
    """What the aggregator is collecting."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONSISTENCY = "consistency"
    UNMASK = "unmask"
    DONE = "done"
    ABORTED = "aborted"


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
    """

    def __init__(
        self, pinned: Mapping[str, bytes], parameters: Parameters, ctx: bytes, *, threads: int = 1
    ) -> None:
        self.pinned = pinned
        self.parameters = parameters
        self.ctx = ctx
        self.phase = Phase.ADVERTISE
        self.total: Total | None = None
        self._threads = threads
        self._received: dict[Phase, dict[str, Any]] = {phase: {} for phase in _COLLECTS}
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
        before = _BEFORE[phase]
        return self.received(before) if before else sorted(self.pinned, key=self.pinned.__getitem__)

    @property
    def awaited(self) -> list[str]:
        """Whose messages the open phase still lacks; not those who complained and left."""
        if self.phase not in _COLLECTS:
            return []
        done = self._received[self.phase].keys() | self.complaints.keys()
        return [name for name in self.expected(self.phase) if name not in done]

    @property
    def needed(self) -> int:
        """Fewest messages with which the open phase can be closed; 0 once the round is over."""
        if self.phase not in _COLLECTS:
            return 0
        if self.phase is Phase.ADVERTISE:
            return self.parameters.minimum
        # with fewer dealers than survivors are needed, members would spend their updates for nothing (§5)
        if self.phase in (Phase.SHARE, Phase.MASK):
            return self.parameters.quorum(len(self._cohort.roster))
        return self.threshold

    # ----- messages ---------------------------------------------------------------------------

    def receive(self, message: FromMember) -> None:
        """Take a member's message. A complaint takes its sender out of those who are awaited.

        The very same message again is no error and changes nothing.

        Raises:
            PeerError: not enrolled, not signed, not well-formed for this round.
            OutOfPhase: too early, too late, or different from what the member sent before.
        """
        head = message.head if isinstance(message, MaskedVector) else message
        sender = head.member
        if sender not in self.pinned:
            raise PeerError(f"{sender} is not enrolled in this federation", culprits=[sender])
        if isinstance(head, Complaint):
            self._check_signature(head)
            self._in_round(head, Phase.SHARE)
            self.complaints.setdefault(sender, head)
            return
        phase = _PHASE_OF[type(message)]
        known = self._received[phase].get(sender)
        if known == head:
            return
        if known is not None:
            raise OutOfPhase(
                f"{sender} sent a different {type(message).__name__} before",
                culprits=[sender],
                hint="is another process running with this member's key?",
            )
        # a survivor that signs late still gets the signatures of the others
        late_signer = phase is Phase.CONSISTENCY and self.phase is Phase.UNMASK
        if self.phase is not phase and not late_signer:
            raise OutOfPhase(
                f"the round is in phase {self.phase.value}, {sender} sent its message for {phase.value}",
                culprits=[sender],
                hint="too late for this round: train from the newest model and join the next one",
            )
        self._check_signature(head)
        _CHECKS[type(message)](self, message)
        if isinstance(message, MaskedVector):
            self._main += message.main
            self._auxiliary += message.auxiliary
        self._received[phase][sender] = head

    def withdraw(self, member: str) -> None:
        """Forget an advertisement whose sender is gone, while the cohort is still open."""
        if self.phase is Phase.ADVERTISE:
            self._received[Phase.ADVERTISE].pop(member, None)

    def _check_signature(self, message: Signed) -> None:
        if not signed_by(message, self.pinned[message.member]):
            raise PeerError(
                f"the message is not signed by the pinned key of {message.member}", culprits=[message.member]
            )

    def _check_advertise(self, message: Advertise) -> None:
        if message.ctx != self.ctx:
            raise PeerError(
                f"{message.member} starts from another model or task than this cohort",
                culprits=[message.member],
            )
        if message.staleness > self.parameters.staleness:
            raise PeerError(
                f"{message.member} starts from a model that is {message.staleness} versions old, the task"
                f" allows {self.parameters.staleness}",
                culprits=[message.member],
            )
        if len(self._received[Phase.ADVERTISE]) >= self.parameters.plan.n_max:
            raise OutOfPhase(f"the cohort is full with {self.parameters.plan.n_max} members")
        # what honest members would have to refuse must not reach a roster and cost them the round
        keys = [message.seal_key, message.mask_key]
        entries = self._received[Phase.ADVERTISE].values()
        taken = {key for entry in entries for key in (entry.seal_key, entry.mask_key)}
        if keys[0] == keys[1] or taken & set(keys):
            raise PeerError(f"{message.member} advertised a key that is taken", culprits=[message.member])
        if not all(map(usable, keys)):
            raise PeerError(f"{message.member} advertised a weak key", culprits=[message.member])

    def _check_shares(self, message: Shares) -> None:
        self._in_round(message, Phase.SHARE)
        wrong = len(message.seals) != len(self._cohort.roster)
        if wrong or message.seals[self._cohort.index[message.member] - 1] != b"":
            raise PeerError(
                f"{message.member} sent {len(message.seals)} seals, expected one for each of"
                f" {len(self._cohort.roster)} members and its own place empty",
                culprits=[message.member],
            )

    def _check_masked(self, message: MaskedVector) -> None:
        self._in_round(message.head, Phase.MASK, self._r2)
        found = (len(message.main), len(message.auxiliary))
        if found != (self.parameters.dimension, self.parameters.auxiliary):
            raise PeerError(
                f"{message.head.member} sent {found[0]} and {found[1]} words, expected"
                f" {self.parameters.dimension} and {self.parameters.auxiliary}",
                culprits=[message.head.member],
            )
        if vector_digest(message) != message.head.digest:
            raise PeerError(
                f"the vector of {message.head.member} is not the one that it signed",
                culprits=[message.head.member],
            )

    def _check_consistency(self, message: Consistency) -> None:
        self._in_round(message, Phase.CONSISTENCY, self._r2)
        if message.survivors != survivors_digest(self.received(Phase.MASK)):
            raise PeerError(f"{message.member} signed another survivor set", culprits=[message.member])

    def _check_reveal(self, message: Reveal) -> None:
        self._in_round(message, Phase.UNMASK)
        counts = (len(message.self_shares), len(message.key_shares))
        u2, u3 = len(self.received(Phase.SHARE)), len(self.received(Phase.MASK))
        if counts != (u3, u2 - u3):
            raise PeerError(
                f"{message.member} revealed {counts[0]} and {counts[1]} shares, expected {u3} and {u2 - u3}",
                culprits=[message.member],
            )

    def _in_round(
        self,
        message: Shares | Masked | Consistency | Reveal | Complaint,
        phase: Phase,
        r2: bytes | None = None,
    ) -> None:
        sender = message.member
        if message.round_id != self.round_id:
            raise PeerError(
                f"{sender} sent a message of another round",
                culprits=[sender],
                hint="or it computes another threshold: compare `tolerated` in the federation files",
            )
        if sender not in self.expected(phase):
            raise OutOfPhase(f"{sender} is not in this phase: it missed an earlier one", culprits=[sender])
        if r2 is not None and getattr(message, "r2", None) != r2:
            raise PeerError(f"{sender} has another list of who dealt shares", culprits=[sender])

    # ----- phases -----------------------------------------------------------------------------

    def close(self) -> None:
        """End the open phase with what has come in.

        Closing UNMASK computes the sum into `total`: seconds of work for large cohorts.

        Raises:
            RoundAborted: fewer messages than the phase needs, or secrets that cannot be recovered.
        """
        if self.phase not in _COLLECTS:
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
        self.phase = _AFTER[self.phase]

    def abort(self) -> None:
        """End the round without a sum. Once it is over, changes nothing."""
        if self.phase in _COLLECTS:
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


_COLLECTS = (Phase.ADVERTISE, Phase.SHARE, Phase.MASK, Phase.CONSISTENCY, Phase.UNMASK)
_AFTER = dict(zip(_COLLECTS, (*_COLLECTS[1:], Phase.DONE), strict=True))
# whose messages a phase expects: a member that missed the consistency phase may still not unmask
_BEFORE = {
    Phase.ADVERTISE: None,
    Phase.SHARE: Phase.ADVERTISE,
    Phase.MASK: Phase.SHARE,
    Phase.CONSISTENCY: Phase.MASK,
    Phase.UNMASK: Phase.CONSISTENCY,
}
_PHASE_OF: dict[type, Phase] = {
    Advertise: Phase.ADVERTISE,
    Shares: Phase.SHARE,
    MaskedVector: Phase.MASK,
    Consistency: Phase.CONSISTENCY,
    Reveal: Phase.UNMASK,
}
_CHECKS: dict[type, Any] = {
    Advertise: AggregatorRound._check_advertise,
    Shares: AggregatorRound._check_shares,
    MaskedVector: AggregatorRound._check_masked,
    Consistency: AggregatorRound._check_consistency,
    Reveal: AggregatorRound._check_reveal,
}
