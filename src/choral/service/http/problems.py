"""Refusals as answers: `binding.problems` over HTTP (§7.5)."""

from __future__ import annotations

from quart import Response, jsonify

from choral.binding.problems import problem as fields_of
from choral.binding.problems import status_of
from choral.errors import ChoralError


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
    """The answer that refuses a request."""
    refused = error if isinstance(error, Refused) else None
    status = refused.status if refused else status_of(error)
    response = jsonify(fields_of(error, status))
    response.status_code = status
    response.content_type = "application/problem+json"
    if refused and refused.close:
        response.headers["Connection"] = "close"
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response
