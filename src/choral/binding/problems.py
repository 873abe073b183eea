"""Refusals as `application/problem+json` (RFC 9457), written and read: a type, a reason, a hint (§7.5)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from choral import errors
from choral.binding.text import TEXT, cut, printable
from choral.errors import ChoralError

NAMES = 32  # of one list in a refusal
_TYPE = "urn:choral:problem:"
_READ = 256  # names of a refusal that are read: no cohort has more members

STATUS: list[tuple[type[ChoralError], int]] = [
    (errors.WireError, 400),
    (errors.IdentityError, 401),
    (errors.ClockError, 401),
    (errors.UnknownRound, 404),
    (errors.OutOfPhase, 409),
    (errors.PeerError, 409),
    (errors.RoundAborted, 409),
    (errors.Superseded, 409),
    (errors.RecordError, 404),
    (errors.ShuttingDown, 503),
    (errors.NoRoom, 503),
]

# What an aggregator may name. None of the errors of a member's own making is among them.
_KINDS: dict[str, type[ChoralError]] = {
    kind.slug: kind
    for kind in (
        errors.IdentityError, errors.ClockError, errors.WireError, errors.PeerError, errors.CohortTooSmall,
        errors.OutOfPhase, errors.RoundAborted, errors.RecordError, errors.Superseded, errors.UnknownRound,
        errors.TwoProcesses, errors.ShuttingDown, errors.NoRoom, errors.KeptOut,
    )
}  # fmt: skip
_KINDS["too-slow"] = errors.OutOfPhase  # the round goes on without a sender that slow


def status_of(error: ChoralError) -> int:
    """The HTTP status of a refusal."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def problem(error: ChoralError, status: int) -> dict[str, Any]:
    """A refusal's fields. However long an error is, what is sent of it is what everybody can read."""
    names = {key: [cut(name, 64) for name in getattr(error, key, ())] for key in ("culprits", "missing")}
    more = [f"… and {len(found) - NAMES} more {key}" for key, found in names.items() if len(found) > NAMES]
    details = {
        "type": f"{_TYPE}{error.slug}",
        "title": error.slug.replace("-", " "),
        "status": status,
        "detail": cut(" ".join([cut(error.reason, TEXT - 64), *more])) if more else cut(error.reason),
        "hint": cut(error.hint or ""),
        "rule": error.rule,
        **{key: found[:NAMES] for key, found in names.items()},
    }
    return {key: value for key, value in details.items() if value}


def refusal(body: bytes) -> ChoralError | None:
    """The error that an aggregator's refusal names; None for what is none of an aggregator."""
    try:
        found = json.loads(body)
        slug = str(found["type"])
        if not slug.startswith(_TYPE):
            return None
        kind = _KINDS.get(slug.removeprefix(_TYPE), ChoralError)
        reason = _text(found["detail"])
        hint, rule = (_text(found[key]) if key in found else None for key in ("hint", "rule"))
        culprits, missing = (_names(found.get(key, ())) for key in ("culprits", "missing"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    named: dict[str, Any] = {}
    if issubclass(kind, errors.PeerError | errors.RoundAborted):
        named["culprits"] = culprits
    if issubclass(kind, errors.RoundAborted):
        named["missing"] = missing
    return kind(reason, hint=hint, rule=rule, **named)


def _text(found: object) -> str:
    return printable(str(found)[:TEXT])


def _names(found: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(_text, list(found)[:_READ]))
