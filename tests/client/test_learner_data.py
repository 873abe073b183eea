"""What a trainer is handed: uint8 as it lies on disk if it takes pixels, else floats from 0 to 1."""

import numpy as np
import pytest

from choral.client.learner import _hold_out
from choral.data.examples import Examples
from choral.errors import ParameterError

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6), dtype=np.uint8)
LABELS = np.arange(50) % 5


def test_the_two_parts_hold_every_example_once_and_the_same_ones_every_time():
    training, held_out = _hold_out(Examples(PIXELS, LABELS), 0.2, 3, pixels=True)
    assert (len(training.y), len(held_out.y)) == (40, 10)
    together = np.concatenate([training.X, held_out.X])
    assert sorted(map(bytes, together)) == sorted(map(bytes, PIXELS))
    again, _ = _hold_out(Examples(PIXELS, LABELS), 0.2, 3, pixels=True)
    np.testing.assert_array_equal(training.X, again.X)


def test_pixels_are_converted_only_for_a_trainer_that_does_not_take_them():
    as_stored = _hold_out(Examples(PIXELS, LABELS), 0.2, 3, pixels=True)
    converted = _hold_out(Examples(PIXELS, LABELS), 0.2, 3, pixels=False)
    for stored, floats in zip(as_stored, converted, strict=True):
        assert (stored.X.dtype, floats.X.dtype) == (np.uint8, np.float32)
        np.testing.assert_array_equal(floats.X, stored.X / np.float32(255))


def test_a_holdout_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ParameterError, match="leave none to train on"):
        _hold_out(Examples(PIXELS[:0], LABELS[:0]), 0.5, 0, pixels=True)
