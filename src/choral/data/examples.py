"""Labelled examples in memory, and the one way from pixels to numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Examples(NamedTuple):
    """X (n, features) float32, or uint8 pixels for value / 255; y integer (n,).

    As a shard has them: making one reads, copies and converts nothing.
    """

    X: NDArray[Any]
    y: NDArray[Any]


def floats(images: NDArray[Any]) -> NDArray[np.float32]:
    """float32 numbers: pixels divided by 255, anything else as it is, and not copied if it is float32.

    >>> floats(np.array([0, 51, 255], np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """
    if images.dtype == np.uint8:
        images = np.divide(images, np.float32(255), dtype=np.float32)
    return images.astype(np.float32, copy=False)
