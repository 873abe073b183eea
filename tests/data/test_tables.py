# ruff: noqa: N803, N806  (X is a matrix)
"""A person's own `.npy` and CSV files become shards, or the error says where they do not."""

import pickle

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.cli.data import data
from choral.data import load_shard, save_shard
from choral.data.tables import from_csv, from_npy
from choral.errors import ShardError

one_directory = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_two_npy_files_make_a_shard_of_the_same_values(tmp_path, dtype):
    X = np.random.default_rng(0).integers(0, 256, (9, 3, 2)).astype(dtype)
    y = np.arange(9) % 4
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    ran = run("from-npy", tmp_path / "X.npy", tmp_path / "y.npy", tmp_path / "out.npy")
    assert "9 examples of 0, 1, 2, 3" in ran.output
    shard = load_shard(tmp_path / "out.npy")
    np.testing.assert_array_equal(shard.images, X.reshape(9, 6))
    np.testing.assert_array_equal(shard.labels, y)


def test_an_array_file_is_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((4, 4)))
    assert isinstance(from_npy(tmp_path / "X.npy"), np.memmap)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


@pytest.mark.parametrize("kind", ["pickle", "object", "zip", "cut", "shard", "none", "text"])
def test_what_is_no_plain_array_is_refused_and_never_run(tmp_path, kind):
    path = tmp_path / "X.npy"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "object":
        np.save(path, np.array([Bomb()], object), allow_pickle=True)
    elif kind == "zip":
        np.savez(tmp_path / "X.npz", np.zeros(3))
        (tmp_path / "X.npz").rename(path)
    elif kind == "cut":
        np.save(path, np.zeros((10, 10)))
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "shard":
        save_shard(path, np.zeros((2, 2), np.uint8), [0, 1])
    elif kind == "text":
        path.write_text("1,2,3")
    with pytest.raises(ShardError, match=r"X\.npy: found"):
        from_npy(path)


@one_directory
@given(X=hnp.arrays(np.float32, (5, 3), elements=st.floats(-1e6, 1e6, width=32)), at=st.integers(0, 3))
def test_a_csv_gives_back_its_numbers_wherever_the_label_stands(tmp_path, X, at):
    names = ["a", "b", "c"]
    names.insert(at, "y")
    lines = [",".join(names)]
    for label, row in enumerate(X.tolist()):
        row.insert(at, label)
        lines.append(",".join(map(repr, row)))
    found, labels = from_csv(written(tmp_path / "a.csv", "\n".join(lines)), "y")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(labels, range(5))


def test_pixels_are_stored_as_bytes(tmp_path):
    path = written(tmp_path / "a.csv", "label,p0,p1\n3,0,255\n\n1,7,8\n")
    found, labels = from_csv(path, "label", pixels=True)
    assert found.dtype == np.uint8
    assert (found.tolist(), labels.tolist()) == ([[0, 255], [7, 8]], [3, 1])


def test_labels_that_are_text_are_numbered_in_the_order_that_all_members_give(tmp_path):
    path = written(tmp_path / "a.csv", "x;kind\n1;dog\n2;cat\n")
    _, labels = from_csv(path, "kind", classes=["bird", "cat", "dog"], delimiter=";")
    assert labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "more", "found"),
    [
        ("a,b\n1,2\n", {}, "'y' among them"),
        ("y,a,a\n1,2,3\n", {}, "different names"),
        ("", {}, "'y' among them"),
        ("y,a\n", {}, "0 examples"),
        ("y\n1\n", {}, "examples of 0 values"),
        ("y,a\n1,2\n1,2,3\n", {}, "3 values in line 3; expected 2"),
        ("y,a,b\n1,2,\n", {}, "'' in line 2, column 'b'; expected a finite number"),
        ("y,a\n1,2\n0,nan\n", {}, "'nan' in line 3, column 'a'"),
        ("y,a\n1,1e39\n", {}, "'1e39' in line 2, column 'a'"),
        ("y,a\ndog,1\n", {}, "the label 'dog' in line 2; expected a whole number"),
        ("y,a\n256,1\n", {}, "the label '256'"),
        ("y,a\n-1,1\n", {}, "the label '-1'"),
        ("y,a\ncow,1\n", {"classes": ["dog"]}, "the label 'cow' in line 2; expected one of dog"),
        (
            "y,a\n1,256\n",
            {"pixels": True},
            "'256' in line 2, column 'a'; expected a whole number from 0 to 255",
        ),
        ("y,a\n1,0.5\n", {"pixels": True}, "'0.5' in line 2"),
        ('y,a\n1,"2\n', {}, "cannot be read"),
    ],
)
def test_what_a_csv_may_not_hold_is_refused_with_its_place(tmp_path, text, more, found):
    with pytest.raises(ShardError, match=r"a\.csv: found") as caught:
        from_csv(written(tmp_path / "a.csv", text), "y", **more)
    assert found in caught.value.reason


def test_the_command_makes_a_shard_of_a_csv(tmp_path):
    path = written(tmp_path / "a.csv", "x,species\n1.5,setosa\n2.5,other\n")
    ran = run("from-csv", path, "--label", "species", "--classes", "other,setosa", tmp_path / "out.npy")
    assert ran.exit_code == 0
    shard = load_shard(tmp_path / "out.npy", features=1, classes=2)
    assert (shard.images.tolist(), shard.labels.tolist()) == ([[1.5], [2.5]], [1, 0])
