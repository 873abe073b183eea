"""A request and its answer: a body is taken in as it is read, an answer goes out in pieces (§7.3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
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
    """A body of which one piece is held; the next is taken from the connection when that one was read.

    All of it is here: what Quart's own body is made of differs between its versions.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._pieces: deque[bytes] = deque()
        self._whole = False
        self._moved = asyncio.Event()  # something came in, or the end of it
        self._taken = asyncio.Event()

    def arrive(self, data: bytes, *, more: bool) -> None:
        """A piece from the connection, and whether others follow."""
        if data:
            self._pieces.append(data)
        self._whole = not more
        self._moved.set()

    async def room(self) -> None:
        """Until every piece was read."""
        while self._pieces:
            self._taken.clear()
            await self._taken.wait()

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._whole:
                raise StopAsyncIteration
            self._moved.clear()
            await self._moved.wait()
        piece = self._pieces.popleft()
        self._taken.set()
        return piece

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._all().__await__()

    async def _all(self) -> bytes:
        return b"".join([piece async for piece in self])


class Asked(Request):
    body_class = Arriving


class Exchange(ASGIHTTPConnection):
    """Quart's way from a connection to a view and back, with a bounded part of either body in memory."""

    async def __call__(self, receive: Any, send: Any) -> None:
        scope: Any = self.scope
        at_end: list[Callable[[], None]] = scope.setdefault("state", {}).setdefault(_AT_END, [])
        send = _in_pieces(send)
        request = self._create_request_from_scope(send)
        receiving = asyncio.ensure_future(_receive(request, receive))
        answering = asyncio.ensure_future(self.handle_request(request, send))
        try:
            # what is received ends by the client hanging up, and then there is nobody to answer
            await asyncio.wait([receiving, answering], return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = [task for task in (receiving, answering) if task.cancel()]
            await asyncio.gather(*left, return_exceptions=True)
            for call in at_end:
                call()
        for task in (answering, receiving):
            if not task.cancelled():
                task.result()


async def _receive(request: Request, receive: Any) -> None:
    body = request.body
    assert isinstance(body, Arriving)  # noqa: S101  (of an `Asked`)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = bool(message.get("more_body", False))
        body.arrive(message.get("body", b""), more=more)
        if more:
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
