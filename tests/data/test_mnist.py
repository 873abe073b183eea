# ruff: noqa: N803, N806  (X is a matrix)
"""IDX files, plain and gzipped: what is right comes through, what python-mnist would let through does not."""

import gzip
import os
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from choral.cli.data import data
from choral.data import load_shard
from choral.data.mnist import load, load_both
from choral.errors import ParameterError, ShardError

one_directory = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REAL = os.environ.get("CHORAL_MNIST")


@pytest.fixture
def parser():
    module = pytest.importorskip("mnist", reason="python-mnist is not installed: pip install choral[mnist]")
    if not hasattr(module, "MNIST"):
        pytest.skip("another package called mnist is installed")


def images(count=20, rows=3, columns=4):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, rows, columns), dtype=np.uint8), (np.arange(count) % 10).astype(
        np.uint8
    )


def write(folder, part, X, y, *, gz=False, dash="-", magic=(2051, 2049), claim=None, cut=0, more=b""):
    count = len(X) if claim is None else claim
    pixels = struct.pack(">4I", magic[0], count, *X.shape[1:]) + X.tobytes() + more
    labels = struct.pack(">2I", magic[1], len(y)) + y.tobytes()
    for name, content in ((f"images{dash}idx3", pixels[: len(pixels) - cut]), (f"labels{dash}idx1", labels)):
        path = folder / f"{part}-{name}-ubyte{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(content) if gz else content)
    return folder


@pytest.mark.usefixtures("parser")
class TestFiles:
    @pytest.mark.parametrize("gz", [False, True])
    @pytest.mark.parametrize("dash", ["-", "."])
    def test_come_back_bit_for_bit(self, tmp_path, gz, dash):
        X, y = images()
        found, labels = load(write(tmp_path, "train", X, y, gz=gz, dash=dash), "train")
        assert found.dtype == labels.dtype == np.uint8
        np.testing.assert_array_equal(found, X.reshape(20, 12))
        np.testing.assert_array_equal(labels, y)

    def test_come_back_the_same_in_blocks(self, tmp_path, monkeypatch):
        monkeypatch.setattr("choral.data.mnist._ROWS", 7)
        X, y = images()
        found, labels = load(write(tmp_path, "t10k", X, y), "t10k")
        np.testing.assert_array_equal(found, X.reshape(20, 12))
        np.testing.assert_array_equal(labels, y)

    @pytest.mark.parametrize("gz", [False, True])
    @pytest.mark.parametrize(
        ("wrong", "found"),
        [
            ({"cut": 1}, "found 255 bytes; expected 256"),
            ({"cut": 250}, "found 6 bytes; expected an IDX header of 16"),
            ({"more": b"\0"}, "expected 256, as its header says"),
            ({"magic": (2052, 2049)}, "found magic number 2052; expected 2051"),
            ({"magic": (2051, 2051)}, "found magic number 2051; expected 2049"),
            ({"claim": 0}, "claims 0 examples"),
            ({"claim": 2**32 - 1}, "claims 4294967295 examples"),
            ({"claim": 21}, "found 20 labels; expected 21, one for each image"),
        ],
    )
    def test_that_lie_about_themselves_are_refused(self, tmp_path, gz, wrong, found):
        write(tmp_path, "train", *images(), gz=gz, **wrong)
        with pytest.raises(ShardError, match=found):
            load(tmp_path, "train")

    def test_with_fewer_labels_than_images_are_refused(self, tmp_path):
        X, y = images(10)
        with pytest.raises(ShardError, match="found 7 labels; expected 10"):
            load(write(tmp_path, "train", X, y[:7]), "train")

    def test_with_labels_of_other_classes_are_refused(self, tmp_path):
        X, y = images()
        with pytest.raises(ShardError, match="labels 1 to 10; expected 0 to 9"):
            load(write(tmp_path, "train", X, y + 1), "train")

    def test_with_images_without_pixels_or_with_absurd_ones_are_refused(self, tmp_path):
        y = np.zeros(2, np.uint8)
        for shape in ((2, 0, 4), (2, 1, 1025)):
            with pytest.raises(ShardError, match="sides of 1 to 1024"):
                load(write(tmp_path, "train", np.zeros(shape, np.uint8), y), "train")

    def test_that_are_damaged_gzip_are_refused(self, tmp_path):
        write(tmp_path, "train", *images(), gz=True)
        path = tmp_path / "train-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ShardError, match="cannot be read"):
            load(tmp_path, "train")

    def test_that_unpack_to_far_more_than_they_say_are_not_unpacked_to_the_end(self, tmp_path):
        write(tmp_path, "train", *images(), gz=True, more=bytes(1 << 26))
        with pytest.raises(ShardError, match="more than 256 bytes"):
            load(tmp_path, "train")

    def test_one_command_makes_shards_and_a_test_set(self, tmp_path):
        source = tmp_path / "idx"
        source.mkdir()
        write(source, "train", *images(200), gz=True)
        X, y = images(30)
        write(source, "t10k", X, y, gz=True)
        ran = CliRunner().invoke(
            data,
            ["mnist", str(source), "--members", "4", "--split", "dirichlet:0.5", str(tmp_path / "shards")],
            catch_exceptions=False,
        )
        assert ran.exit_code == 0
        shards = [load_shard(path) for path in sorted((tmp_path / "shards").glob("client_*_data.npy"))]
        assert [len(shards), sum(map(len, shards))] == [4, 200]
        test = load_shard(tmp_path / "shards" / "test_data.npy")
        np.testing.assert_array_equal(test.images, X.reshape(30, 12))

    def both(self, folder, first, last):
        X, _ = images(40)
        for part in ("train", "test"):
            y = np.resize(np.arange(first, last + 1), 40).astype(np.uint8)
            write(folder, f"emnist-letters-{part}", X, y, gz=True)
        return np.resize(np.arange(first, last + 1), 40)

    @pytest.mark.parametrize(
        ("first", "last", "classes"), [(0, 25, 26), (1, 26, 26), (1, 26, 27), (0, 9, 47)]
    )
    def test_of_other_classes_are_read_counted_from_0(self, tmp_path, first, last, classes):
        y = self.both(tmp_path, first, last)
        train, test, from_one = load_both(tmp_path, classes=classes)
        assert from_one == (first == 1 and last == classes)
        for labels in (train[1], test[1]):
            np.testing.assert_array_equal(labels, y - from_one)

    @pytest.mark.parametrize(("first", "last", "right"), [(0, 25, 26), (1, 26, 26), (2, 26, 27)])
    def test_of_more_classes_are_refused_with_the_number_that_is_right(self, tmp_path, first, last, right):
        self.both(tmp_path, first, last)
        with pytest.raises(ShardError, match=f"labels {first} to {last}; expected 0 to 9") as caught:
            load_both(tmp_path)
        assert f"--classes {right} " in caught.value.hint
        load_both(tmp_path, classes=right)

    def test_of_several_sets_are_told_apart_by_what_their_names_begin_with(self, tmp_path):
        y = self.both(tmp_path, 0, 9)
        for part in ("train", "t10k"):
            write(tmp_path, f"other-{part}", *images(30))
        with pytest.raises(ShardError, match="begin with 'emnist-letters-', 'other-'") as caught:
            load_both(tmp_path)
        assert "--prefix" in caught.value.hint
        np.testing.assert_array_equal(load_both(tmp_path, prefix="emnist-letters-")[0][1], y)
        with pytest.raises(ShardError, match="begin with"):
            load_both(tmp_path, prefix="emnist-")

    def test_of_two_sets_are_no_set(self, tmp_path):
        write(tmp_path, "train", *images(20))
        write(tmp_path, "other-t10k", *images(20))
        with pytest.raises(ShardError, match="a test part alone"):
            load_both(tmp_path)

    def test_of_letters_become_shards_by_one_command(self, tmp_path):
        self.both(tmp_path, 1, 26)
        arguments = [str(tmp_path), str(tmp_path / "shards"), "--classes", "26"]
        ran = CliRunner().invoke(data, ["mnist", *arguments], catch_exceptions=False)
        assert "labels 1 to 26 are stored as 0 to 25" in ran.output
        test = load_shard(tmp_path / "shards" / "test_data.npy", classes=26)
        assert set(test.labels) == set(range(26))

    @one_directory
    @given(
        part=st.sampled_from(["images", "labels"]),
        at=st.integers(0, 19),
        byte=st.integers(0, 255),
        gz=st.booleans(),
    )
    def test_that_are_damaged_are_read_or_refused_and_nothing_else(self, tmp_path, part, at, byte, gz):
        X, y = images()
        for path in tmp_path.iterdir():
            path.unlink()
        write(tmp_path, "train", X, y, gz=gz)
        path = next(tmp_path.glob(f"*{part}*"))
        content = bytearray(path.read_bytes())
        content[at] = byte
        path.write_bytes(content)
        try:
            found, labels = load(tmp_path, "train")
        except ShardError:
            return
        assert (found.shape[0], labels.max() < 10) == (20, True)

    @pytest.mark.skipif(not REAL, reason="CHORAL_MNIST names no folder with the real files")
    def test_the_real_files(self):
        (X, y), (X_test, y_test) = (load(Path(REAL or ""), part) for part in ("train", "t10k"))
        assert (X.shape, X_test.shape) == ((60000, 784), (10000, 784))
        assert np.bincount(y).min() > 5000
        assert np.bincount(y_test).min() > 800


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("choral.data.mnist._parser", lambda: None)
    with pytest.raises(ShardError, match="no pair of train-images-idx3-ubyte") as caught:
        load(tmp_path, "train")
    assert "does not download" in caught.value.hint


def test_without_python_mnist_the_hint_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mnist", None)
    with pytest.raises(ParameterError, match="not installed") as caught:
        load(tmp_path, "train")
    assert "choral[mnist]" in caught.value.hint


def test_another_package_of_the_same_name_is_told_apart(tmp_path, monkeypatch):
    foreign = types.ModuleType("mnist")
    foreign.train_images = lambda: None
    monkeypatch.setitem(sys.modules, "mnist", foreign)
    with pytest.raises(ParameterError, match="another package than python-mnist") as caught:
        load(tmp_path, "train")
    assert "pip uninstall mnist" in caught.value.hint
