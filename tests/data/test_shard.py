# ruff: noqa: N803, N806  (X is what a matrix of images is called everywhere)
"""A shard survives the round trip, and opens without a copy."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.data import Shard, load_shard, save_shard
from choral.data.examples import floats
from choral.errors import ShardError

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9)
FLOATS = hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?")
# one directory serves all examples of a property: each writes over the last one's file
one_directory = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def finite(dtype: np.dtype) -> st.SearchStrategy:
    width = min(32, dtype.itemsize * 8)
    return st.floats(-1000, 1000, width=width)


@one_directory
@given(X=hnp.arrays(np.uint8, SHAPES), data=st.data())
def test_uint8_images_come_back_bit_for_bit_and_train_in_0_to_1(tmp_path, X, data):
    y = data.draw(hnp.arrays(np.int64, len(X), elements=st.integers(0, 255)))
    shard = load_shard(save_shard(tmp_path / "a.npy", X, y))
    np.testing.assert_array_equal(shard.images, X.reshape(len(X), -1))
    np.testing.assert_array_equal(shard.labels, y)
    x, labels = shard.arrays()
    assert (x.dtype, labels.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(x, X.reshape(len(X), -1).astype(np.float32) / np.float32(255))


@one_directory
@given(data=st.data(), dtype=FLOATS, shape=SHAPES)
def test_floats_come_back_as_float32_and_unscaled(tmp_path, data, dtype, shape):
    X = data.draw(hnp.arrays(dtype, shape, elements=finite(dtype)))
    y = np.arange(len(X))
    shard = load_shard(save_shard(tmp_path / "a.npy", X, y))
    assert shard.images.dtype.str == "<f4"
    expected = X.reshape(len(X), -1).astype(np.float32)
    np.testing.assert_array_equal(shard.images, expected)
    np.testing.assert_array_equal(shard.arrays()[0], expected)


def sample(n: int = 20, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, d), dtype=np.uint8), np.arange(n) % 10


@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_a_shard_is_the_documented_dtype_for_any_reader_of_npy(tmp_path, kind):
    X, y = sample()
    path = save_shard(tmp_path / "a.npy", X.astype(kind), y)
    expected = np.dtype([("image", kind, (6,)), ("label", "u1")], align=True)
    assert np.load(path, allow_pickle=False).dtype == expected


def test_numpy_save_of_the_documented_dtype_is_a_shard(tmp_path):
    X, y = sample()
    records = np.zeros(20, np.dtype([("image", "<f4", (6,)), ("label", "u1")], align=True))
    records["image"], records["label"] = X, y
    np.save(tmp_path / "a.npy", records)
    np.testing.assert_array_equal(load_shard(tmp_path / "a.npy", features=6).images, X)


@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_images_are_mapped_read_only_and_arrays_are_fresh(tmp_path, kind):
    X, y = sample()
    shard = load_shard(save_shard(tmp_path / "a.npy", X.astype(kind), y))
    assert isinstance(shard, Shard)
    assert len(shard) == 20
    assert not shard.images.flags.owndata
    assert not shard.images.flags.writeable
    assert not shard.labels.flags.writeable
    for mine in shard.arrays():
        assert mine.flags.writeable
        assert mine.flags.c_contiguous
        mine[:] = 0
    np.testing.assert_array_equal(shard.images, X)
    np.testing.assert_array_equal(shard.labels, y)


def test_the_same_arrays_make_the_same_file(tmp_path):
    X, y = sample(5000, 7)
    one = save_shard(tmp_path / "a.npy", X.astype(np.float64), y).read_bytes()
    two = save_shard(tmp_path / "b.npy", X.astype(np.float32), y).read_bytes()
    assert one == two


def test_describe_measures_what_is_stored(tmp_path):
    path = save_shard(tmp_path / "a.npy", np.array([[0, 10], [20, 250]], np.uint8), [3, 3])
    summary = load_shard(path).describe()
    assert (summary.records, summary.features, summary.dtype) == (2, 2, "u1")
    assert summary.labels == {3: 2}
    assert (summary.minimum, summary.maximum, summary.mean) == (0, 250, 70)
    assert summary.bytes == path.stat().st_size


def test_describe_agrees_with_numpy_over_many_blocks(tmp_path):
    X = np.random.default_rng(1).normal(size=(3000, 300)).astype(np.float32)
    summary = load_shard(save_shard(tmp_path / "a.npy", X, np.zeros(3000, int))).describe()
    assert summary.dtype == "f4"
    assert (summary.minimum, summary.maximum) == (X.min(), X.max())
    assert summary.mean == pytest.approx(X.mean(dtype=np.float64))


def test_a_failed_save_leaves_the_old_shard_and_no_litter(tmp_path):
    X, y = sample()
    path = save_shard(tmp_path / "a.npy", X, y)
    before = path.read_bytes()
    spoiled = X.astype(float)
    spoiled[-1, -1] = np.nan
    with pytest.raises(ShardError, match="record 19, value 5"):
        save_shard(path, spoiled, y)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_shard_is_readable_by_others_as_any_new_file_is(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    path = save_shard(tmp_path / "a.npy", *sample())
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


X2 = np.zeros((2, 4), np.uint8)


@pytest.mark.parametrize(
    ("X", "y", "found"),
    [
        (X2, [0], "2 images and 1 labels"),
        (X2, [0, 256], "labels 0 to 256"),
        (X2, [-1, 3], "labels -1 to 3"),
        (X2.astype(np.int64), [0, 1], "X of type int64"),
        (X2.astype(bool), [0, 1], "X of type bool"),
        (X2.astype(object), [0, 1], "X of type object"),
        (X2.astype(complex), [0, 1], "X of type complex128"),
        (np.zeros(2), [0, 1], r"X of shape \(2,\)"),
        (np.zeros((2, 2, 2, 1)), [0, 1], r"X of shape \(2, 2, 2, 1\)"),
        (np.zeros((0, 4)), [], r"X of shape \(0, 4\)"),
        (np.zeros((2, 0)), [0, 1], r"X of shape \(2, 0\)"),
        (np.full((2, 4), np.nan), [0, 1], "nan in record 0, value 0"),
        (np.full((2, 4), -np.inf), [0, 1], "-inf in record 0"),
        (np.full((2, 4), 1e300), [0, 1], "inf in record 0"),
    ],
)
def test_save_refuses(tmp_path, X, y, found):
    with pytest.raises(ShardError, match=found) as caught:
        save_shard(tmp_path / "a.npy", X, y if len(y) else np.zeros(0, int))
    assert str(tmp_path / "a.npy") in str(caught.value)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_save_into_no_directory_says_so(tmp_path):
    with pytest.raises(ShardError, match="cannot be written"):
        save_shard(tmp_path / "absent" / "a.npy", *sample())


def test_paths_may_be_strings(tmp_path):
    path = save_shard(str(tmp_path / "a.npy"), *sample())
    assert path == Path(tmp_path / "a.npy")
    assert load_shard(str(path)).path == path


def test_one_conversion_makes_numbers_of_pixels(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    shard = load_shard(save_shard(tmp_path / "a.npy", pixels, [0, 1, 2, 3]))
    np.testing.assert_array_equal(shard.arrays()[0], floats(pixels))
    np.testing.assert_array_equal(floats(pixels), (pixels / np.float32(255)).astype(np.float32))
    numbers = np.ones((2, 3), np.float32)
    assert floats(numbers) is numbers
    assert floats(numbers.astype(np.float64)).dtype == np.float32
