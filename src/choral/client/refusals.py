"""What a refusal over HTTP means: the aggregator's own (RFC 9457), or that of something on the way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from choral import errors
from choral.client.report import printable
from choral.errors import AggregatorUnavailable, ChoralError

_MOST = 256  # names of a refusal that are read: no cohort has more members
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


class Unexplained(AggregatorUnavailable):
    """An answer that is no refusal of an aggregator: that of a proxy, or one that cannot be read."""


class TooLarge(Unexplained):
    """413 from something on the way: a limit that has to be raised by a person."""


def refusal(status: int, body: bytes, sent: int) -> ChoralError:
    """A refusal as the error that it names; `Unexplained` if it names none.

    Args:
        sent: bytes of the request's body.
    """
    try:
        problem = json.loads(body)
        slug = str(problem["type"])
        if not slug.startswith("urn:choral:problem:"):
            raise ValueError(slug)
        slug = slug.rpartition(":")[2]
        reason = printable(problem["detail"])
        hint = printable(problem["hint"]) if "hint" in problem else None
        rule = printable(problem["rule"]) if "rule" in problem else None
        culprits, missing = (_names(problem.get(key, ())) for key in ("culprits", "missing"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _unexplained(status, sent)
    kind = _KINDS.get(slug, ChoralError)
    named: dict[str, Any] = {}
    if issubclass(kind, errors.PeerError | errors.RoundAborted):
        named["culprits"] = culprits
    if issubclass(kind, errors.RoundAborted):
        named["missing"] = missing
    return kind(reason, hint=hint, rule=rule, **named)


def _names(found: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(printable, list(found)[:_MOST]))


def _unexplained(status: int, sent: int) -> Unexplained:
    if status == 413 and sent:
        return TooLarge(
            f"HTTP 413: a proxy on the way takes no body of {sent / 1e6:.1f} MB",
            hint=f"raise its limit to {-(-sent // 1_000_000) + 1} MB at least;"
            " for nginx that is `client_max_body_size`",
        )
    return Unexplained(
        f"HTTP {status} without an explanation",
        hint="is there something else at this address, a proxy perhaps?",
    )
