"""The port: how many connections are open at once, in all and from one address (§7.3).

Connections are counted from the moment they are accepted, before TLS and before a byte is read, until
their socket is closed. So accepting never runs into the limit of open files.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

KEPT_FILES = 128  # of the limit of open files, for everything but connections
MOST = 8192  # connections by default, where there are that many files
MOST_PER_ADDRESS = 1024
_AT_ONCE = 64  # connections turned away before the loop does something else
_QUIET = 10.0  # seconds between two lines in the log
_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
log = structlog.get_logger("choral.listener")


def raise_file_limit() -> int | None:
    """Allow this process as many open files as it may have; how many. None where there is no such limit."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems have a hard limit that is none
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return None if soft == resource.RLIM_INFINITY else soft


def room_for(files: int | None, most: int | None, per_address: int | None) -> tuple[int, int]:
    """Connections in all and from one address: as asked for, as far as there are `files` for them."""
    room = MOST if files is None else max(1, files - KEPT_FILES)
    total = min(most or MOST, room)
    return total, min(per_address or min(MOST_PER_ADDRESS, max(1, total // 2)), total)


class Listener(socket.socket):
    """A listening socket that turns away what is too many, at once.

    Args:
        most: open connections at most.
        per_address: of them from one IPv4 address, or one IPv6 network of 64 bits.
        tls: whether TLS is spoken, so that nothing can be said to whom is turned away.

    Attributes:
        refused: told the name of the problem of each connection that is turned away.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        most: int,
        per_address: int,
        tls: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # with the protocol named: only then asyncio turns Nagle's algorithm off, 40 ms a message
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.most, self.per_address = most, per_address
        self.open: Counter[str] = Counter()
        self.refused: Callable[[str], None] = lambda problem: None
        self._tls = tls
        self._clock = clock
        self._silent_until = self._resting_until = clock()
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind((host, port))
        except BaseException:
            self.close()
            raise

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that there is room for.

        Raises:
            BlockingIOError: there is none now.
            OSError: the system has no more files or memory; told once a second, since asyncio asks
                thousands of times before it waits for that long.
        """
        for _ in range(_AT_ONCE):
            if self._clock() < self._resting_until:
                break
            try:
                number, address = self._accept()  # type: ignore[attr-defined]
            except OSError as error:
                if error.errno in _RESOURCES:
                    self._resting_until = self._clock() + 0.9
                    self._say("no connection can be accepted", reason=error.strerror)
                raise
            origin = network(address[0])
            connection = _Counted(self.family, self.type, self.proto, number)
            if self.open.total() < self.most and self.open[origin] < self.per_address:
                self.open[origin] += 1
                connection.closed = functools.partial(self._forget, origin)
                return connection, address
            self._say(
                "connections are turned away: too many are open", open=self.open.total(), address=origin,
                of_this_address=self.open[origin],
                hint="`connections` and `connections_per_address` in the settings say how many there may be",
            )  # fmt: skip
            self._turn_away(connection)
        raise BlockingIOError

    def _forget(self, origin: str) -> None:
        self.open[origin] -= 1
        if not self.open[origin]:
            del self.open[origin]

    def _turn_away(self, connection: socket.socket) -> None:
        self.refused(_TOO_MANY)
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            if not self._tls:
                connection.send(TOO_MANY)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1 << 16)  # closing on unread bytes would take the answer back
        connection.close()

    def _say(self, event: str, **details: Any) -> None:
        if self._clock() >= self._silent_until:
            self._silent_until = self._clock() + _QUIET
            log.warning(event, **details)


class _Counted(socket.socket):
    """A connection that says when its socket is closed."""

    closed: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        told, self.closed = self.closed, None
        if told:
            told()


def network(host: str) -> str:
    """What counts as one address: in IPv6 a network of 64 bits, of which one machine has all addresses."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def plain_problem(status: int, phrase: str, slug: str, detail: str, hint: str | None = None) -> bytes:
    """A whole answer in problem+json (§7.5), for whom no request is read from; it ends the connection."""
    found = {
        "type": f"urn:choral:problem:{slug}", "title": slug.replace("-", " "), "status": status,
        "detail": detail,
    }  # fmt: skip
    body = json.dumps(found | ({"hint": hint} if hint else {})).encode()
    later = "Retry-After: 1\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{later}\r\n"
    )
    return head.encode() + body


_TOO_MANY = "too-many-connections"
TOO_MANY = plain_problem(
    503, "Service Unavailable", _TOO_MANY, "too many connections are open", "try again later"
)
