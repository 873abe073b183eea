"""Masking against its limit, and the fixed-point encoding (PROTOCOL §3.5, §6.3)."""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from choral.primitives.keystream import BLOCK_BYTES, Stream, add_keystreams
from choral.vectors.fixed_point import RingPlan, decode, encode
from figures import Figure, ratio, repeated, timed

MEMBERS = 10


def mask_over_limit(d: int, times: int) -> tuple[Figure, float]:
    """`add_keystreams` for one member of ten over the limit, and nanoseconds a parameter and stream.

    The limit: the same number of AES-128-CTR keystreams, each block generated and added once, in the
    same block size, in the barest loop there is. Key agreement is not in either: it does not grow with d.
    """
    streams = [Stream(os.urandom(32), 1 if i % 2 else -1) for i in range(MEMBERS)]
    main, auxiliary = np.zeros(d, np.uint32), np.zeros(6, np.uint64)

    def product() -> None:
        add_keystreams(main, auxiliary, streams)

    zeros = memoryview(bytes(BLOCK_BYTES))
    room = np.empty(BLOCK_BYTES + 16, np.uint8)
    words, view = room[:BLOCK_BYTES].view("<u4"), memoryview(room)
    step = BLOCK_BYTES // 4

    def limit() -> None:
        ciphers = [Cipher(AES(seed[:16]), CTR(seed[16:])).encryptor().update_into for seed, _ in streams]
        for at in range(0, d, step):
            piece = main[at : at + step]
            nothing, key = zeros[: piece.nbytes], words[: len(piece)]
            for expand_into in ciphers:
                expand_into(nothing, view)
                np.add(piece, key, piece)

    found = ratio(product, limit, times)
    return found, timed(product) / d / MEMBERS * 1e9


def encode_decode_ns(d: int, times: int) -> Figure:
    """Encode plus decode, nanoseconds a parameter."""
    plan = RingPlan(MEMBERS, 8.0, 1000)
    update = np.random.default_rng(0).normal(0, 0.1, d).astype(np.float32)

    def once() -> float:
        return timed(lambda: decode(encode(update, 900, plan).vector, 900, plan)) / d * 1e9

    once()
    return repeated(once, times)
