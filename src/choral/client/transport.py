"""HTTP to the aggregator: signed requests, retries, long polls (§7). Knows no message of the protocol."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from choral.binding import certificates
from choral.binding.access import Access, header
from choral.client import proxies
from choral.client.clocks import Clocks
from choral.client.events import PutOff, Tell, Unreachable, printable, silent
from choral.client.refusals import TooLarge, Unexplained, refusal
from choral.errors import AggregatorUnavailable, ChoralError, ClockError, ParameterError, TlsError, WireError
from choral.federation.address import address, why
from choral.primitives.identity import Identity

__all__ = ["Transport"]

_PASSING = frozenset({429, 502, 503, 504})  # as a broken connection, whoever says it
_UNREACHED = (AggregatorUnavailable, TlsError)  # all else is what an aggregator said
_PIECE = 1 << 20
_LARGEST_REFUSAL = 1 << 16
_LONGEST_WAIT = 60.0  # seconds that a Retry-After is heeded for
_DISOWNED = 600.0  # seconds for which a member that was known is told that it is not, before it believes it


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    date: str | None
    retry_after: str

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def wait(self) -> float:
        """Seconds that the answer asks to wait, within reason."""
        return min(float(self.retry_after), _LONGEST_WAIT) if self.retry_after.isdecimal() else 0.0


class Transport:
    """One participant's connection to its aggregator. An async context manager.

    Args:
        url: of the aggregator.
        access: whose requests these are; `identity` signs them.
        largest: bytes of an answer that are read; a longer one is refused.
        patience: seconds to go on retrying while the aggregator cannot be reached; None is for ever.
        jitter: uniform random numbers in [0, 1), so that members do not retry in step.
        authority: whose certificates are trusted under https; None: the machine's usual ones.
        carrier: what requests travel by, if not by connections to `url`.

    Raises:
        ParameterError: an address that is not one of HTTP.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        access: Access,
        *,
        patience: float | None,
        jitter: Callable[[], float],
        largest: int = 1 << 26,
        tell: Tell = silent,
        verify: ssl.SSLContext | bool = True,
        authority: Path | None = None,
        carrier: httpx.AsyncBaseTransport | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.url = address(url).url
        self._identity = identity
        self._access = access
        self._patience = patience
        self._jitter = jitter
        self._largest = largest
        self._tell = tell
        self._wall, self._clock, self._sleep = wall, clock, sleep
        # a request is answered within 20 s (§7); uploads get a timeout a piece, not one for the whole
        timeout = httpx.Timeout(connect=5.0, read=40.0, write=40.0, pool=None)
        self._own_authority = authority is not None
        if authority is not None:
            verify = certificates.trust(authority)
        self._met = False  # whether this address has ever answered
        self._known = False  # whether it has answered a request of this key well
        self._clocks = Clocks(wall, clock)
        self._http = _client(self.url, timeout, verify, carrier)

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def get(self, path: str) -> bytes:
        """The answer to a GET, however long it is waited for."""
        return await self.send("GET", path)

    async def send(
        self,
        method: str,
        path: str,
        content: bytes | Sequence[bytes | memoryview] = b"",
        *,
        again: tuple[str, str] | None = None,
        unexplained: float | None = None,
    ) -> bytes:
        """The body of the final answer: what may pass is tried again, a 202 is asked again.

        Args:
            content: the body; a sequence is sent piece by piece.
            again: method and path to ask with after a 202, when the body need not be sent again.
            unexplained: seconds for which an answer that is no aggregator's is tried again; None is for ever.

        Raises:
            AggregatorUnavailable: not reachable for longer than `patience`.
            Unexplained: nothing but answers of a proxy for that long; at once if it takes no body so large.
            TlsError: a certificate that is not accepted, at an address that never answered before.
            WireError: an answer that is longer than any honest one, or compressed.
            ChoralError: what the aggregator refused, as the error that it named.
        """
        failures, since, hurried = 0, None, 0
        told: set[type[PutOff | Unreachable]] = set()
        while True:
            asked, asked_to_wait = self._clock(), 0.0
            try:
                answer = await self._once(method, path, content)
            except httpx.TransportError as error:
                failed: ChoralError = await self._broken(error)
                worth, lasting = math.inf, isinstance(failed, TlsError)
                failures = max(failures, 3) if lasting else failures
            else:
                self._met = True
                if answer.status == 202:
                    failures, since, told = 0, None, set()
                    if again is not None:
                        (method, path), content = again, b""
                    # whoever says "not yet" without having waited is not asked a thousand times a second
                    hurried = hurried + 1 if self._clock() - asked < 1 else 0
                    if hurried > 2:
                        await self._sleep(min(1.0, 0.05 * 2 ** min(hurried, 8)))
                    continue
                if answer.good:
                    self._known = True
                    self._clocks.good(answer.date)
                    return answer.body
                failed = refusal(answer.status, answer.body, _length(content))
                worth, lasting = self._worth(answer, failed, unexplained), answer.status == 401
                asked_to_wait = answer.wait
            since = since if since is not None else self._clock()
            waited = self._clock() - since
            if waited >= worth:
                raise failed
            if self._patience is not None and waited > self._patience:
                raise AggregatorUnavailable(
                    f"{self.url} did not answer for {waited:.0f} s ({failed.reason})",
                    hint=failed.hint
                    or "is the aggregator running, and is this its address? `choral status` asks it",
                )
            kind = Unreachable if isinstance(failed, _UNREACHED) else PutOff
            if failures >= 3 and kind not in told:  # once each: it may come back and have no room
                told.add(kind)
                self._tell(kind(self.url, failed.reason, failed.slug))
            pause = min(60.0 if lasting else 5.0, 0.1 * 2**failures) * (0.5 + self._jitter())
            if self._patience is None:
                pause = max(pause, asked_to_wait)
            else:  # whoever has little of it is not kept waiting
                pause = max(pause, min(asked_to_wait, self._patience - waited))
            await self._sleep(pause)
            failures = min(failures + 1, 10)

    def _worth(self, answer: _Answer, failed: ChoralError, unexplained: float | None) -> float:
        """For how many seconds such a refusal is tried again; 0: it is the answer."""
        if isinstance(failed, TooLarge):
            return 0.0
        if answer.status in _PASSING:
            return math.inf
        if isinstance(failed, Unexplained) or answer.status == 500:
            return math.inf if unexplained is None else unexplained
        if answer.status != 401:
            return 0.0
        # what was good before in this run may be good again: a clock is set, a file is put right
        if blame := self._clocks.blame(answer.date):
            failed.reason = f"{failed.reason}: {blame}"
            failed.args = (failed.reason,)
            failed.hint = "set the clock that is wrong; both may be compared with that of a third machine"
        if not self._known:
            return 0.0
        return math.inf if blame or isinstance(failed, ClockError) else _DISOWNED

    async def _broken(self, error: httpx.TransportError) -> ChoralError:
        """What a request without an answer is told as.

        Raises:
            TlsError: a mistake in TLS at first contact; later it may pass.
        """
        if wrong := await self._wrong_tls(error):
            if not self._met:
                raise wrong from error
            return wrong
        reason = printable(why(error))
        if not self._met and (proxy := proxies.variable(self.url)):
            return AggregatorUnavailable(
                f"{reason}, through the proxy of {proxy}",
                hint="if the aggregator is reached without a proxy, name it in NO_PROXY:"
                f" {address(self.url).host}",
            )
        return AggregatorUnavailable(reason)

    async def _wrong_tls(self, error: httpx.TransportError) -> TlsError | None:
        """What a failed request means, if the reason is TLS."""
        if found := certificates.explain(error, self.url, own_authority=self._own_authority):
            return found
        parts = urlsplit(self.url)
        broke = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        if self._met or parts.scheme != "http" or not broke:
            return None
        if await asyncio.to_thread(certificates.speaks_tls, parts.hostname or "", parts.port or 80):
            return TlsError(
                f"what answers at {self.url} speaks TLS, and the address says http",
                hint="the address begins with https://; this folder may be older than the certificate",
            )
        return None

    async def _once(self, method: str, path: str, content: bytes | Sequence[bytes | memoryview]) -> _Answer:
        headers = {
            "Authorization": header(self._identity, self._access, method, path, self._wall()),
            "Accept-Encoding": "identity",
        }
        body: bytes | AsyncIterator[bytes] | None
        if isinstance(content, bytes):
            body = content or None
        else:
            headers["Content-Length"] = str(sum(len(piece) for piece in content))
            body = _pieces(content)
        request = self._http.build_request(method, path, headers=headers, content=body)
        response = await self._http.send(request, stream=True)
        try:
            good = response.is_success
            body = await self._read(response, path, good=good)
            told = response.headers
            return _Answer(response.status_code, body, told.get("Date"), told.get("Retry-After", ""))
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, path: str, *, good: bool) -> bytes:
        if good and response.headers.get("Content-Encoding", "identity") != "identity":
            raise WireError(
                f"the answer to {path} is compressed, which was not asked for",
                hint="a proxy on the way changes what the aggregator says",
            )
        largest = self._largest if good else min(self._largest, _LARGEST_REFUSAL)
        data = bytearray()
        async for piece in response.aiter_raw():  # not more of it than an honest answer can have
            data += piece
            if len(data) > largest:
                if not good:
                    return b""
                raise WireError(
                    f"the answer to {path} is longer than {largest} bytes, which no honest one can be",
                    hint="is that address the aggregator of this federation?",
                )
        return bytes(data)


async def _pieces(content: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    for piece in content:
        for at in range(0, len(piece), _PIECE):
            yield bytes(piece[at : at + _PIECE])


def _length(content: bytes | Sequence[bytes | memoryview]) -> int:
    return len(content) if isinstance(content, bytes) else sum(len(piece) for piece in content)


def _client(
    url: str, timeout: httpx.Timeout, verify: ssl.SSLContext | bool, carrier: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """Connections to `url`, without cookies, and through a proxy only if it is another machine.

    Raises:
        ParameterError: a proxy in the environment that cannot be used.
    """
    near = address(url).loopback
    if verify is True:  # with what the environment says of certificates, also where it has no say in proxies
        verify = httpx.create_ssl_context()
    try:
        return httpx.AsyncClient(
            base_url=url, timeout=timeout, verify=verify, limits=httpx.Limits(max_connections=8),
            transport=carrier, trust_env=not near,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )  # fmt: skip
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ParameterError(
            f"the environment names a proxy that cannot be used ({proxies.any_variable()}): {error}",
            hint="expected http://HOST:PORT; unset it, or name the aggregator's host in NO_PROXY",
        ) from error
