"""A request and its answer: a body is taken in as it is read, an answer goes out in pieces (§7.3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from quart import Request, request
from quart.asgi import ASGIHTTPConnection
from quart.wrappers.request import Body

PIECE = 1 << 16  # bytes written at a time; the next one waits until that one was taken in
_AT_END = "choral.at_end"  # key in a request's `state`


def at_end(call: Callable[[], None]) -> None:
    """Call this when the answer to the request that is being served is out, or its client is gone."""
    request.scope["state"][_AT_END].append(call)


class Arriving(Body):
    """A body of which one piece is held; the next is taken from the connection when that one was read."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._pieces: deque[bytes] = deque()
        self._read = asyncio.Event()

    def append(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._has_data.set()

    async def __anext__(self) -> bytes:
        if not self._pieces:
            if self._complete.is_set():
                raise StopAsyncIteration
            self._has_data.clear()
            await self._has_data.wait()
            if not self._pieces:
                raise StopAsyncIteration
        piece = self._pieces.popleft()
        self._read.set()
        return piece

    async def room(self) -> None:
        """Until every piece was read."""
        while self._pieces:
            self._read.clear()
            await self._read.wait()


class Asked(Request):
    body_class = Arriving


class Exchange(ASGIHTTPConnection):
    """Quart's way from a connection to a view and back, with a bounded part of either body in memory."""

    async def __call__(self, receive: Any, send: Any) -> None:
        scope: Any = self.scope
        at_end: list[Callable[[], None]] = scope.setdefault("state", {}).setdefault(_AT_END, [])
        try:
            await super().__call__(receive, _in_pieces(send))
        finally:
            for call in at_end:
                call()

    async def handle_messages(self, request: Request, receive: Any) -> None:
        body = request.body
        assert isinstance(body, Arriving)  # noqa: S101  (of an `Asked`)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body.append(message.get("body", b""))
            if not message.get("more_body", False):
                body.set_complete()
            else:
                await body.room()


def _in_pieces(send: Any) -> Any:
    async def send_pieces(message: dict[str, Any]) -> None:
        body = memoryview(message.get("body", b""))
        more = message.get("more_body", False)
        if len(body) <= PIECE:
            await send(message)
            return
        for at in range(0, len(body), PIECE):
            last = at + PIECE >= len(body)
            await send({**message, "body": body[at : at + PIECE], "more_body": more or not last})

    return send_pieces
