"""What a vector of the ring looks like, in 32 numbers: of a masked one nothing but its length can be told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 32
_SAMPLE = 1 << 20  # coordinates that are looked at: enough to see a shape, milliseconds in a large model


def histogram(vector: NDArray[np.uint32]) -> list[int]:
    """How many coordinates lie in each of 32 equal parts of the ring, read as signed, from -2^31 up."""
    parts = (vector[:_SAMPLE] >> np.uint32(27)) ^ np.uint32(16)
    return [int(count) for count in np.bincount(parts, minlength=BINS)]


def close_up(vector: NDArray[np.uint32]) -> list[int]:
    """The same over 32 equal parts of the range that the coordinates really use."""
    signed = vector[:_SAMPLE].view(np.int32)
    limit = max(1, abs(int(signed.min())), int(signed.max()))
    return [int(count) for count in np.histogram(signed, BINS, (-limit, limit))[0]]
