"""Every file that is not a shard is refused by name, with no code run and nothing allocated."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from choral.data import load_shard, save_shard
from choral.errors import ShardError

D = 6
ALIGNED = np.dtype([("image", "<f4", (D,)), ("label", "u1")], align=True)


class Bomb:
    """Unpickling it creates the file that it names."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def records(n: int = 10, dtype: np.dtype = ALIGNED) -> np.ndarray:
    result = np.zeros(n, dtype)
    result["label"] = np.arange(n) % 10
    return result


def npy(header: bytes | str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A hand-made .npy file."""
    header = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + data


def head(descr: object, shape: object) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n"


DESCR = [("image", "|u1", (D,)), ("label", "|u1")]


def refused(path: Path, content: object, match: str, **task: int) -> ShardError:
    """The error for a file with this content (bytes, or an array to save)."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ShardError, match=match) as caught:
        load_shard(path, **task)
    assert str(path) in caught.value.reason
    assert "expected" in caught.value.reason
    assert caught.value.hint
    return caught.value


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "client_1_data.npy"


# Code that must not run


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_and_never_opened(path, tmp_path, protocol):
    mark = tmp_path / "ran"
    content = pickle.dumps(Bomb(mark), protocol)
    refused(path, content, "pickle" if protocol >= 2 else "starts with")
    assert not mark.exists()
    pickle.loads(content)  # the bomb is a real one
    assert mark.exists()


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype(object),
        np.dtype([("image", "u1", (D,)), ("label", "O")]),
        np.dtype([("image", "O", (D,)), ("label", "u1")]),
        np.dtype([("image", [("deep", "O")], (D,)), ("label", "u1")]),
    ],
)
def test_objects_in_any_field_are_refused_and_never_opened(path, tmp_path, dtype):
    mark = tmp_path / "ran"
    array = np.zeros(3, dtype)
    if dtype.names is None:
        array[:] = Bomb(mark)
    elif dtype["label"].hasobject:
        array["label"] = Bomb(mark)
    elif dtype["image"].base.names:
        array["image"]["deep"] = Bomb(mark)
    else:
        array["image"] = Bomb(mark)
    refused(path, array, "Python objects")
    assert not mark.exists()
    np.load(path, allow_pickle=True)
    assert mark.exists()


def test_an_npz_under_another_name_is_refused(path):
    buffer = io.BytesIO()
    np.savez(buffer, image=np.zeros((3, D), np.uint8), label=np.zeros(3, np.uint8))
    refused(path, buffer.getvalue(), "zip archive")


def test_an_empty_zip_is_refused(path):
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    refused(path, buffer.getvalue(), "zip archive")


@pytest.mark.parametrize(
    "expression", ["__import__('os').getcwd()", "[].append(1)", "{**{}}", "open('x', 'w')"]
)
def test_code_in_the_header_is_not_evaluated(path, expression):
    header = f"{{'descr': {expression}, 'fortran_order': False, 'shape': (1,), }}\n"
    refused(path, npy(header), "header that cannot be read")


# Sizes that must not be believed


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_truncated_shard_is_refused(path, cut):
    np.save(path, records())
    whole = path.read_bytes()
    refused(path, whole[:-cut], f"found {len(whole) - cut} bytes; expected {len(whole)}")


def test_bytes_after_the_last_record_are_refused(path):
    np.save(path, records())
    refused(path, path.read_bytes() + b"\0", "for the 10 records that its header claims")


@pytest.mark.parametrize("cut", [1, 6, 7, 8, 9, 10, 60, 127])
def test_a_shard_cut_within_its_header_is_refused(path, cut):
    np.save(path, records(dtype=np.dtype(DESCR)))
    refused(path, path.read_bytes()[:cut], "found")


@pytest.mark.parametrize("count", [10**10, 2**62, 2**64, 10**40])
def test_a_claim_of_too_many_records_costs_no_memory(path, count):
    path.write_bytes(npy(head(DESCR, (count,)), bytes(100)))
    tracemalloc.start()
    try:
        with pytest.raises(ShardError, match=f"the {count} records"):
            load_shard(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("claim", [4097, 2**20, 2**32 - 1])
@pytest.mark.parametrize("present", [False, True])
def test_a_huge_header_is_refused_unread(path, claim, present):
    body = b" " * min(claim, 2**20) if present else b""
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", claim) + body
    tracemalloc.start()
    try:
        refused(path, content, f"a header of {claim + 12} bytes; expected at most 4096")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "nasty",
    ["(" * 3000, "[" * 4000, "-" * 4000 + "1", "{" * 2000, "\0" * 50, "'" * 101, "9" * 4000, ""],
    ids=lambda text: repr(text[:1]),
)
def test_a_header_that_hurts_a_parser_is_refused(path, nasty):
    refused(path, npy(nasty), "header that cannot be read")


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ([("image", "|u1", (2**40, 2**40)), ("label", "|u1")], (1,)),
        ([("image", "|u1", (-1,)), ("label", "|u1")], (1,)),
        ([("image", "|u1", (D,)), ("image", "|u1")], (1,)),
        ([("image", "nonsense", (D,)), ("label", "|u1")], (1,)),
        (DESCR, (1.5,)),
        (DESCR, 3),
        (7, (1,)),
        ([], (1,)),
        ({}, (1,)),
    ],
)
def test_a_header_that_describes_nothing_possible_is_refused(path, descr, shape):
    refused(path, npy(head(descr, shape), bytes(100)), "found")


@pytest.mark.parametrize("version", [(0, 0), (3, 0), (9, 9)])
def test_unknown_versions_are_refused(path, version):
    refused(path, npy(head(DESCR, (1,)), bytes(D + 1), version), "version")


def test_version_2_is_read_as_version_1_is(path):
    path.write_bytes(npy(head(DESCR, (2,)), bytes(2 * (D + 1)), (2, 0)))
    assert load_shard(path).images.shape == (2, D)


# Layouts that are not a shard's


@pytest.mark.parametrize("shape", [(5,), (5, D), (5, 2, 3)])
def test_a_plain_array_is_refused_and_the_hint_names_save_shard(path, shape):
    error = refused(path, np.zeros(shape), "a plain array of shape")
    assert error.hint is not None
    assert "save_shard" in error.hint


@pytest.mark.parametrize(
    ("dtype", "match"),
    [
        ([("image", "u1", (D,))], "the fields image;"),
        ([("label", "u1")], "the fields label;"),
        ([("image", "u1", (D,)), ("label", "u1"), ("name", "S4")], "the fields image, label, name"),
        ([("label", "u1"), ("image", "u1", (D,))], "packed another way"),
        ([("image", "<f4", (D,)), ("label", "u1")], "packed another way"),
        ([("image", ">f4", (D,)), ("label", "u1")], "images of type >f4"),
        ([("image", "<f8", (D,)), ("label", "u1")], "images of type <f8"),
        ([("image", "i1", (D,)), ("label", "u1")], r"images of type \|i1"),
        ([("image", "u1"), ("label", "u1")], r"images of shape \(\)"),
        ([("image", "u1", (2, 3)), ("label", "u1")], r"images of shape \(2, 3\)"),
        ([("image", "u1", (D,)), ("label", "<i8")], "labels of type <i8"),
        ([("image", "u1", (D,)), ("label", "u1", (2,))], "labels of type"),
    ],
)
def test_another_layout_is_refused(path, dtype, match):
    refused(path, np.zeros(3, np.dtype(dtype)), match)


def test_records_in_a_grid_are_refused(path):
    refused(path, np.zeros((3, 2), ALIGNED), r"an array of shape \(3, 2\)")
    refused(path, np.zeros((), ALIGNED), r"an array of shape \(\)")
    refused(path, npy(head(DESCR, (-3,))), r"an array of shape \(-3,\)")


def test_a_shard_without_records_is_refused(path):
    refused(path, records(0), "no records")


# Contents that do not fit


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_by_record_and_place(path, value):
    array = records(40_000)
    array["image"][31_234, 4] = value
    refused(path, array, f"found {value} in record 31234, value 4")


def test_another_number_of_features_is_refused(path):
    refused(path, records(), "images of 6 values; expected 784", features=784)


def test_labels_out_of_range_are_refused_with_the_first_such_record(path):
    array = records()
    array["label"][7] = 12
    error = refused(path, array, "labels 0 to 12, .* record 7; expected 0 to 9", classes=10)
    assert error.hint is not None
    assert "subtract" not in error.hint


def test_labels_from_1_to_10_are_told_to_subtract_1(path):
    array = records()
    array["label"] += 1
    error = refused(path, array, "labels 1 to 10", classes=10)
    assert error.hint is not None
    assert "subtract 1" in error.hint


def test_a_client_that_lacks_digits_is_welcome(path):
    array = records()
    array["label"] = 4
    np.save(path, array)
    assert set(load_shard(path, features=D, classes=10).labels) == {4}


# Paths that are no file


def test_an_empty_file_is_refused(path):
    refused(path, b"", "an empty file")


@pytest.mark.parametrize("content", [b"1,2,3\n", b"\x93NUMPX\x01\x00", b"\x89HDF\r\n\x1a\n", b"\0"])
def test_other_files_are_refused(path, content):
    refused(path, content, "starts with")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ShardError, match="it is a directory"):
        load_shard(tmp_path)


def test_a_missing_file_is_refused(path):
    with pytest.raises(ShardError, match="No such file"):
        load_shard(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_without_waiting_for_it(path):
    os.mkfifo(path)
    with pytest.raises(ShardError, match="not a regular file"):
        load_shard(path)


# And whatever else there is


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_shard_loads_or_is_refused_and_nothing_else(path, data):
    save_shard(path, np.arange(30, dtype=np.float32).reshape(5, D), np.arange(5))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    # A new file: the old one may still be mapped.
    path.unlink()
    path.write_bytes(content)
    try:
        shard = load_shard(path, features=D, classes=10)
    except ShardError:
        return
    assert np.isfinite(shard.arrays()[0]).all()
    assert shard.labels.max() < 10


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.text(st.characters(max_codepoint=255), max_size=80), data=st.binary(max_size=40))
def test_any_header_is_refused_with_a_shard_error(path, header, data):
    path.write_bytes(npy(header.encode("latin1"), data))
    with pytest.raises(ShardError):
        load_shard(path)
