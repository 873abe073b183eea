"""One connection: how large and how late a head may be, and how long an answer may lie unread (§7.3).

uvicorn's protocol over httptools bounds neither, and no other one in it bounds the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from choral.service.http.listener import Listener, plain_problem

HANG_UP = "choral.hang_up"
"""Key in a request's `state`: a function that breaks the connection that it came by."""


@dataclass(frozen=True)
class Limits:
    """Of one connection.

    Attributes:
        head_bytes: of a request's head.
        head_seconds: for a TLS handshake, for a head from the connection or its first byte on, and for what
            is left of a body that was answered before it was read.
        stalled_seconds: in which something that was written must have been taken in.
        pipelined: requests that are sent ahead on one connection.
    """

    head_bytes: int = 16 << 10
    head_seconds: float = 10.0
    stalled_seconds: float = 30.0
    pipelined: int = 4


class Line(HttpToolsProtocol):
    """uvicorn's HTTP over one connection, with `limits`; `refused` is told each problem that it answers."""

    def __init__(self, limits: Limits, refused: Callable[[str], None], **more: Any) -> None:
        super().__init__(**more)
        self.limits = limits
        self._refused = refused
        self.logger = _quiet  # strangers write no lines
        self._due: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._head = 0  # bytes, of the head that is coming in
        self._fields = 0  # the same, as the parser hands them out
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # whatever is not taken in counts as waiting, so that `pause_writing` means just that
        transport.set_write_buffer_limits(high=1, low=0)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expected()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head += len(data)
            if self._due is None:
                self._expect()
        super().data_received(data)
        if not self._in_body and self._head > self.limits.head_bytes and not self.transport.is_closing():
            self._refuse(_TOO_LARGE)

    # ----- the parser's callbacks -------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._fields = 0
        self.scope["state"][HANG_UP] = self.hang_up
        if self._due is None:
            self._expect()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._expected()
        self._head, self._in_body = 0, True
        if len(self.pipeline) >= self.limits.pipelined:
            raise ValueError("more requests are sent ahead than are taken")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._expected()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body:  # it is thrown away, so that its sender gets to read the answer
            self._expect()

    def _count(self, size: int) -> None:
        self._fields += size
        if self._fields > self.limits.head_bytes:
            raise ValueError("the head is too large")  # and `send_400_response` says so

    # ----- time -------------------------------------------------------------------------------

    def _expect(self) -> None:
        self._expected()
        self._due = self.loop.call_later(self.limits.head_seconds, self._late)

    def _expected(self) -> None:
        if self._due:
            self._due.cancel()
            self._due = None

    def _late(self) -> None:
        self._due = None
        if self.transport.is_closing():
            return
        if self._head and not self._in_body:
            self._refuse(_TOO_SLOW)
        else:
            self.hang_up()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(self.limits.stalled_seconds, self.hang_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.cancel()
            self._stall = None

    # ----- ends -------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Break the connection; what is being answered on it is cancelled as if its client had done so."""
        if self.transport:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_TOO_LARGE if self._fields > self.limits.head_bytes else _NO_HTTP)

    def _refuse(self, what: tuple[str, bytes]) -> None:
        slug, answer = what
        self._refused(slug)
        busy = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not busy:  # in the middle of another answer it would be taken for a part of that
            self.transport.write(answer)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn over `Line`s. Signals are left to us: it would close connections that a round still needs."""

    def __init__(self, config: uvicorn.Config, limits: Limits, refused: Callable[[str], None]) -> None:
        super().__init__(config)
        self._limits = limits
        self._refused = refused

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Sequence[Listener] | None = None) -> None:  # type: ignore[override]
        """As uvicorn's, with a time for TLS handshakes."""
        await self.lifespan.startup()
        loop, config = asyncio.get_running_loop(), self.config
        line = functools.partial(
            Line, self._limits, self._refused, config=config, server_state=self.server_state,
            app_state=self.lifespan.state, _loop=loop,
        )  # fmt: skip
        self.servers = [
            await loop.create_server(
                line, sock=listener, ssl=config.ssl, backlog=config.backlog,
                ssl_handshake_timeout=self._limits.head_seconds if config.ssl else None,
            )
            for listener in sockets or ()
        ]  # fmt: skip
        self.started = True


def server(
    app: Any,
    limits: Limits | None = None,
    *,
    refused: Callable[[str], None] = lambda problem: None,
    **more: Any,
) -> Server:
    """A server of `app`, to be run on `Listener`s; `more` goes to uvicorn's settings.

    `refused` is told the name of each problem that is answered before `app` hears of a request.
    """
    return Server(
        uvicorn.Config(
            app, http=Line, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, **more,
        ),
        limits or Limits(),
        refused,
    )  # fmt: skip


_quiet = logging.getLogger("choral.line")
_quiet.setLevel(logging.ERROR)


def _problem(status: int, phrase: str, slug: str, detail: str) -> tuple[str, bytes]:
    return slug, plain_problem(status, phrase, slug, detail)


_TOO_LARGE = _problem(
    431, "Request Header Fields Too Large", "head-too-large", "the head of the request is too large"
)
_TOO_SLOW = _problem(408, "Request Timeout", "too-slow", "the head of the request took too long")
_NO_HTTP = _problem(400, "Bad Request", "http", "this is not a request of HTTP/1.1")
