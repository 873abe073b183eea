"""Proxies that the environment names: never for this machine itself, and named when they do not work."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def loopback(host: str) -> bool:
    """Whether a host is this machine.

    >>> [loopback(host) for host in ("localhost", "127.0.0.2", "::1", "agg.example", "1.2.3.4")]
    [True, True, True, False, False]
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def variable(url: str) -> str | None:
    """The environment variable whose proxy requests to `url` go through, with its value; None without one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if loopback(host):
        return None
    proxies = getproxies()
    scheme = next((scheme for scheme in (parts.scheme, "all") if proxies.get(scheme)), None)
    if scheme is None or proxy_bypass(host):
        return None
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    name = next((name for name in names if os.environ.get(name)), f"the system's {scheme} proxy")
    return f"{name}={without_password(proxies[scheme])}"


def any_variable() -> str:
    """The variables that name proxies, for when one of them cannot be read at all."""
    found = [name for name in os.environ if name.lower().endswith("_proxy") and name.lower() != "no_proxy"]
    return ", ".join(f"{name}={without_password(os.environ[name])}" for name in sorted(found))


def without_password(proxy: str) -> str:
    """A proxy's address as it may be shown.

    >>> without_password("http://me:secret@proxy:3128")
    'http://…@proxy:3128'
    """
    before, at, host = proxy.rpartition("@")
    return f"{before.partition('://')[0]}://…@{host}" if at else proxy
