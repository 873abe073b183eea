"""What the proxy variables of the environment mean for the way to the aggregator."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from choral.federation.address import Address, is_host_name
from choral.inspection.finding import Finding, Findings

_KINDS = ("http", "https", "socks5", "socks5h")


def on_the_way(at: Address, environment: Mapping[str, str]) -> Findings:
    """Which proxy requests to this address go through, and whether it can be one."""
    found = _chosen(at.scheme, environment)
    if found is None:
        return
    name, proxy = found
    if at.loopback:
        if not _excepted(at.host, environment):
            yield Finding(
                "proxy", "warn", f"{name} sends {at.url} to {_shown(proxy)}, which cannot reach this machine",
                f"Choral goes past it, other programs do not: NO_PROXY={at.host}",
            )  # fmt: skip
        return
    if _excepted(at.host, environment):
        yield Finding("proxy", "ok", f"NO_PROXY lets {at.host} pass by {name}")
    elif wrong := _unusable(proxy):
        yield Finding(
            "proxy", "fail", f"{name} is {_shown(proxy)!r:.120}: {wrong}",
            f"{name}=http://HOST:PORT, or NO_PROXY={at.host} if there is none on the way",
        )  # fmt: skip
    else:
        yield Finding(
            "proxy", "ok", f"requests go through {_shown(proxy)} ({name})",
            f"NO_PROXY={at.host} if they should not: it has to let a request wait for 20 s and more",
        )  # fmt: skip


def _chosen(scheme: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            if environment.get(spelled):
                return spelled, environment[spelled].strip()
    return None


def _excepted(host: str, environment: Mapping[str, str]) -> bool:
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for entry in (part.strip().lower().strip("[]") for part in listed.split(",")):
        if entry in ("*", host):
            return True
        if entry and not _is_ip(host) and host.endswith("." + entry.lstrip(".")):
            return True
    return False


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unusable(proxy: str) -> str | None:
    """Why this cannot be a proxy's address; one without a scheme is taken as http."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "its port or its host cannot be"
    if parts.scheme not in _KINDS:
        return f"expected {', '.join(_KINDS)}, found {parts.scheme}"
    if port == 0 or not (_is_ip(host) or is_host_name(host)):
        return "it names no host that could be one"
    return None


def _shown(proxy: str) -> str:
    """The proxy without a password that may stand in it."""
    before, at, after = proxy.rpartition("@")
    scheme, there, _ = before.partition("://")
    return f"{scheme}://…@{after}" if at and there else f"…@{after}" if at else proxy
