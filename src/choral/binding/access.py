"""The signed header that binds a request to a member (§7): `Authorization: Choral …`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from choral.errors import ClockError, IdentityError
from choral.primitives.identity import Identity, verify
from choral.protocol.wire import pack

SCHEME = "Choral"
LABEL = "choral/1 request"
_HEADER = re.compile(
    r'Choral member="(?P<member>[^"\\]{1,64})", session="(?P<session>[0-9a-f]{16})",'
    r' time="(?P<time>[0-9]{1,12})", signature="(?P<signature>[0-9a-f]{128})"'
)


@dataclass(frozen=True)
class Access:
    """Who sent a request; `session` tells two processes with one key apart."""

    member: str
    session: str


def header(identity: Identity, access: Access, method: str, path: str, now: float) -> str:
    """The header's value for one request; `path` with its query."""
    content = pack([access.member, access.session, method, path, int(now)])
    signature = identity.sign(LABEL, content).hex()
    return (
        f'{SCHEME} member="{access.member}", session="{access.session}", time="{int(now)}",'
        f' signature="{signature}"'
    )


def verify_access(
    value: str | None, method: str, path: str, *, keys: Mapping[str, bytes], now: float, skew: float
) -> Access:
    """The member that signed a request.

    Raises:
        IdentityError: no header, not enrolled, or another key's signature.
        ClockError: a clock too far off; nobody knows here whose, so it tells both times.
    """
    found = _HEADER.fullmatch(value or "")
    if found is None:
        raise IdentityError(
            "the request carries no signature of a member",
            hint='expected Authorization: Choral member="…", session="…", time="…", signature="…"',
        )
    member, session, time = found["member"], found["session"], int(found["time"])
    if member not in keys:
        raise IdentityError(f"{member!r:.70} is not enrolled in this federation")
    content = pack([member, session, method, path, time])
    if not verify(keys[member], bytes.fromhex(found["signature"]), LABEL, content):
        raise IdentityError(f"the request is not signed by the pinned key of {member}")
    if abs(now - time) > skew:
        apart = f"{abs(now - time):.0f} s {'ago' if time < now else 'ahead'}"
        raise ClockError(
            f"the request of {member} was signed {apart}: at {_utc(time)} by its own clock, and it is"
            f" {_utc(now)} by the aggregator's",
            hint=f"set the clock that is off: at most {skew:.0f} s of difference are accepted",
            rule="7.4",
        )
    return Access(member, session)


def _utc(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # after the year 9999
        return f"{seconds:.0f} s after 1970"
