"""From float updates to integers modulo 2^32 and back, with no way for a sum to wrap (PROTOCOL §6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from choral.errors import ParameterError, UpdateError

LARGEST_COHORT = 256
METRIC_BITS = 20  # fractional bits of a metric total
_BLOCK = 32 * 1024  # float64 scratch of 256 KiB stays in the cache


@dataclass(frozen=True)
class RingPlan:
    """How a weighted update becomes integers (§6.2, §6.3), fixed for a task.

    Attributes:
        n_max: largest cohort whose sum must not wrap.
        clip: coordinates are clipped to [-clip, clip] (the specification's R).
        weight_cap: largest weight a member can have, in examples.

    Raises:
        ParameterError: values that leave no head-room or make no sense.
    """

    n_max: int
    clip: float
    weight_cap: int

    def __post_init__(self) -> None:
        if not 2 <= self.n_max <= LARGEST_COHORT:
            raise ParameterError(
                f"the largest cohort is {self.n_max}, expected 2 to {LARGEST_COHORT}",
                hint="larger federations run several cohorts side by side",
            )
        if not (math.isfinite(self.clip) and self.clip > 0 and self.limit > 0):
            raise ParameterError(f"the clipping range is {self.clip}, expected a positive number")
        if not 1 <= self.weight_cap <= 2**32:
            raise ParameterError(f"the weight cap is {self.weight_cap}, expected 1 to 2^32")

    @cached_property
    def bits(self) -> int:
        """Width of one member's integer, sign included: n_max of them fit 32 bits (§6.2)."""
        return math.floor(math.log2((2**31 - 1) // self.n_max + 1)) + 1

    @cached_property
    def largest(self) -> int:
        """Largest magnitude of one member's integer."""
        return int(2 ** (self.bits - 1) - 1)

    @cached_property
    def limit(self) -> np.float32:
        """The largest float32 that is not above `clip`: rounded up, it would not fit `bits`."""
        nearest = np.float32(min(self.clip, float(np.finfo(np.float32).max)))
        return nearest if float(nearest) <= self.clip else np.nextafter(nearest, np.float32(0))

    @cached_property
    def step(self) -> float:
        """What one unit of the integer stands for, at full weight."""
        return self.clip / self.largest

    def error_bound(self, members: int, weight_sum: int) -> float:
        """Largest error of a coordinate of the decoded mean, float32 rounding aside (§6.4)."""
        return self.step / 2 * self.weight_cap * members / weight_sum


class Encoded(NamedTuple):
    vector: NDArray[np.uint32]
    clipped: int


def encode(
    delta: NDArray[np.float32], weight: int, plan: RingPlan, *, into: NDArray[np.uint32] | None = None
) -> Encoded:
    """Weighted fixed-point integers of an update (§6.3).

    Args:
        delta: float32[d].
        weight: number of examples; above `plan.weight_cap` it counts as the cap.
        into: where the integers go, uint32[d]; it may be the memory of `delta`, which is then used up.

    Returns:
        uint32[d] (two's complement) and how many coordinates were clipped.

    Raises:
        UpdateError: NaN or infinity, with its coordinate.
        ParameterError: a weight below 1.
    """
    if weight < 1:
        raise ParameterError(f"an update's weight is {weight}, expected at least 1 example")
    factor = min(weight, plan.weight_cap) / plan.weight_cap / plan.step
    vector = np.empty(len(delta), np.uint32) if into is None else into
    signed = vector.view(np.int32)
    scratch = np.empty(min(len(delta), _BLOCK), np.float64)
    clipped = 0
    for at in range(0, len(delta), _BLOCK):
        block = delta[at : at + _BLOCK]
        # float64: a float32 product has 24 bits, fewer than a small cohort's integers
        work = scratch[: len(block)]
        # not (inside) is also true of NaN, which compares false
        if not (block.max() <= plan.limit and block.min() >= -plan.limit):
            if not np.isfinite(block).all():
                where = at + int(np.flatnonzero(~np.isfinite(block))[0])
                raise UpdateError(
                    f"coordinate {where} of the update is {delta[where]}, expected a finite number",
                    hint="lower the learning rate: local training diverged",
                )
            clipped += int(np.count_nonzero(np.abs(block) > plan.limit))
            block = np.clip(block, -plan.limit, plan.limit)
        np.multiply(block, factor, out=work, dtype=np.float64)
        np.rint(work, out=work)
        signed[at : at + len(block)] = work
    return Encoded(vector, clipped)


def decode(total: NDArray[np.uint32], weight_sum: int, plan: RingPlan) -> NDArray[np.float32]:
    """The weighted mean, float32[d], from the sum of `encode`d vectors (§6.4).

    Raises:
        ParameterError: a sum of weights below 1.
    """
    if weight_sum < 1:
        raise ParameterError(f"the sum of weights is {weight_sum}, expected at least 1")
    mean = np.empty(len(total), np.float32)
    np.multiply(total.view(np.int32), plan.step * plan.weight_cap / weight_sum, out=mean, casting="unsafe")
    return mean


def to_fixed(value: float) -> int:
    """A metric as an integer modulo 2^64 with 20 fractional bits (§6.1).

    Raises:
        UpdateError: not finite, or too large for the sum of a cohort.
    """
    if not (math.isfinite(value) and abs(value) < 2.0**63 / 2**METRIC_BITS / LARGEST_COHORT):
        raise UpdateError(f"a metric total is {value}, expected a finite number of moderate size")
    return int(round(value * 2**METRIC_BITS) % 2**64)


def from_fixed(word: int) -> float:
    """The signed value of a (sum of) `to_fixed`."""
    return float((word - 2**64 if word >= 2**63 else word) / 2**METRIC_BITS)
