"""HTTP to the aggregator: signed requests, retries, long polls (§7). Knows no message of the protocol."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx

from choral import errors
from choral.errors import AggregatorUnavailable, ChoralError
from choral.primitives.identity import Identity
from choral.protocol.access import Access, header

Report = Callable[..., None]
"""Told what happens, as `report(event, **details)`."""

_RETRIED = frozenset({500, 502, 503, 504})
_PIECE = 1 << 20
_KINDS = {
    kind.slug: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ChoralError)
}


class Transport:
    """One participant's connection to its aggregator. An async context manager.

    Args:
        url: of the aggregator.
        access: whose requests these are; `identity` signs them.
        patience: seconds to go on retrying while the aggregator cannot be reached; None is for ever.
        jitter: uniform random numbers in [0, 1), so that members do not retry in step.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        access: Access,
        *,
        patience: float | None,
        jitter: Callable[[], float],
        report: Report = lambda event, **details: None,
        verify: ssl.SSLContext | bool = True,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._identity = identity
        self._access = access
        self._patience = patience
        self._jitter = jitter
        self._report = report
        self._wall, self._clock, self._sleep = wall, clock, sleep
        # a request is answered within 20 s (§7); uploads get a timeout a piece, not one for the whole
        timeout = httpx.Timeout(connect=5.0, read=40.0, write=40.0, pool=None)
        self._http = httpx.AsyncClient(
            base_url=self.url, timeout=timeout, verify=verify, limits=httpx.Limits(max_connections=8)
        )

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
            ChoralError: what the aggregator refused, as the error that it named.
        """
        failures, since = 0, None
        while True:
            try:
                response = await self._once(method, path, content)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if response.status_code == 202:
                    failures, since = 0, None
                    if again is not None:
                        (method, path), content = again, b""
                    continue
                if response.status_code not in _RETRIED:
                    if response.is_success:
                        return response.content
                    raise _refusal(response)
                failure = _refusal(response).reason
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

    async def _once(
        self, method: str, path: str, content: bytes | Sequence[bytes | memoryview]
    ) -> httpx.Response:
        headers = {"Authorization": header(self._identity, self._access, method, path, self._wall())}
        if isinstance(content, bytes):
            return await self._http.request(method, path, headers=headers, content=content or None)
        headers["Content-Length"] = str(sum(len(piece) for piece in content))
        return await self._http.request(method, path, headers=headers, content=_pieces(content))


async def _pieces(content: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    for piece in content:
        for at in range(0, len(piece), _PIECE):
            yield bytes(piece[at : at + _PIECE])


def _refusal(response: httpx.Response) -> ChoralError:
    """The aggregator's problem+json as the error that it names."""
    try:
        problem = response.json()
        slug = problem["type"].rpartition(":")[2]
        reason, hint = str(problem["detail"]), problem.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        return AggregatorUnavailable(
            f"HTTP {response.status_code} without an explanation",
            hint="is there something else at this address, a proxy perhaps?",
        )
    kind = _KINDS.get(slug, ChoralError)
    named = {
        key: tuple(map(str, problem.get(key, ())))
        for key in ("culprits", "missing")
        if (key == "culprits" and issubclass(kind, errors.PeerError | errors.RoundAborted))
        or (key == "missing" and issubclass(kind, errors.RoundAborted))
    }
    return kind(reason, hint=hint, **named)
