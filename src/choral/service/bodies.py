"""Request bodies: their length is checked before a byte of them is read, and slow ones are cut off (§7)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from quart import request

from choral.errors import WireError
from choral.service.problems import Refused


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


async def read_vector(limit: int, seconds: float) -> memoryview:
    """A masked vector's body, placed so that its words are aligned: numpy is slow on others.

    Raises: as `read_body`.
    """
    length = _length(limit)
    buffer, at, start = bytearray(length + 8), 0, 0

    def place(chunk: bytes) -> None:
        nonlocal at, start
        if at == 0 and len(chunk) >= 4:
            start = -(4 + struct.unpack("<I", chunk[:4])[0]) % 8
        buffer[start + at : start + at + len(chunk)] = chunk
        at += len(chunk)

    await _read(length, seconds, place)
    return memoryview(buffer)[start : start + length]


async def _read(length: int, seconds: float, take: Callable[[bytes], None]) -> None:
    got = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.body:
                got += len(chunk)
                if got > length:
                    break
                take(chunk)
    except TimeoutError:
        raise Refused(408, "too-slow", f"{got} of {length} bytes came in {seconds:g} s") from None
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
