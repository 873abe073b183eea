"""Proxies that the environment names: never for this machine itself, and named when they do not work."""

from __future__ import annotations

import os
from urllib.request import getproxies, proxy_bypass

from choral.federation.address import address


def variable(url: str) -> str | None:
    """The environment variable whose proxy requests to `url` go through, with its value; None without one."""
    at = address(url)
    if at.loopback:
        return None
    proxies = getproxies()
    scheme = next((scheme for scheme in (at.scheme, "all") if proxies.get(scheme)), None)
    if scheme is None or proxy_bypass(at.host):
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
