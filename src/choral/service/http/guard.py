"""Who may look: at the page, by setting; at status and figures, whoever is on this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re

from quart import Response, request

from choral.service.http.problems import Refused
from choral.service.settings import Settings

COOKIE = "choral_dashboard"
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)
_BY_PROXY = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def is_local() -> bool:
    """Whether the request comes from this machine, and not through a proxy that runs on it.

    The name that was asked for must be this machine's too: a page of somebody else's whose name is
    made to point here (DNS rebinding) must not read anything.
    """
    if any(name in request.headers for name in _BY_PROXY):
        return False
    hosts = request.headers.getlist("Host")
    return len(hosts) == 1 and _loopback(request.remote_addr) and _loopback(host_of(hosts[0]))


def host_of(header: str) -> str:
    """The host in `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`; empty for anything else."""
    found = _HOST.fullmatch(header)
    return (found["v6"] or found["name"]).lower() if found else ""


def _loopback(address: str | None) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests for the page through, or not, as `settings.dashboard` says."""

    def __init__(self, settings: Settings) -> None:
        self.mode = settings.dashboard
        token = settings.dashboard_token
        self._token = token.get_secret_value().encode() if token else b""
        # what a browser keeps is not the token itself
        self._cookie = hmac.new(self._token, b"choral/1 dashboard", hashlib.sha256).hexdigest()

    def check(self) -> None:
        """Raises `Refused` unless the request may see the page."""
        if self.mode == "off":
            raise Refused(404, "http", "there is no dashboard here", "the setting `dashboard` turns it on")
        if self.mode == "local":
            if not is_local():
                raise Refused(
                    403, "not-local", "the dashboard answers on the aggregator's own machine only",
                    'dashboard = "token" and a dashboard_token let others in',
                )  # fmt: skip
            return
        sent = request.cookies.get(COOKIE, "")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not (_same(sent.encode(), self._cookie.encode()) or self.knows(bearer)):
            raise Refused(401, "no-token", "the dashboard asks for its token", "open / and sign in")

    def knows(self, token: str) -> bool:
        """Whether this is the token; compared in constant time."""
        return bool(self._token) and _same(token.strip().encode(), self._token)

    def let_in(self, response: Response) -> Response:
        """The browser that gets `response` need not show the token again."""
        response.set_cookie(
            COOKIE, self._cookie, max_age=30 * 86400, httponly=True, samesite="Lax", secure=request.is_secure
        )
        return response


def _same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(hashlib.sha256(one).digest(), hashlib.sha256(other).digest())
