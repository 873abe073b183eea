"""The error tree. Every error says what was found, what was expected and, as a hint, what to do.

`slug` is the stable name of a kind of error: the last part of the problem type that the
aggregator answers with (PROTOCOL §7) and the key a program may branch on. `rule` is the number of the
rule of PROTOCOL that was broken, for example "4.2.2": another implementation need not match our English.
`ending` is how a round is counted that the error ends. By whose fault it is, each is a `Local`, a `Peer` or
an `Environment`, seen from the participant that gets it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Ending(StrEnum):
    """Why a round ended without a sum, as one of few words: labels of figures, and in answers (§7.3)."""

    MISSING_MEMBERS = "missing-members"
    BROKEN_RULE = "broken-rule"
    SUPERSEDED = "superseded"
    STOPPING = "stopping"
    NO_ROOM = "no-room"
    INTERNAL = "internal"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Ending:
        return cls.OTHER  # of a newer version


class ChoralError(Exception):
    """Root of every error that Choral raises on purpose."""

    slug = "error"
    ending = Ending.OTHER
    passes = False  # whether the same thing tried again later may go well: a restart can mend it

    def __init__(self, reason: str, *, hint: str | None = None, rule: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.rule = rule
        if hint:  # so that a traceback shows it, too
            self.add_note(f"hint: {hint}")


class Local(ChoralError):
    """What this participant's own files, data or options are."""


class Peer(ChoralError):
    """What others sent, or did."""


class Environment(ChoralError):
    """The network, a disk, a clock, a process that is away: nobody's word, and most of it passes."""

    passes = True


class ParameterError(Local):
    """A parameter, a setting or a task that cannot be safe or does not fit."""

    slug = "parameter"


class IdentityError(Local):
    """A key file or a signature that cannot be used."""

    slug = "identity"


class ClockError(Environment):
    """A request whose time is too far from the aggregator's: one of the two clocks is off (§7.4)."""

    slug = "clock"
    passes = False  # somebody has to set it


class ShardError(Local):
    """A data file that is not a shard, or not one for this task."""

    slug = "shard"


class UpdateError(Local):
    """A model update with the wrong arrays, or with values that are not numbers."""

    slug = "update"


class WireError(Peer):
    """Bytes that are not the one canonical encoding of a message (§7)."""

    slug = "wire"


class PeerError(Peer):
    """Somebody broke the protocol. `culprits` names whom the evidence points at."""

    slug = "peer"

    def __init__(
        self,
        reason: str,
        *,
        culprits: Iterable[str] = (),
        hint: str | None = None,
        rule: str | None = None,
    ) -> None:
        super().__init__(reason, hint=hint, rule=rule)
        self.culprits = tuple(culprits)
        self.ending = Ending.BROKEN_RULE if self.culprits else Ending.OTHER


class CohortTooSmall(PeerError):
    """A cohort or a survivor set below what this member accepts (§4)."""

    slug = "cohort-too-small"


class OutOfPhase(PeerError):
    """A message that is not expected now, or conflicts with an earlier one (§4)."""

    slug = "out-of-phase"


class RoundAborted(Peer):
    """A round that ended without a sum. `missing` names who was waited for in vain.

    `culprits` are whom the evidence points at, `proven` those of them against whom it is a proof (§4.5).
    `ending` is what whoever names it says, or what the names say.
    """

    slug = "round-aborted"

    def __init__(
        self,
        reason: str,
        *,
        missing: Iterable[str] = (),
        culprits: Iterable[str] = (),
        proven: Iterable[str] = (),
        hint: str | None = None,
        rule: str | None = None,
        ending: Ending | None = None,
    ) -> None:
        super().__init__(reason, hint=hint, rule=rule)
        self.missing = tuple(missing)
        self.culprits = tuple(culprits)
        self.proven = tuple(proven)
        named = Ending.BROKEN_RULE if self.culprits else Ending.MISSING_MEMBERS if self.missing else None
        self.ending = ending or named or Ending.OTHER


class RecordError(Peer):
    """A model record that does not follow from the log: forged, forked or rolled back."""

    slug = "record"


class SpentError(Local):
    """An update that was sent before and must not be sent again (§5)."""

    slug = "spent"


class AggregatorUnavailable(Environment):
    """The aggregator did not answer, after retries."""

    slug = "aggregator-unavailable"


class TlsError(Environment):
    """The aggregator's certificate, or its TLS, is not what this participant accepts."""

    slug = "tls"
    passes = False  # somebody has to look at the certificate


class Superseded(Peer):
    """An update that starts from a model version that is not the newest any more."""

    slug = "superseded"
    ending = Ending.SUPERSEDED


class UnknownRound(Peer):
    """A round that the aggregator does not know, or does not know any more."""

    slug = "unknown-round"


class TwoProcesses(PeerError):
    """One member's key is used by two processes at once."""

    slug = "two-processes"
    passes = True


class ShuttingDown(Environment):
    """The aggregator takes no new members: it is about to stop."""

    slug = "shutting-down"
    ending = Ending.STOPPING


class NoRoom(Environment):
    """The aggregator cannot save what a round would lead to: it goes on when it can."""

    slug = "no-room"
    ending = Ending.NO_ROOM


class KeptOut(PeerError):
    """A member that was proven to have broken the protocol, and is kept out of cohorts (§4.5)."""

    slug = "kept-out"
    passes = True
