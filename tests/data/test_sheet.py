"""A contact sheet shows each class in a row of its own."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from choral.cli.data import data
from choral.data import load_shard, save_shard
from choral.data.sheet import mosaic, save, shape_of
from choral.errors import ParameterError


@pytest.fixture
def shard(tmp_path):
    images = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 6).reshape(5, 2, 3)
    return load_shard(save_shard(tmp_path / "a.npy", images, [4, 4, 1, 4, 1]))


def test_each_image_stands_in_the_row_of_its_label_from_dark_to_light(shard):
    picture, labels = mosaic(shard, (2, 3), 2)
    assert labels == [1, 4]
    assert picture.shape == (5, 7)
    np.testing.assert_allclose(picture[0:2, 0:3], 2 / 4)  # image 2, the first of label 1
    np.testing.assert_allclose(picture[3:5, 4:7], 1 / 4)  # image 1, the second of label 4
    assert np.isnan(picture[2]).all()
    assert np.isnan(picture[:, 3]).all()


def test_a_place_without_an_image_stays_empty(shard):
    picture, _ = mosaic(shard, (2, 3), 3)
    assert np.isnan(picture[0:2, 8:]).all()


def test_a_sheet_that_nobody_could_look_at_is_refused_and_not_drawn(tmp_path):
    images = np.zeros((2, 1024 * 1024), np.uint8)
    large = load_shard(save_shard(tmp_path / "large.npy", images, [0, 1]))
    with pytest.raises(ParameterError, match="pixels in all") as caught:
        mosaic(large, (1024, 1024), 200)
    assert "--columns" in caught.value.hint
    assert mosaic(large, (1024, 1024), 1)[0].shape == (2049, 1024)


def test_images_that_are_no_square_need_a_shape(shard):
    assert shape_of(64) == (8, 8)
    with pytest.raises(ParameterError, match="images of 6 values, expected 2x2 = 4"):
        shape_of(6)
    with pytest.raises(ParameterError, match="expected 2x4 = 8"):
        shape_of(6, (2, 4))


def test_without_matplotlib_the_hint_says_what_to_install(shard, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ParameterError, match="not installed") as caught:
        save(shard, tmp_path / "sheet.png", shape=(2, 3))
    assert "choral[pictures]" in caught.value.hint


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_command_writes_a_picture(shard, tmp_path, suffix, magic):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install choral[pictures]")
    out = tmp_path / f"sheet.{suffix}"
    ran = CliRunner().invoke(data, ["show", str(shard.path), "-o", str(out), "--shape", "2x3"])
    assert ran.exit_code == 0, ran.output
    assert out.read_bytes().startswith(magic)


def test_a_suffix_that_is_no_picture_is_refused(shard, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install choral[pictures]")
    with pytest.raises(ParameterError, match="cannot be written"):
        save(shard, tmp_path / "sheet.docx", shape=(2, 3))
