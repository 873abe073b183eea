"""The embedded handwriting is the published one, byte for byte."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from choral.data import load_digits


def test_the_embedded_file_is_the_one_that_was_checked_in():
    content = (resources.files("choral.data") / "digits.npy").read_bytes()
    expected = "0932d1254618464e83e8f2a07ee51aa2bdd7e1f8404aa59285b4066ed2d0927a"
    assert hashlib.sha256(content).hexdigest() == expected


def test_digits_are_the_1797_published_ones_between_0_and_1():
    x, y = load_digits()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((1797, 64), np.float32, (1797,), np.uint8)
    assert (x.min(), x.max()) == (0, 1)
    assert np.array_equal(x * 16, np.rint(x * 16))
    # the class counts that the data set's description gives for its test part
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_attribution_travels_with_the_data():
    text = (resources.files("choral.data") / "digits.LICENSE.txt").read_text(encoding="utf-8")
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert word in text


def test_a_caller_may_write_into_its_digits():
    x, y = load_digits()
    x[:], y[:] = 0, 0
    assert load_digits()[0].any()
