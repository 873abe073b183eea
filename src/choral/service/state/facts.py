"""What happened in a round, as it is remembered and told: JSON in the store and in answers (§7.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from choral.errors import Ending

LONGEST = 1000  # characters of a reason in a row
_MOST = 256  # names in one: a cohort


@dataclass(frozen=True)
class Saw:
    """Histograms of what the aggregator received and of the sum; None of what it has not seen."""

    masked: tuple[int, ...] | None = None
    sum: tuple[int, ...] | None = None
    close_up: tuple[int, ...] | None = None

    def told(self) -> dict[str, list[int]]:
        """As JSON has it."""
        return {name: list(counts) for name, counts in vars(self).items() if counts is not None}


@dataclass(frozen=True)
class Facts:
    """What is known of one round. Of a round that an aggregator's restart ended, only why.

    Attributes:
        roster: the cohort, in its order.
        survivors: whose vectors are in the sum.
        dropped: who of the roster is not in it, with the phase whose message is missing.
        late: who was there when the cohort closed without them.
        apart: who was left out of it because they, or others, asked for it.
        stale: by how many versions an update started before the cohort's base, where it did.
        seconds: by phase, and for the sum.
        received, sent: bytes of messages and of answers, by phase.
        saw: histograms, for the page.
        version: what the round led to.
        reason: why it led to nothing, in words.
        kind: the same, as one of few words; None in rows that were written before there was one.
        phase: in which it ended so.
        missing: who was waited for in vain.
        culprits: whom the evidence points at.
        disputes: dealer and holder of a wrong share, one of whom lied; the first few (§4.5).
    """

    roster: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    stale: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[str, int] = field(default_factory=dict)
    saw: Saw = Saw()
    version: int | None = None
    reason: str | None = None
    kind: Ending | None = None
    phase: str | None = None
    missing: tuple[str, ...] = ()
    culprits: tuple[str, ...] = ()
    disputes: tuple[tuple[str, str], ...] = ()

    def told(self) -> dict[str, Any]:
        """As JSON has it: totals beside the bytes by phase, and nothing under what there is not."""
        found = {
            "roster": list(self.roster),
            "survivors": list(self.survivors),
            "dropped": dict(self.dropped),
            "late": list(self.late),
            "apart": list(self.apart),
            "stale": dict(self.stale),
            "seconds": dict(self.seconds),
            "bytes_in": sum(self.received.values()),
            "bytes_out": sum(self.sent.values()),
            "bytes": {"in": dict(self.received), "out": dict(self.sent)},
            "saw": self.saw.told(),
            "version": self.version,
            "reason": self.reason,
            "kind": self.kind and self.kind.value,
            "phase": self.phase,
            "missing": list(self.missing),
            "culprits": list(self.culprits),
            "disputes": [list(pair) for pair in self.disputes],
        }
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Facts:
        """What `told` gave, also of an older or a newer version: what it does not say is empty here.

        No list and no text is longer than what is written today: others have to read it whole.

        Raises:
            ValueError: something of another kind stands under one of the names.
        """
        found = _cut(dict(told))
        moved = found.get("bytes", {})
        return _FACTS.validate_python(found | {"received": moved.get("in", {}), "sent": moved.get("out", {})})


_FACTS = TypeAdapter(Facts)


def _cut(found: Any) -> Any:
    if isinstance(found, str):
        return found[:LONGEST]
    if isinstance(found, list):
        return [_cut(item) for item in found[:_MOST]]
    if isinstance(found, dict):
        return {key[:LONGEST]: _cut(value) for key, value in list(found.items())[:_MOST]}
    return found


@dataclass(frozen=True)
class RoundRow:
    """One round as remembered. `state` is open, done or aborted."""

    id: bytes
    base: int
    opened: float
    state: str
    seconds: float | None = None
    facts: Facts = Facts()

    def told(self) -> dict[str, Any]:
        """As the answers of `/v1/rounds` have it (§7.3)."""
        return {
            "id": self.id.hex(),
            "base": self.base,
            "opened": self.opened,
            "state": self.state,
            "seconds": self.seconds,
            "details": self.facts.told(),
        }

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> RoundRow:
        """What `told` gave, as an aggregator answered it.

        Raises:
            LookupError, TypeError, ValueError: it is not that.
        """
        return cls(
            bytes.fromhex(told["id"]), told["base"], told["opened"], told["state"], told["seconds"],
            Facts.read(told["details"]),
        )  # fmt: skip

    @property
    def made(self) -> float | None:
        """When the version came about that the round led to, seconds since 1970."""
        return self.opened + self.seconds if self.state == "done" and self.seconds is not None else None


def born(rows: Iterable[RoundRow], version: int) -> float | None:
    """When a version was made, as far as these rounds tell."""
    return made(rows).get(version)


def made(rows: Iterable[RoundRow]) -> dict[int, float]:
    """When versions were made, as far as these rounds tell."""
    return {
        row.facts.version: row.made for row in rows if row.facts.version is not None and row.made is not None
    }
