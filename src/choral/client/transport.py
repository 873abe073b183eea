"""HTTP to the aggregator: signed requests, retries, long polls (§7). Knows no message of the protocol."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from choral import errors
from choral.errors import AggregatorUnavailable, ChoralError, ParameterError, TlsError, WireError
from choral.federation import certificates
from choral.primitives.identity import Identity
from choral.protocol.access import Access, header

Report = Callable[..., None]
"""Told what happens, as `report(event, **details)`."""

_RETRIED = frozenset({500, 502, 503, 504})
_PIECE = 1 << 20
_LARGEST_REFUSAL = 1 << 16
_KINDS = {
    kind.slug: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ChoralError)
}
_KINDS["too-slow"] = errors.OutOfPhase  # the round goes on without a sender that slow


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


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
        report: Report = lambda event, **details: None,
        verify: ssl.SSLContext | bool = True,
        authority: Path | None = None,
        carrier: httpx.AsyncBaseTransport | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.url = _address(url)
        self._identity = identity
        self._access = access
        self._patience = patience
        self._jitter = jitter
        self._largest = largest
        self._report = report
        self._wall, self._clock, self._sleep = wall, clock, sleep
        # a request is answered within 20 s (§7); uploads get a timeout a piece, not one for the whole
        timeout = httpx.Timeout(connect=5.0, read=40.0, write=40.0, pool=None)
        self._own_authority = authority is not None
        if authority is not None:
            verify = certificates.trust(authority)
        self._met = False  # whether this address has ever answered
        self._http = httpx.AsyncClient(
            base_url=self.url, timeout=timeout, verify=verify, limits=httpx.Limits(max_connections=8),
            transport=carrier,
        )  # fmt: skip

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
    ) -> bytes:
        """The body of the final answer: connection failures are retried, a 202 is asked again.

        Args:
            content: the body; a sequence is sent piece by piece.
            again: method and path to ask with after a 202, when the body need not be sent again.

        Raises:
            AggregatorUnavailable: not reachable for longer than `patience`.
            TlsError: a certificate that is not accepted, at an address that never answered before.
            WireError: an answer that is longer than any honest one, or compressed.
            ChoralError: what the aggregator refused, as the error that it named.
        """
        failures, since, hurried = 0, None, 0
        while True:
            asked = self._clock()
            try:
                answer = await self._once(method, path, content)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                if wrong := await self._wrong_tls(error):
                    if not self._met:  # at first contact it is a mistake; later it may pass
                        raise wrong from error
                    failure, failures = wrong.reason, max(failures, 3)
            else:
                self._met = True
                if answer.status == 202:
                    failures, since = 0, None
                    if again is not None:
                        (method, path), content = again, b""
                    # whoever says "not yet" without having waited is not asked a thousand times a second
                    hurried = hurried + 1 if self._clock() - asked < 1 else 0
                    if hurried > 2:
                        await self._sleep(min(1.0, 0.05 * 2 ** min(hurried, 8)))
                    continue
                if answer.status not in _RETRIED:
                    if answer.good:
                        return answer.body
                    raise _refusal(answer)
                failure = _refusal(answer).reason
            since = since if since is not None else self._clock()
            if self._patience is not None and self._clock() - since > self._patience:
                raise AggregatorUnavailable(
                    f"{self.url} did not answer for {self._clock() - since:.0f} s ({failure})",
                    hint="is the aggregator running, and is this its address? `choral status` asks it",
                )
            if failures == 3:
                self._report("unreachable", url=self.url, reason=failure)
            await self._sleep(min(5.0, 0.1 * 2**failures) * (0.5 + self._jitter()))
            failures = min(failures + 1, 10)

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
            return _Answer(response.status_code, await self._read(response, path, good=good))
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


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ParameterError(
            f"found {url!r:.100} as the address of the aggregator, expected http://… or https://…",
            hint="it stands in federation.toml, and --url overrides it",
        )
    return url.rstrip("/")


def _refusal(answer: _Answer) -> ChoralError:
    """The aggregator's problem+json as the error that it names."""
    try:
        problem = json.loads(answer.body)
        slug = problem["type"].rpartition(":")[2]
        reason = _printable(problem["detail"])
        hint = _printable(problem["hint"]) if "hint" in problem else None
        names = {key: tuple(map(_printable, problem.get(key, ()))) for key in ("culprits", "missing")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return AggregatorUnavailable(
            f"HTTP {answer.status} without an explanation",
            hint="is there something else at this address, a proxy perhaps?",
        )
    kind = _KINDS.get(slug, ChoralError)
    named: dict[str, Any] = {
        key: value
        for key, value in names.items()
        if (key == "culprits" and issubclass(kind, errors.PeerError | errors.RoundAborted))
        or (key == "missing" and issubclass(kind, errors.RoundAborted))
    }
    return kind(reason, hint=hint, **named)


def _printable(text: object) -> str:
    """What somebody else wrote, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:500])
