"""Real handwriting that comes with the package: 1,797 digits of 8x8 pixels.

The test part of E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits* (UCI,
doi 10.24432/C50P49), CC BY 4.0: see digits.LICENSE.txt beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from choral.data import shard

_FILE = Path(__file__).with_name("digits.npy")


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """X (1797, 64) float32 in [0, 1], rows of 8x8 images; y (1797,) uint8, 0 to 9.

    The ink of a pixel, 0 to 16 in the data set, is divided by 16.
    """
    digits = shard.load(_FILE, features=64, classes=10)
    return np.divide(digits.images, np.float32(16), dtype=np.float32), digits.labels.copy()
