"""Labels of every shape and type that people have are read right, or refused with a hint that is true."""

import numpy as np
import pytest

from choral.data import load_shard, save_shard
from choral.errors import ShardError

X = np.eye(4)
RIGHT = [0, 2, 1, 2]


@pytest.mark.parametrize(
    "y",
    [
        RIGHT,
        np.array(RIGHT)[:, None],
        np.array(RIGHT, np.int8),
        np.array(RIGHT, np.float32),
        np.array(RIGHT, np.float64)[:, None],
        np.array(RIGHT, object),
        np.eye(3)[RIGHT],
        np.eye(3, dtype=bool)[RIGHT],
        np.eye(3, dtype=np.int64)[RIGHT],
    ],
    ids=lambda y: f"{getattr(y, 'dtype', 'list')}{np.shape(y)}",
)
def test_labels_that_have_one_meaning_are_read(tmp_path, y):
    assert load_shard(save_shard(tmp_path / "a.npy", X, y)).labels.tolist() == RIGHT


def test_truth_values_are_0_and_1(tmp_path):
    y = np.array([True, False, False, True])
    for form in (y, y[:, None], list(y), y.astype(object)):
        assert load_shard(save_shard(tmp_path / "a.npy", X, form)).labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["a", "c", "b", "c"], ["a", "b", "c"]),
        (np.array(["a", "c", "b", "c"], object)[:, None], ["a", "b", "c"]),
        ([1, 3, 2, 3], ["1", "2", "3"]),
        ([1.0, 3.0, 2.0, 3.0], ["1", "2", "3"]),
        ([-1, 1, 0, 1], ["-1", "0", "1"]),
    ],
)
def test_with_a_list_of_classes_a_label_is_its_place(tmp_path, y, classes):
    assert load_shard(save_shard(tmp_path / "a.npy", X, y, classes=classes)).labels.tolist() == RIGHT


@pytest.mark.parametrize(
    ("y", "found", "hint"),
    [
        (["dog", "cat", "cat", "dog"], "labels that are text: 'dog', 'cat'", "names.index(label)"),
        ([0.5, 1, 2, 3], "the label 0.5 of record 0", "no other right answers"),
        ([0, 1, np.nan, 3], "the label nan of record 2", "no other right answers"),
        ([0, 1, np.inf, 3], "the label inf of record 2", "no other right answers"),
        ([-1, 1, 1, -1], "labels -1 to 1", "y > 0"),
        ([-1, 0, 1, 2], "labels -1 to 2", "[-1, 0, 1, 2].index(label)"),
        ([0, 1, 2, 1000], "labels 0 to 1000", "[0, 1, 2, 1000].index(label)"),
        ([[0, 1, 2, 3]], "(1, 4)", "y.ravel()"),
        ([[0.1, 0.9]] * 4, "(4, 2)", "y.argmax(axis=1)"),
        ([[1, 1], [1, 0], [0, 1], [0, 1]], "(4, 2)", "several ones, or none"),
        ([[3, 4], [1, 0], [0, 1], [0, 1]], "(4, 2)", "choose the column"),
        (np.zeros((4, 2, 2)), "(4, 2, 2)", "one label an image"),
        (3, "()", "one label an image"),
        (np.array([0, None, 1, 2], object), "y of type object", ""),
        (np.array([0, 1, 2, 3], "M8[s]"), "y of type datetime64[s]", ""),
        (np.array([0, 1, 2, 3], complex), "y of type complex128", ""),
        (np.ma.array([0, 1, 2, 3], mask=[0, 0, 1, 0]), "y with masked values", "y.filled(0)"),
        ([[0], [1, 2]], "y that is no array", ""),
        ([2**70, 0, 1, 2], "y", ""),
        (np.arange(4, dtype=np.uint64) + 2**63, "labels 9223372036854775808", ""),
    ],
    ids=repr,
)
def test_what_cannot_be_a_label_is_refused_with_a_hint_for_it(tmp_path, y, found, hint):
    with pytest.raises(ShardError) as caught:
        save_shard(tmp_path / "a.npy", X, y)
    assert found in caught.value.reason
    assert hint in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_the_hints_that_are_a_line_of_python_do_what_they_say(tmp_path):
    y = np.array([-1, 1, 1, -1])
    assert load_shard(save_shard(tmp_path / "a.npy", X, y > 0)).labels.tolist() == [0, 1, 1, 0]
    found = [[-1, 0, 1, 2].index(label) for label in y]
    assert load_shard(save_shard(tmp_path / "a.npy", X, found)).labels.tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (X.astype(bool), "X.astype(numpy.float32)"),
        (X.astype(np.int64), "X.astype(numpy.uint8) (--pixels) if they are pixels"),
        (X.astype(np.int64) - 5, "X.astype(numpy.float32)"),
        (X.astype(str), "an array of numbers"),
        (X.astype(complex), "numbers"),
    ],
)
def test_values_of_another_type_are_refused_with_a_hint_for_them(tmp_path, values, hint):
    with pytest.raises(ShardError, match="X of type") as caught:
        save_shard(tmp_path / "a.npy", values, RIGHT)
    assert caught.value.hint.startswith(hint) or hint in caught.value.hint


def test_masked_values_and_ragged_rows_are_refused(tmp_path):
    for values in (np.ma.array(X, mask=X > 0), [[1.0], [1.0, 2.0]]):
        with pytest.raises(ShardError, match="found X"):
            save_shard(tmp_path / "a.npy", values, RIGHT)


def test_a_place_that_is_no_file_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "a.npy", tmp_path / "folder", tmp_path / "none" / "a.npy", "/", "."):
        with pytest.raises(ShardError, match="expected"):
            save_shard(place, X, RIGHT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
