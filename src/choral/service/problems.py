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
    """A request that HTTP itself has a status for; `close`: its connection ends with the answer."""

    def __init__(
        self, status: int, slug: str, reason: str, hint: str | None = None, *, close: bool = False
    ) -> None:
        super().__init__(reason, hint=hint)
        self.status = status
        self.slug = slug
        self.close = close or status in (408, 411, 413)  # what is left of the body is not going to be read


def problem(error: ChoralError) -> Response:
    """RFC 9457."""
    status, close = next((code for kind, code in _STATUS if isinstance(error, kind)), 500), False
    if isinstance(error, Refused):
        status, close = error.status, error.close
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
    if close:
        response.headers["Connection"] = "close"
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response
