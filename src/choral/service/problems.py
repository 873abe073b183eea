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
    """A request that HTTP itself has a status for."""

    def __init__(self, status: int, slug: str, reason: str, hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.status = status
        self.slug = slug


def problem(error: ChoralError) -> Response:
    """RFC 9457."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, Refused):
        status = error.status
    details = {
        "type": f"urn:choral:problem:{error.slug}",
        "title": error.slug.replace("-", " "),
        "status": status,
        "detail": error.reason,
        "hint": error.hint,
        "culprits": list(getattr(error, "culprits", ())),
        "missing": list(getattr(error, "missing", ())),
    }
    response = jsonify({key: value for key, value in details.items() if value})
    response.status_code = status
    response.content_type = "application/problem+json"
    if status in (408, 411, 413):
        response.headers["Connection"] = "close"  # what is left of the body is not going to be read
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response
