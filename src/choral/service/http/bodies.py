"""Request bodies: their length is checked before a byte of them is read, and slow ones are cut off (§7)."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable

from quart import request

from choral.errors import WireError
from choral.service.http.problems import Refused

_WITH_BODY = frozenset({"POST", "PUT"})
_PATIENT = 0.25  # of the time for a body, in which nobody looks how fast it comes
_LOOK = 0.5  # seconds from one look to the next afterwards
_NUMBERS = ("after", "before")  # in the query


def well_formed() -> None:
    """What holds for every request: no body where none belongs, and numbers that are some.

    Raises:
        Refused: which of them it is.
    """
    if request.method not in _WITH_BODY and (
        request.content_length or "Transfer-Encoding" in request.headers
    ):
        raise Refused(400, "http", f"a {request.method} has no body here", close=True)
    for name in _NUMBERS:
        for text in request.args.getlist(name):
            if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
                raise Refused(
                    400, "http", f"found {text[:40]!r} as {name} in the address, expected a whole number",
                    "a version is counted from 0",
                )  # fmt: skip
    for name, value in (request.view_args or {}).items():
        if isinstance(value, int) and value >= 10**18:
            raise Refused(400, "http", f"the {name} in the address has too many digits, expected at most 18")


async def read_body(limit: int, seconds: float) -> bytes:
    """A small body, whole.

    Raises:
        Refused: over `limit`, no length announced, or not in within `seconds`.
        WireError: another length than announced.
    """
    length = _length(limit)
    buffer = bytearray()
    await _read(length, seconds, buffer.extend)
    return bytes(buffer)


async def read_vector(limit: int, seconds: float, crowded: Callable[[], bool] = lambda: False) -> memoryview:
    """A masked vector's body, placed so that its words are aligned: numpy is slow on others.

    Memory is taken as bytes arrive, not as they are announced. While it is `crowded`, one that is too slow
    to be in within `seconds` is not waited for as long as that.

    Raises: as `read_body`.
    """
    length = _length(limit)
    head, buffer, start = b"", bytearray(), -1

    def place(chunk: bytes) -> None:
        nonlocal head, start
        if start < 0:
            head += chunk
            if len(head) < 4:
                return
            chunk, start = head, -(4 + struct.unpack("<I", head[:4])[0]) % 8
            buffer.extend(bytes(start))
        buffer.extend(chunk)

    await _read(length, seconds, place, crowded)
    return memoryview(buffer)[start:] if start >= 0 else memoryview(head)


async def _read(
    length: int,
    seconds: float,
    take: Callable[[bytes], None],
    crowded: Callable[[], bool] = lambda: False,
) -> None:
    clock = asyncio.get_running_loop().time
    began, got = clock(), 0
    pieces = aiter(request.body)
    while True:
        spent = clock() - began
        late = spent > seconds * _PATIENT and got * seconds < length * spent and crowded()
        if late or spent >= seconds:
            raise Refused(
                408, "too-slow", f"{got} of {length} bytes came in {spent:.3g} s, there are {seconds:.3g} s"
            )
        try:
            async with asyncio.timeout(min(seconds - spent, max(_LOOK, seconds * _PATIENT - spent))):
                chunk = await anext(pieces, b"")
        except TimeoutError:
            continue
        got += len(chunk)
        if not chunk or got > length:
            break
        take(chunk)
    if got != length:
        raise WireError(f"a body of {got} bytes was announced as {length}")


def _length(limit: int) -> int:
    length = request.content_length
    if length is None:
        raise Refused(411, "length-required", "the request announces no Content-Length")
    if length > limit:
        raise Refused(
            413, "too-large", f"a body of {length} bytes, at most {limit} are taken here",
            "member and aggregator disagree on the size of the model",
        )  # fmt: skip
    return length
