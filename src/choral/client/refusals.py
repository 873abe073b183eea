"""What a refusal over HTTP means: the aggregator's own (§7.5), or that of something on the way."""

from __future__ import annotations

from choral.binding import problems
from choral.errors import AggregatorUnavailable, ChoralError


class Unexplained(AggregatorUnavailable):
    """An answer that is no refusal of an aggregator: that of a proxy, or one that cannot be read."""


class TooLarge(Unexplained):
    """413 from something on the way: a limit that has to be raised by a person."""


def refusal(status: int, body: bytes, sent: int) -> ChoralError:
    """A refusal as the error that it names; `Unexplained` if it names none.

    Args:
        sent: bytes of the request's body.
    """
    if named := problems.refusal(body):
        return named
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
