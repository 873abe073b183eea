"""Errors as `application/problem+json` (RFC 9457): a stable type, a reason, a hint (§7)."""

from __future__ import annotations

from quart import Response, jsonify

from choral.errors import (
    ChoralError,
    IdentityError,
    NoRoom,
    OutOfPhase,
    PeerError,
    RecordError,
    RoundAborted,
    ShuttingDown,
    Superseded,
    UnknownRound,
    WireError,
)
from choral.service.logs import ITEMS, TEXT, cut

_STATUS: list[tuple[type[ChoralError], int]] = [
    (WireError, 400),
    (IdentityError, 401),
    (UnknownRound, 404),
    (OutOfPhase, 409),
    (PeerError, 409),
    (RoundAborted, 409),
    (Superseded, 409),
    (RecordError, 404),
    (ShuttingDown, 503),
    (NoRoom, 503),
]


class Refused(ChoralError):
    """A request that HTTP itself has a status for; `close`: its connection ends with the answer."""

    def __init__(
        self, status: int, slug: str, reason: str, hint: str | None = None, *, close: bool = False
    ) -> None:
        super().__init__(reason, hint=hint)
        self.status = status
        self.slug = slug
        self.close = close or status in (408, 411, 413)  # what is left of the body is not going to be read


def problem(error: ChoralError) -> Response:
    """RFC 9457. However long an error is, its answer is one that everybody can read: see `logs`."""
    status, close = next((code for kind, code in _STATUS if isinstance(error, kind)), 500), False
    if isinstance(error, Refused):
        status, close = error.status, error.close
    names = {key: [cut(name, 64) for name in getattr(error, key, ())] for key in ("culprits", "missing")}
    more = [f"… and {len(found) - ITEMS} more {key}" for key, found in names.items() if len(found) > ITEMS]
    details = {
        "type": f"urn:choral:problem:{error.slug}",
        "title": error.slug.replace("-", " "),
        "status": status,
        "detail": cut(" ".join([cut(error.reason, TEXT - 64), *more])) if more else cut(error.reason),
        "hint": cut(error.hint or ""),
        "rule": error.rule,
        **{key: found[:ITEMS] for key, found in names.items()},
    }
    response = jsonify({key: value for key, value in details.items() if value})
    response.status_code = status
    response.content_type = "application/problem+json"
    if close:
        response.headers["Connection"] = "close"
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response
