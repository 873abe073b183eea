"""Masks: AES-128-CTR keystreams added into a vector, block by block while it is in the cache (PROTOCOL §3.5).

The one hot loop of Choral. A 32-byte seed is key (16) and initial counter block (16). A stream first
runs over the main segment (`uint32[d]`), then on over the auxiliary segment (`uint64[a]`), little-endian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

BLOCK_BYTES = 256 * 1024
_GROUP = 64  # ciphers open at once: their key schedules must not push the block out of the cache
_THREAD_BYTES = 4 * BLOCK_BYTES  # a thread with less than this to do costs more than it brings

Main = NDArray[np.uint32]
Aux = NDArray[np.uint64]


class Stream(NamedTuple):
    """One keystream to add (`sign=1`) or subtract (`sign=-1`)."""

    seed: bytes
    sign: int


def add_keystreams(main: Main, aux: Aux, streams: Sequence[Stream], *, threads: int = 1) -> None:
    """Add every stream into `main` (uint32[d]) and `aux` (uint64[a]), in place, modulo 2^32 and 2^64.

    Both must be contiguous. Time is O(len(streams) * d), extra memory one block a thread; the
    interpreter lock is not held in the loop's two calls.
    """
    parts = max(1, min(threads, main.nbytes // _THREAD_BYTES))
    step = -(-len(main) // parts)
    step += -step % (BLOCK_BYTES // 4)  # whole blocks, so that a counter can be started there
    cuts = [(lo, min(lo + step, len(main))) for lo in range(0, len(main), step)] or [(0, 0)]
    if len(cuts) == 1:
        _add_part(main, aux, streams, *cuts[0])
        return
    with ThreadPoolExecutor(len(cuts)) as pool:
        for done in [pool.submit(_add_part, main, aux, streams, lo, hi) for lo, hi in cuts]:
            done.result()


def _add_part(main: Main, aux: Aux, streams: Sequence[Stream], lo: int, hi: int) -> None:
    """Words `lo` to `hi` of the main segment; whoever has its end goes on with the auxiliary one."""
    zeros = memoryview(bytes(BLOCK_BYTES))
    key = np.empty(BLOCK_BYTES + 16, np.uint8)  # update_into wants room for a block more
    room: memoryview = key.data
    per_block = BLOCK_BYTES // 4
    pieces: list[tuple[Any, int]] = [
        (main[at : min(at + per_block, hi)], 4) for at in range(lo, hi, per_block)
    ]
    if hi == len(main):
        per_block = BLOCK_BYTES // 8
        pieces += [(aux[at : at + per_block], 8) for at in range(0, len(aux), per_block)]
    views = {4: key[:BLOCK_BYTES].view("<u4"), 8: key[:BLOCK_BYTES].view("<u8")}
    for first in range(0, len(streams), _GROUP):
        opened = [
            (_keystream(seed, lo // 4), np.add if sign > 0 else np.subtract)
            for seed, sign in streams[first : first + _GROUP]
        ]
        for piece, width in pieces:
            words = views[width][: len(piece)]
            nothing = zeros[: len(piece) * width]
            for expand_into, combine in opened:
                expand_into(nothing, room)
                combine(piece, words, piece)


def _keystream(seed: bytes, skip: int) -> Callable[[memoryview, memoryview], int]:
    """`update_into` of a fresh AES-128-CTR, `skip` 16-byte blocks into its stream (NIST SP 800-38A)."""
    counter = (int.from_bytes(seed[16:], "big") + skip) % 2**128
    mode = CTR(counter.to_bytes(16, "big"))
    return Cipher(AES(seed[:16]), mode).encryptor().update_into
