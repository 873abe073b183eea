"""Wrong shares corrected: Shamir's shares are a Reed-Solomon codeword (McEliece, Sarwate, CACM 1981).

The decoder is that of S. Gao, *A new algorithm for decoding Reed-Solomon codes* (2003): interpolate through
everything, then run Euclid's algorithm half way. Of r shares it corrects (r - t) / 2 wrong ones, which is
as far as one answer is sure to be the only one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from choral.primitives.shamir import PRIME, inverse

Polynomial = list[int]  # coefficients below PRIME, the constant first, the last one not zero


def decode(points: Mapping[int, int], t: int) -> Polynomial | None:
    """The polynomial of degree < t on which all but at most (r - t) / 2 of r points lie, or None.

    Args:
        points: values below PRIME by index; an index is a small positive number.
    """
    if len(points) < t:
        return None
    g0 = _vanishing(tuple(points))
    g1 = _interpolate(list(points), list(points.values()))
    # invariant: a = _ * g0 + u * g1 and b = _ * g0 + v * g1
    a, b, u, v = g0, g1, [], [1]
    while 2 * (len(b) - 1) >= len(points) + t:
        quotient, remainder = _divide(a, b)
        a, b, u, v = b, remainder, v, _less(u, _times(quotient, v))
    found, rest = _divide(b, v)
    return found if not rest and len(found) <= t else None


def value(polynomial: Polynomial, at: int) -> int:
    """Horner's rule."""
    result = 0
    for coefficient in reversed(polynomial):
        result = (result * at + coefficient) % PRIME
    return result


@functools.lru_cache(maxsize=8)
def _vanishing(indices: tuple[int, ...]) -> Polynomial:
    """The product of all x - i: the same for every secret of one set of holders."""
    product = [1]
    for index in indices:
        product = _shift(product, index)
    return product


def _interpolate(indices: Sequence[int], values: Sequence[int]) -> Polynomial:
    """Newton's divided differences, then powers of x."""
    differences = list(values)
    for order in range(1, len(indices)):
        for at in range(len(indices) - 1, order - 1, -1):
            step = differences[at] - differences[at - 1]
            differences[at] = step * inverse(indices[at] - indices[at - order]) % PRIME
    result: Polynomial = []
    for index, difference in zip(reversed(indices), reversed(differences), strict=True):
        result = _shift(result, index) or [0]
        result[0] = (result[0] + difference) % PRIME
    return _trimmed(result)


def _shift(polynomial: Polynomial, root: int) -> Polynomial:
    """(x - root) times the polynomial."""
    return [
        (below - root * here) % PRIME for below, here in zip([0, *polynomial], [*polynomial, 0], strict=True)
    ]


def _times(one: Polynomial, other: Polynomial) -> Polynomial:
    result = [0] * max(len(one) + len(other) - 1, 0)
    for shift, factor in enumerate(one):
        for at, coefficient in enumerate(other, shift):
            result[at] += factor * coefficient
    return _trimmed([entry % PRIME for entry in result])


def _less(one: Polynomial, other: Polynomial) -> Polynomial:
    length = max(len(one), len(other))
    pad = [*one, *[0] * (length - len(one))], [*other, *[0] * (length - len(other))]
    return _trimmed([(a - b) % PRIME for a, b in zip(*pad, strict=True)])


def _divide(dividend: Polynomial, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Quotient and remainder; the divisor is not zero."""
    rest = list(dividend)
    quotient = [0] * max(len(rest) - len(divisor) + 1, 0)
    lead = pow(divisor[-1], -1, PRIME)
    for shift in range(len(quotient) - 1, -1, -1):
        factor = quotient[shift] = rest[shift + len(divisor) - 1] * lead % PRIME
        for at, coefficient in enumerate(divisor, shift):
            rest[at] = (rest[at] - factor * coefficient) % PRIME
    return _trimmed(quotient), _trimmed(rest)


def _trimmed(polynomial: Polynomial) -> Polynomial:
    while polynomial and not polynomial[-1]:
        polynomial.pop()
    return polynomial
