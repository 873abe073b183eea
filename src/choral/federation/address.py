"""The aggregator's address, read in one way everywhere; and, in words, why nobody answers there."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from choral.errors import ParameterError

_HINT = "for example http://127.0.0.1:8750, https://aggregator.example:8750 or http://[2001:db8::7]:8750"
_LABEL = re.compile(r"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$")


@dataclass(frozen=True)
class Address:
    """`url` without a slash at its end, and its parts; `host` in small letters, IPv6 without brackets."""

    url: str
    scheme: str
    host: str
    port: int | None

    @property
    def loopback(self) -> bool:
        """Whether it is this machine itself, and nothing that others reach."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def address(url: str) -> Address:
    """The parts of an aggregator's address.

    Raises:
        ParameterError: no http or https, no host, one that cannot be, a port out of range, or more than that.
    """
    if not url.isprintable() or " " in url:
        raise _refused(url, "it has blanks or other characters that are not printed")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _refused(
            url, "its port is a number from 1 to 65535, an IPv6 address stands in brackets"
        ) from None
    if parts.scheme not in ("http", "https"):
        raise _refused(url, "expected http://… or https://…")
    if not host:
        raise _refused(url, "it names no host")
    if parts.username is not None or parts.query or parts.fragment:
        raise _refused(url, "expected host, port and at most a path: no user, question mark or #")
    if port == 0:
        raise _refused(url, "nobody can be reached at port 0")
    if not _possible(host, bracketed="[" in parts.netloc):
        raise _refused(url, f"{host!r:.80} is no host name and no address")
    return Address(url.rstrip("/"), parts.scheme, host, port)


def _refused(url: str, why: str) -> ParameterError:
    return ParameterError(f"found {url!r:.100} as the address of the aggregator: {why}", hint=_HINT)


def _possible(host: str, *, bracketed: bool) -> bool:
    try:
        return (ipaddress.ip_address(host).version == 6) == bracketed and "%" not in host
    except ValueError:
        return is_host_name(host)


def is_host_name(host: str) -> bool:
    """Whether a text can be the name of a machine."""
    try:
        plain = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        return False
    labels = plain.removesuffix(".").split(".")
    # what ends in a number would be an IPv4 address, and is none
    return len(plain) <= 253 and all(map(_LABEL.match, map(str.lower, labels))) and not labels[-1].isdecimal()


def why(error: BaseException) -> str:
    """What went wrong on the way: in the operating system's words, without numbers and names of classes."""
    found: BaseException | None = error
    said = ""
    while found is not None:
        if isinstance(found, OSError) and not isinstance(found, ssl.SSLError) and found.strerror:
            said = found.strerror
        if isinstance(found, TimeoutError) or "Timeout" in type(found).__name__:
            return "no answer in time"
        found = found.__cause__ or found.__context__
    if said:
        return said[:1].lower() + said[1:]
    text = re.sub(r"^\[[^\]]*\]\s*", "", str(error)).strip().rstrip(".")
    return text[:1].lower() + text[1:] if text else "the connection broke"
