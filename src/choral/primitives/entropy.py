"""Where random bytes come from (PROTOCOL §3.7): always an argument, so that any run can be replayed."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives import hashes

RandomBytes = Callable[[int], bytes]
"""Takes a count, returns that many random bytes."""


def seeded(seed: bytes) -> RandomBytes:
    """A replayable source for tests, vectors and simulations: SHAKE-256 of the seed, read on and on.

    Never for a real participant: whoever knows the seed knows every key.
    """
    xof = hashes.XOFHash(hashes.SHAKE256(digest_size=2**31 - 1))
    xof.update(seed)
    return xof.squeeze
