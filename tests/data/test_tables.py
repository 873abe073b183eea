# ruff: noqa: N803, N806  (X is a matrix)
"""A person's own `.npy` and CSV files become shards, or the error says where they do not."""

import os
import pickle
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.cli.data import data
from choral.data import load_shard, save_shard
from choral.data.arrays import from_npy
from choral.data.tables import from_csv
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


@pytest.mark.parametrize("kind", ["i8", "i2", "u1", "u8", ">i4", "f4", "f8", ">f8", "f2"])
def test_whole_numbers_of_any_type_are_pixels_if_one_says_so(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("choral.data.arrays.BLOCK", 64)  # several blocks
    X = np.arange(256).reshape(16, 4, 4).astype(kind)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(16) % 4)
    ran = run("from-npy", tmp_path / "X.npy", tmp_path / "y.npy", tmp_path / "out.npy", "--pixels")
    assert ran.exit_code == 0
    shard = load_shard(tmp_path / "out.npy")
    assert shard.images.dtype == np.uint8
    np.testing.assert_array_equal(shard.images.ravel(), np.arange(256))


@pytest.mark.parametrize(
    "value",
    [np.int64(-1), np.int64(256), np.int64(2**40), np.float64(0.5), np.float64("nan"), np.float64("inf")],
)
def test_what_is_no_pixel_is_named_with_its_place(tmp_path, monkeypatch, value):
    monkeypatch.setattr("choral.data.arrays.BLOCK", 64)
    X = np.zeros((9, 3, 2), type(value))
    X[7, 1, 1] = value
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(9) % 4)
    with pytest.raises(ShardError, match=rf"X.npy: found {value} at \[7, 1, 1\]; expected whole numbers"):
        run("from-npy", tmp_path / "X.npy", tmp_path / "y.npy", tmp_path / "out.npy", "--pixels")
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("X", [np.zeros((4, 4), bool), np.array(7), np.full((4, 4), "7")])
def test_what_is_no_number_is_no_pixel_either(tmp_path, X):
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(4))
    with pytest.raises(ShardError, match=r"expected whole numbers from 0 to 255|at least one value"):
        run("from-npy", tmp_path / "X.npy", tmp_path / "y.npy", tmp_path / "out.npy", "--pixels")


def test_an_array_file_is_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((4, 4)))
    assert isinstance(from_npy(tmp_path / "X.npy"), np.memmap)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_no_array_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "X.npy")
    with pytest.raises(ShardError, match="no regular file"):
        from_npy(tmp_path / "X.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_csv_may_come_through_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    writer = threading.Thread(
        target=(tmp_path / "a.csv").write_bytes, args=("x,y\n1.5,1\n".encode("utf-16"),)
    )
    writer.start()
    X, y, _ = from_csv(tmp_path / "a.csv", "y")
    writer.join()
    assert (X.tolist(), y.tolist()) == ([[1.5]], [1])


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
    found, labels, _ = from_csv(written(tmp_path / "a.csv", "\n".join(lines)), "y")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(labels, range(5))


def test_pixels_are_stored_as_bytes(tmp_path):
    path = written(tmp_path / "a.csv", "label,p0,p1\n3,0,255\n\n1,7,8\n")
    found, labels, _ = from_csv(path, "label", pixels=True)
    assert found.dtype == np.uint8
    assert (found.tolist(), labels.tolist()) == ([[0, 255], [7, 8]], [3, 1])


def test_labels_that_are_text_are_numbered_in_the_order_that_all_members_give(tmp_path):
    path = written(tmp_path / "a.csv", "x;kind\n1;dog\n2;cat\n")
    _, labels, _ = from_csv(path, "kind", classes=["bird", "cat", "dog"], delimiter=";")
    assert labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "more", "found"),
    [
        ("a,b\n1,2\n", {}, "the columns 'a', 'b'; expected a first line with 'y' among its names"),
        ("y,a,a\n1,2,3\n", {}, "more than one column called 'a'"),
        ("", {}, "no names; expected a first line with 'y' among its names"),
        ("y,a\n", {}, "0 examples"),
        ("y\n1\n", {}, "examples of 0 values"),
        ("y,a\n1,2\n1,2,3\n", {}, "3 values in line 3; expected 2"),
        ("y,a,b\n1,2,\n", {}, "an empty value in line 2, column 'b'; expected a finite number"),
        ("y,a\n1,2\n0,nan\n", {}, "'nan' in line 3, column 'a'"),
        ("y,a\n1,1e39\n", {}, "'1e39' in line 2, column 'a'"),
        ("y,a\ndog,1\n", {}, "the label 'dog' in line 2; expected a whole number"),
        ("y,a\n256,1\n", {}, "the label '256'"),
        ("y,a\n-1,1\n", {}, "the label '-1'"),
        ("y,a\ncow,1\n", {"classes": ["dog"]}, "the label 'cow' in line 2; expected one of 'dog'"),
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


PLAIN = "a,b,y\n1.5,2,0\n-3,4e2,1\n"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("a,b,y,\n1.5,2,0\n-3,4e2,1\n", {}),
        ("a,b,y,\n1.5,2,0,\n-3,4e2,1,\n", {}),
        ("a,b,y\n1.5,2,0,\n-3,4e2,1, ,\n", {}),
        ("a, b , y\n1.5, 2, 0 \n -3 ,4e2,\t1\n", {}),
        ('"a", "b", "y"\n"1.5", "2", "0"\n-3,"4e2","1"\n', {}),
        ("a,b,y\r\n1.5,2,0\r\n-3,4e2,1\r\n,,\r\n", {}),
        ("a;b;y\n1,5;2;0\n-3;4e2;1\n", {"delimiter": ";", "decimal": ","}),
        ('a,b,y\n"1,5","2",0\n-3,4e2,1\n', {"decimal": ","}),
        ("a\tb\ty\n1.5\t2\t0\n-3\t4e2\t1\n", {"delimiter": "\t"}),
        ("a b y\n1.5 2 0\n-3 4e2 1\n", {"delimiter": " "}),
        ("b,y,c,a\n2,0,red,1.5\n4e2,1,blue,-3\n", {"columns": ["a", "b"]}),
        (",a,b,y\n17,1.5,2,0\n4,-3,4e2,1\n", {"drop": ["unnamed-1"]}),
        ("Unnamed: 0,a,b,y\n17,1.5,2,0\n4,-3,4e2,1\n", {"drop": ["unnamed-1"]}),
        ("a,c,b,y\n1.5,red,2,0\n-3,,4e2,1\n", {"drop": ["c"]}),
        ("a,b,y\n1.5,2,0.0\n-3,4e2,1.0\n", {}),
        ("a,b,y\n1.5,2,-1\n-3,4e2,+1\n", {"classes": ["-1", "1"]}),
    ],
)
def test_a_csv_as_people_write_it_says_what_the_plain_one_says(tmp_path, text, more):
    X, y, _ = from_csv(written(tmp_path / "plain.csv", PLAIN), "y")
    found, labels, names = from_csv(written(tmp_path / "a.csv", text), "y", **more)
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(labels, y)
    assert names == ("a", "b")


@pytest.mark.parametrize(
    ("encoding", "given"),
    [
        ("utf-8", None), ("utf-8-sig", None), ("utf-8-sig", "utf-8"), ("utf-16", None), ("utf-32", None),
        ("cp1252", "cp1252"), ("latin-1", "latin-1"), ("utf-16-le", "utf-16-le"),
    ],
)  # fmt: skip
def test_an_encoding_is_what_its_mark_says_or_what_is_given(tmp_path, encoding, given):
    path = tmp_path / "a.csv"
    path.write_bytes("größe,tür\n1.5,müde\n2.5,é\n".encode(encoding))
    X, y, names = from_csv(path, "tür", classes=["é", "müde"], encoding=given)
    assert (X.tolist(), y.tolist(), names) == ([[1.5], [2.5]], [1, 0], ("größe",))


@pytest.mark.parametrize("first", [0, 1])
def test_row_numbers_are_no_feature_unless_they_are_asked_for(tmp_path, first):
    lines = [f"{first + row},{row % 3}.5,{row % 2}" for row in range(12)]
    named = written(tmp_path / "named.csv", "\n".join(["Id,a,y", *lines]))
    with pytest.raises(ShardError, match=f"'Id' that numbers the rows from {first} on") as caught:
        from_csv(named, "y")
    assert "--drop 'Id'" in caught.value.hint
    assert from_csv(named, "y", drop=["Id"]).X.shape == (12, 1)
    assert from_csv(named, "y", columns=["Id", "a"]).X.shape == (12, 2)
    unnamed = written(tmp_path / "unnamed.csv", "\n".join([",a,y", *lines[5:]]))
    with pytest.raises(ShardError, match="a column without a name, number 1 in the file") as caught:
        from_csv(unnamed, "y")
    assert "--drop unnamed-1" in caught.value.hint


def test_categories_are_a_feature_each_in_the_order_that_all_members_give(tmp_path):
    path = written(tmp_path / "a.csv", "c,a,y\n red,1,0\nblue ,2,1\n")
    X, _, names = from_csv(path, "y", one_hot={"c": ["blue", "green", "red"]})
    assert names == ("c=blue", "c=green", "c=red", "a")
    assert X.tolist() == [[0, 0, 1, 1], [1, 0, 0, 2]]
    with pytest.raises(ShardError, match="no list of categories for column 'c'") as caught:
        from_csv(path, "y", one_hot={"c": []})
    assert "--one-hot 'c=blue,red'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "more", "found", "hint"),
    [
        ("y,a\n1,NA\n", {}, "'NA' in line 2, column 'a'", "fill in or drop what is missing"),
        ("y,a\n1,\n", {}, "an empty value in line 2", "fill in or drop what is missing"),
        ("y,a\n1,red\n", {}, "'red' in line 2", "--one-hot 'a=a,b,c'"),
        ("y;a\n1;2,5\n", {"delimiter": ";"}, "'2,5' in line 2", "--decimal ,"),
        ("y;a\n1;1.234,5\n", {"delimiter": ";", "decimal": ","}, "'1.234,5' in line 2", ""),
        ("y;a\n1;1.234\n", {"delimiter": ";", "decimal": ","}, "'1.234' in line 2", "thousands"),
        ("y,a\n1,1_000\n", {}, "'1_000' in line 2", ""),
        ("y;a\n1;2\n", {}, "'y;a'", "--delimiter ';'"),
        ("y\ta\n1\t2\n", {}, "y", "--delimiter tab"),
        ("Y,a\n1,2\n", {}, "'Y', 'a'", "--label 'Y'"),
        ("5.1,3\n4,2\n", {}, "'5.1', '3'", "this one holds values"),
        ("y,a\n1,0,2\n", {}, "3 values in line 2", "first line has no name for"),
        ("y,a\n1,2\n", {"columns": ["b"]}, "no column 'b' for --columns", "capitals"),
        ("y,a\n1,2\n", {"drop": ["b"]}, "no column 'b' for --drop", "capitals"),
        ("y,a\n1,2\n", {"drop": ["a"]}, "1 examples of 0 values", ""),
        ("y,a\n1,2\n", {"columns": ["a", "y"]}, "the label 'y' in --columns", "no feature"),
        ("y,a,b\n1,2,3\n", {"columns": ["a"], "drop": ["b"]}, "--columns and --drop", ""),
        ("y,a\n1,2\n", {"one_hot": {"a": ["1"]}}, "'2' in line 2, column 'a'; expected one of '1'", ""),
        ("y,a\n1,2\n", {"one_hot": {"a": ["2"]}, "drop": ["a"]}, "--one-hot for 'a', which is left out", ""),
        ("y,a\n1,2\n", {"one_hot": {"a": ["2"]}, "pixels": True}, "one-hot columns among pixels", ""),
        ("y,a\n1,2\n", {"delimiter": "::"}, "the delimiter '::'", ""),
        ("y,a\n1,2\n", {"delimiter": '"'}, "the delimiter", ""),
        ("y,a\n1,2\n", {"decimal": ";"}, "the decimal sign ';'", "--decimal ,"),
        ('y,a\n1,"1,234"\n', {}, "'1,234' in line 2", "thousands has to go"),
        ("a;y,\n1;2\n", {"delimiter": ";"}, "'y,'", "--label 'y,'"),
        ("y,a\n1,2\n", {"encoding": "klingon"}, "the encoding 'klingon'", ""),
        ("y,a\ncat,2\ndog,1\ncat,1\n", {}, "the label 'cat'", "--classes cat,dog "),
        ("y,a\n-1,2\n1,1\n", {}, "the label '-1'", "--classes -1,1 "),
        ("y,a\n0.5,2\n1,1\n", {}, "the label '0.5'", "a label is the number of a class"),
        ("y,a\n,2\n1,1\n", {}, "the label ''", "fill in or drop"),
        ("y,a\n1,2\n3,1\n", {"classes": ["1", "2"]}, "the label '3' in line 3", "all of the federation"),
    ],
)
def test_a_refusal_says_what_to_do_about_this_file(tmp_path, text, more, found, hint):
    with pytest.raises(ShardError) as caught:
        from_csv(written(tmp_path / "a.csv", text), "y", **more)
    assert found in caught.value.reason
    assert hint in caught.value.hint


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
def test_another_encoding_is_refused_with_the_option_that_names_it(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("tür,a\n1,2\n".encode(encoding))
    with pytest.raises(ShardError) as caught:
        from_csv(path, "tür")
    assert "--encoding" in caught.value.hint


WORDS = st.sampled_from(
    ["a", "b", "y", "1", "-2.5", "nan", "1e999", "9" * 400, '"', ",", ";", "\n", "\r", " ", "\0", "é"]
)


@one_directory
@given(
    content=st.binary(max_size=60) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode()),
    begin=st.sampled_from([b"", b"y,a\n", b"y,a,\n0,1\n", b"\xff\xfe", b"\xef\xbb\xbfy,a\n"]),
    decimal=st.sampled_from(".,"),
    pixels=st.booleans(),
)
def test_any_file_is_a_table_or_refused_and_nothing_else(tmp_path, content, begin, decimal, pixels):
    path = tmp_path / "a.csv"
    path.write_bytes(begin + content)
    try:
        X, y, names = from_csv(
            path, "y", decimal=decimal, delimiter=";" if decimal == "," else ",", pixels=pixels
        )
    except ShardError as error:
        refused = error
    else:
        assert np.isfinite(X).all()
        assert (len(X), X.shape[1]) == (len(y), len(names))
        return
    assert "a.csv: found" in refused.reason
    assert refused.hint


SHAPES = [
    "(3, 2)", "(0, 4611686018427387904)", "(4611686018427387904, 4)", "(1e999,)", "(-1, 2)",
    f"({'9' * 50},)", "()", "(True,)", f"({'1,' * 40})",
]  # fmt: skip
TYPES = ["<f4", ">f8", "|V0", "<U0", "|S0", "<U268435456", "<M8[s]", "|O"]


@pytest.mark.parametrize("kind", ["|V0", "<U0", "|S0"])
@pytest.mark.parametrize("shape", ["(4611686018427387904,)", "(3,)", "(0, 4611686018427387904)"])
def test_an_array_of_nothing_is_refused_before_numpy_divides_by_its_size(tmp_path, kind, shape):
    path = tmp_path / "X.npy"
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + head.encode() + bytes(24))
    with pytest.raises(ShardError, match="expected at least one value"):
        from_npy(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_in_either_order(tmp_path, order):
    X = np.arange(24.0).reshape(4, 3, 2)
    np.save(tmp_path / "X.npy", np.asarray(X, order=order))
    np.testing.assert_array_equal(from_npy(tmp_path / "X.npy"), X)


@one_directory
@given(data=st.data())
def test_a_damaged_array_file_is_read_or_refused_and_nothing_else(tmp_path, data):
    path = tmp_path / "X.npy"
    shape = data.draw(st.sampled_from(SHAPES))
    kind = data.draw(st.sampled_from(TYPES))
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = bytearray(b"\x93NUMPY\x01\x00\x76\x00" + head.encode() + bytes(24))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        array = from_npy(path)
    except ShardError:
        return
    assert array.nbytes <= len(content)


def test_the_command_makes_a_shard_of_a_csv(tmp_path):
    path = written(tmp_path / "a.csv", "x,species\n1.5,setosa\n2.5,other\n")
    ran = run("from-csv", path, "--label", "species", "--classes", "other,setosa", tmp_path / "out.npy")
    assert ran.exit_code == 0
    shard = load_shard(tmp_path / "out.npy", features=1, classes=2)
    assert (shard.images.tolist(), shard.labels.tolist()) == ([[1.5], [2.5]], [1, 0])
    assert "features: x" in ran.output


def test_the_commands_options_are_lists_as_people_type_them(tmp_path):
    path = written(tmp_path / "a[b].csv", "id,x,c,species\n7,1.5,red,setosa\n8,2.5,blue,other\n")
    ran = run(
        "from-csv", path, "--label", "species", "--classes", " other, setosa", "--columns", "c, x",
        "--one-hot", "c=red, blue", tmp_path / "out[1].npy",
    )  # fmt: skip
    assert "out[1].npy: 2 examples" in ran.output
    assert "features: c=red, c=blue, x" in ran.output
    assert load_shard(tmp_path / "out[1].npy").images.tolist() == [[1, 0, 1.5], [0, 1, 2.5]]


def test_text_labels_in_an_array_file_are_numbered_by_the_list(tmp_path):
    np.save(tmp_path / "X.npy", np.eye(3))
    np.save(tmp_path / "y.npy", np.array(["cat", "dog", "cat"]))
    ran = run(
        "from-npy", tmp_path / "X.npy", tmp_path / "y.npy", tmp_path / "out.npy", "--classes", "bird,cat,dog"
    )
    assert ran.exit_code == 0
    assert load_shard(tmp_path / "out.npy").labels.tolist() == [1, 2, 1]
