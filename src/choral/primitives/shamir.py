"""Shamir's secret sharing over the prime field of 2^256 - 189 (PROTOCOL §3.6; Shamir, CACM 1979).

Secrets and shares are 32 bytes, little-endian. A share's index is 1-based and public.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from choral.errors import ParameterError
from choral.primitives.entropy import RandomBytes

PRIME = 2**256 - 189
BYTES = 32


def draw(random: RandomBytes) -> int:
    """A uniform field element: 32 random bytes, drawn again when not below the prime."""
    while (value := int.from_bytes(random(BYTES), "little")) >= PRIME:
        pass
    return value


def split(secret: bytes, n: int, t: int, random: RandomBytes) -> list[bytes]:
    """`n` shares of which any `t` give the secret back and any `t - 1` say nothing about it.

    Raises:
        ParameterError: not 1 <= t <= n, or a secret that is not a field element.
    """
    if not 1 <= t <= n:
        raise ParameterError(f"a threshold of {t} shares out of {n} cannot be met")
    value = int.from_bytes(secret, "little")
    if len(secret) != BYTES or value >= PRIME:
        raise ParameterError("a secret to be shared is 32 bytes that are below 2^256 - 189")
    coefficients = [draw(random) for _ in range(t - 1)]
    shares = []
    for x in range(1, n + 1):
        y = 0
        for coefficient in reversed(coefficients):
            y = (y + coefficient) * x % PRIME
        shares.append(((y + value) % PRIME).to_bytes(BYTES, "little"))
    return shares


def coefficients(indices: Sequence[int], at: int = 0) -> list[int]:
    """Lagrange coefficients for reading a polynomial at `at` from its values at `indices`.

    Computed once for a set of share holders, used for every secret they hold shares of.

    Raises:
        ParameterError: an index repeats, or is not positive.
    """
    return lines(indices, [at])[0]


def lines(indices: Sequence[int], places: Sequence[int]) -> list[list[int]]:
    """`coefficients` for many places, for little more than for one (the barycentric form).

    Raises:
        ParameterError: an index repeats, or is not positive.
    """
    if len(set(indices)) != len(indices):
        raise ParameterError("the same share index was given twice")
    if any(not 0 < index < PRIME for index in indices):
        raise ParameterError("share indices start at 1")
    weights = []
    for i in indices:
        weight = 1
        for j in indices:
            if j != i:
                weight = weight * (i - j) % PRIME
        weights.append(pow(weight, -1, PRIME))
    result = []
    for at in places:
        whole = 1
        for j in indices:
            whole = whole * (at - j) % PRIME
        result.append(
            [whole * w % PRIME * inverse(at - i) % PRIME for w, i in zip(weights, indices, strict=True)]
            if whole
            else [int(i == at) for i in indices]
        )
    return result


@functools.lru_cache(maxsize=1 << 12)
def inverse(difference: int) -> int:
    """Of a difference of two indices, modulo the prime: there are few of them, and they come often."""
    return pow(difference, -1, PRIME)


def evaluate(weights: Sequence[int], shares: Sequence[bytes]) -> bytes:
    """The value (32 bytes) that `coefficients` read from `shares`, given in the same order."""
    total = sum(w * int.from_bytes(share, "little") for w, share in zip(weights, shares, strict=True))
    return (total % PRIME).to_bytes(BYTES, "little")


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from exactly `t` shares by index. A wrong share gives a wrong secret, silently."""
    return evaluate(coefficients(list(shares)), list(shares.values()))
