"""Whose turn it is, on the member's side: `receive(message) -> message` (§4)."""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from choral.errors import ChoralError, OutOfPhase, ParameterError
from choral.primitives.entropy import RandomBytes
from choral.protocol import phases
from choral.protocol.messages import (
    Complaint,
    Consistency,
    Endorsements,
    FromAggregator,
    FromMember,
    Inbox,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)
from choral.protocol.rounds import ROUND
from choral.protocol.transcript import sign


class State(Enum):
    """What a member is waiting for: the answers of the round's phases, one after the other."""

    ROSTER = "roster"
    INBOX = "inbox"
    SURVIVORS = "survivors"
    ENDORSEMENTS = "endorsements"
    DONE = "done"
    ABORTED = "aborted"


_WAITING_FOR = {State(step.answer.__name__.lower()): step.answer for step in ROUND if step.answer}
_NEXT = dict(zip(_WAITING_FOR, (*list(_WAITING_FOR)[1:], State.DONE), strict=True))
REASON_LENGTH = 500


class MemberRound:
    """One member in one round.

    Args:
        me: identity, pinned keys, parameters and ctx: nothing of it from the aggregator.
        vector: uint32[d], the encoded update; a copy is masked, unless it is `owned`.
        auxiliary: uint64[a].
        random: where keys and shares come from.
        owned: the caller gives the vector up: it is masked in place, and no update once `masked` says so.

    Raises:
        ParameterError: vectors of another length than the parameters say.
    """

    def __init__(
        self,
        me: phases.Member,
        vector: NDArray[np.uint32],
        auxiliary: NDArray[np.uint64],
        random: RandomBytes,
        *,
        threads: int = 1,
        owned: bool = False,
    ) -> None:
        expected = (me.parameters.dimension, me.parameters.auxiliary)
        if (len(vector), len(auxiliary)) != expected:
            raise ParameterError(
                f"vectors of {len(vector)} and {len(auxiliary)} words, the task has {expected[0]} and"
                f" {expected[1]}"
            )
        self.me = me
        self.state = State.ROSTER
        self._vector, self._auxiliary = vector if owned else vector.copy(), auxiliary.copy()
        self.masked = False  # whether masks were added to the vector
        self._random = random
        self._threads = threads
        self._answered: dict[type, tuple[FromAggregator, FromMember]] = {}
        self._failure: str | None = None
        self.advertise, self._secrets = phases.advertise(me, random)
        self._cohort: phases.Cohort
        self._shares: Shares
        self._dealing: phases.Dealing
        self._held: phases.Held
        self._survivors: Survivors

    @property
    def round_id(self) -> bytes | None:
        """Known once the roster was accepted."""
        return self._cohort.round_id if hasattr(self, "_cohort") else None

    @property
    def survivors(self) -> tuple[str, ...] | None:
        """U3, once accepted."""
        return self._survivors.members if hasattr(self, "_survivors") else None

    def receive(self, message: FromAggregator) -> FromMember:
        """The answer to the aggregator's message.

        The very same message again gets the same answer. Anything out of phase, in conflict with an
        earlier message or against a rule of §4 ends this member's round: every later call raises.

        Raises:
            OutOfPhase, PeerError, CohortTooSmall: what was wrong.
        """
        known = self._answered.get(type(message))
        if self.state is not State.ABORTED and known and known[0] == message:
            return known[1]
        try:
            answer = self._step(message, repeated=known is not None)
        except ChoralError as error:
            self.abort(error.reason)
            raise
        except BaseException as error:  # masking is in place: half done, it must not be done again
            self.abort(f"{type(error).__name__} in the middle of a step")
            raise
        self._answered[type(message)] = (message, answer)
        return answer

    def abort(self, reason: str) -> None:
        """End this round for this member and forget its secrets."""
        if self.state is not State.DONE:
            self.state = State.ABORTED
            self._failure = self._failure or reason
        self._forget()

    def complaint(self, error: ChoralError) -> Complaint | None:
        """What the others should know of a refusal (§4.6); None while the round has no name."""
        if self.round_id is None:
            return None
        reason = "".join(c if c.isprintable() else " " for c in error.reason)[:REASON_LENGTH] or "?"
        accused = tuple(name for name in self._cohort.index if name in getattr(error, "culprits", ()))
        message = Complaint(self.me.name, self.round_id, reason, accused, phases.NO_SIGNATURE)
        return sign(self.me.identity, message)

    def _step(self, message: FromAggregator, *, repeated: bool) -> FromMember:
        if self.state is State.ABORTED:
            raise OutOfPhase(f"this member left the round: {self._failure}", rule="4.6.6")
        if repeated:
            raise OutOfPhase(f"a second, different {type(message).__name__} came in one round", rule="4.6.7")
        if type(message) is not _WAITING_FOR.get(self.state):
            raise OutOfPhase(
                f"a {type(message).__name__} came while waiting for {self.state.value}", rule="4.6.8"
            )
        answer = self._answer(message)
        self.state = _NEXT[self.state]
        if self.state is State.DONE:
            self._forget()
        return answer

    def _answer(self, message: FromAggregator) -> FromMember:
        match message:
            case Roster():
                return self._on_roster(message)
            case Inbox():
                return self._on_inbox(message)
            case Survivors():
                return self._on_survivors(message)
            case Endorsements():
                return self._on_endorsements(message)

    def _on_roster(self, roster: Roster) -> Shares:
        self._cohort = phases.accept_roster(self.me, self.advertise, roster)
        self._shares, self._dealing = phases.deal(self.me, self._cohort, self._secrets, self._random)
        return self._shares

    def _on_inbox(self, inbox: Inbox) -> MaskedVector:
        self._held = phases.accept_inbox(self.me, self._cohort, self._dealing, self._shares, inbox)
        self.masked = True
        return phases.mask(
            self.me,
            self._cohort,
            self._secrets,
            self._dealing,
            self._held,
            main=self._vector,
            auxiliary=self._auxiliary,
            threads=self._threads,
        )

    def _on_survivors(self, survivors: Survivors) -> Consistency:
        answer = phases.accept_survivors(self.me, self._cohort, self._held, survivors)
        self._survivors = survivors
        return answer

    def _on_endorsements(self, endorsements: Endorsements) -> Reveal:
        phases.accept_endorsements(self._cohort, self._held, self._survivors, endorsements)
        return phases.reveal(self.me, self._cohort, self._held, self._survivors)

    def _forget(self) -> None:
        # Best effort: Python may keep copies (§2, not claimed). The answers already given stay, for retries.
        for name in ("_secrets", "_dealing", "_held", "_vector", "_auxiliary", "_random"):
            if hasattr(self, name):
                delattr(self, name)
