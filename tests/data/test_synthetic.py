"""Synthetic digits: the same everywhere, balanced, learnable, and different from hand to hand."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from choral.data import synthetic_digits
from choral.errors import ParameterError


@pytest.mark.parametrize(
    ("arguments", "digest"),
    [
        ({"n": 500, "seed": 7}, "80d4ddfbddc56d4b52bc285e6bcef0c3934ad418ba0ef4577e27bae1e30e7aca"),
        (
            {"n": 203, "seed": 3, "style": 5, "hard": 1.3},
            "47f1acf5b03578c394299fc61e0f740a29f0ad732371e4ca5b1d7b585df9352d",
        ),
        ({"n": 20, "seed": 0, "hard": 0}, "1145850396396d026bf306d9fe88042d92d3a0b991710d6b1f0c9bcf4d9f72e3"),
    ],
)
def test_a_seed_means_the_same_bytes_on_every_machine(arguments, digest):
    x, y = synthetic_digits(**arguments)
    assert hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() == digest


@pytest.mark.parametrize("n", [1, 9, 100, 203])
@pytest.mark.parametrize("style", [None, 4])
def test_labels_are_balanced_to_within_one_and_shuffled(n, style):
    x, y = synthetic_digits(n, seed=1, style=style)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((n, 784), np.uint8, (n,), np.uint8)
    counts = np.bincount(y, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert n < 100 or (np.diff(y.astype(int)) < 0).sum() > n // 4


def test_seeds_and_styles_change_the_images():
    variants = [
        synthetic_digits(10, seed=seed, style=style)[0].tobytes() for seed in (0, 1) for style in (None, 0, 1)
    ]
    assert len(set(variants)) == len(variants)


def nearest_mean(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    means = np.stack([x[y == label].mean(axis=0, dtype=np.float64) for label in range(10)])
    return ((new[:, None, :] - means) ** 2).sum(axis=2).argmin(axis=1)


def test_nearest_mean_finds_them_neither_trivial_nor_hopeless():
    x, y = synthetic_digits(1200, seed=0)
    accuracy = (nearest_mean(x[:900], y[:900], x[900:]) == y[900:]).mean()
    assert 0.78 < accuracy < 0.93


def test_harder_is_harder():
    scores = []
    for hard in (0.2, 0.8, 1.6):
        x, y = synthetic_digits(900, seed=2, hard=hard)
        scores.append((nearest_mean(x[:600], y[:600], x[600:]) == y[600:]).mean())
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.97


def test_a_writer_is_more_like_himself_than_like_another():
    def mean(seed: int, style: int) -> np.ndarray:
        x, y = synthetic_digits(400, seed=seed, style=style)
        return np.stack([x[y == label].mean(axis=0) for label in range(10)])

    same = np.abs(mean(1, style=1) - mean(2, style=1)).mean()
    other = np.abs(mean(1, style=1) - mean(2, style=2)).mean()
    assert other > 1.5 * same


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0, "seed": 0},
        {"n": 5, "seed": -1},
        {"n": 5, "seed": 0, "style": -1},
        {"n": 5, "seed": 0, "hard": -0.1},
        {"n": 5, "seed": 0, "hard": 3},
        {"n": 5, "seed": 0, "hard": float("nan")},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ParameterError, match="expected n from 1"):
        synthetic_digits(**arguments)
