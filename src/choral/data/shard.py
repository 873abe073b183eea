"""The shard: one client's labelled images in one `.npy` file.

A shard is one structured array of n records, aligned:

    [("image", "u1" or "<f4", (d,)), ("label", "u1")]

It is untrusted input. Nothing in it is ever executed (no pickle), nothing is allocated because
its header says so, and every refusal names the file, what was found and what was expected.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from choral.data.examples import floats
from choral.data.labels import from_array, plain
from choral.disk import replacing
from choral.errors import ShardError

Images = NDArray[np.uint8] | NDArray[np.float32]

# A shard's own header takes 128 bytes. The limit keeps a hostile one away from the parser.
MAX_HEADER = 4096
# Bytes of images looked at in one go: small enough for a core's cache.
BLOCK = 1 << 19

_RESAVE = "make the file with choral.data.save_shard(path, X, y)"
_ONE_ARRAY = "one structured array with the fields image and label"


def layout(features: int, kind: str) -> np.dtype[np.void]:
    """The record of a shard: `features` values of `kind` ("u1" or "<f4") and a label."""
    return np.dtype([("image", kind, (features,)), ("label", "u1")], align=True)


@dataclass(frozen=True)
class Summary:
    """What is in a shard. `minimum`, `maximum`, `mean` are of the values as stored."""

    records: int
    features: int
    dtype: str  # "u1" or "f4"
    labels: dict[int, int]  # label -> records that carry it; labels that do not occur are left out
    minimum: float
    maximum: float
    mean: float
    bytes: int  # the whole file


@dataclass(frozen=True, eq=False)
class Shard:
    """An opened and checked shard of n records with d values each.

    `images` is (n, d) uint8 or float32, read-only and mapped from the file: a page is read when
    it is used. `labels` is (n,) uint8, read-only.
    """

    path: Path
    images: Images
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Fresh arrays to train on: X (n, d) float32, y (n,) uint8.

        u1 pixels are divided by 255 and so lie in [0, 1]; f4 values come as they were stored.
        """
        x = floats(self.images)
        if x is self.images or not x.flags.c_contiguous:  # mapped, every record with its label
            x = np.array(x, order="C")
        return x, self.labels.copy()

    def describe(self) -> Summary:
        """Count and measure; reads the whole file once, a block at a time."""
        low, high, total = np.inf, -np.inf, 0.0
        for _, block in _blocks(self.images):
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            total += float(block.sum(dtype=np.float64))
        values, counts = np.unique(self.labels, return_counts=True)
        records, features = self.images.shape
        return Summary(
            records=records,
            features=features,
            dtype=self.images.dtype.str[1:],
            labels=dict(zip(values.tolist(), counts.tolist(), strict=True)),
            minimum=low,
            maximum=high,
            mean=total / self.images.size,
            bytes=self.path.stat().st_size,
        )


def load(path: str | os.PathLike[str], *, features: int | None = None, classes: int | None = None) -> Shard:
    """Open the shard at `path`, check every record, and map its images.

    `features` is the d that the task expects, `classes` its number of classes: labels must be
    0 to classes - 1. Without them any d and any label from 0 to 255 is accepted.

    Raises ShardError: no such file, not a shard, truncated, empty, another d, a label out of
    range, NaN or infinity.
    """
    path = Path(path)
    try:
        # Looked at before opening: to open a named pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not a regular file"
            _refuse(path, f"it is {kind}", "a .npy file", "give the path of the shard itself")
        with path.open("rb") as file:
            pages, records = _map(path, file, features)
    except OSError as error:
        raise ShardError(
            f"{path}: cannot be read ({error.strerror or error}); expected a .npy file",
            hint=f"check the path and its permissions, or {_RESAVE}",
        ) from error
    images, labels = records["image"], np.empty(len(records), np.uint8)
    begin, kept = len(pages) - records.nbytes, 0
    for start, block in _blocks(images):
        labels[start : start + len(block)] = records["label"][start : start + len(block)]
        _check_finite(path, block, start)
        kept = _let_go(pages, kept, begin + (start + len(block)) * records.itemsize)
    labels.flags.writeable = False
    _check_labels(path, labels, classes)
    return Shard(path, images, labels)


def save_shard(
    path: str | os.PathLike[str],
    X: ArrayLike,  # noqa: N803
    y: ArrayLike,
    *,
    classes: Sequence[str] = (),
) -> Path:
    """Write images and labels as a shard and return its path.

    `X` is (n, d) or (n, h, w): uint8 is stored as u1, any float as f4. `y` is (n,) or (n, 1) whole
    numbers from 0, or one-hot rows; with `classes`, any names, each the number of its place there.
    The file appears whole or not at all: it is written beside `path`, then renamed.

    Raises ShardError: wrong shapes or types, no records, NaN or infinity (also after rounding
    to float32), a label outside 0 to 255, a place that cannot be written.
    """
    path = Path(path)
    images, labels = _check_images(path, plain(path, X, "X")), from_array(path, y, classes)
    if len(images) != len(labels):
        _refuse(path, f"{len(images)} images and {len(labels)} labels", "one label an image")
    kind = "u1" if images.dtype == np.uint8 else "<f4"
    with _whole_or_not(path) as file:
        record = layout(images.shape[1], kind)
        header = {
            "descr": npy.dtype_to_descr(record),
            "fortran_order": False,
            "shape": (len(images),),
        }
        npy.write_array_header_1_0(file, header)
        for start, block in _blocks(images):
            # zeros, so that padding never carries what was in memory before
            records = np.zeros(len(block), record)
            with np.errstate(over="ignore"):  # too large for float32: refused just below
                records["image"] = block
            _check_finite(path, records["image"], start)
            records["label"] = labels[start : start + len(block)]
            file.write(records.tobytes())
    return path


def _map(path: Path, file: BinaryIO, features: int | None) -> tuple[mmap.mmap, NDArray[np.void]]:
    """Map the records of an open file, once its header and its size agree. The mapping, and the records."""
    size = os.fstat(file.fileno()).st_size
    header = read_header(path, file.read(MAX_HEADER))
    dtype, offset = header.dtype, header.offset
    _check_dtype(path, dtype, header.shape, features)
    (count,) = header.shape
    if count == 0:
        _refuse(path, "no records", "at least one record", "give this client some data")
    expected = offset + count * dtype.itemsize
    if size != expected:
        _refuse(
            path,
            f"{size} bytes",
            f"{expected} bytes for the {count} records that its header claims",
            f"copy the file again if it was cut short, or {_RESAVE}",
        )
    # The same open file that was checked, so nobody can swap the path in between.
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pages, np.frombuffer(pages, dtype, count, offset)


def _let_go(pages: mmap.mmap, start: int, stop: int) -> int:
    """Of what was read for checking nothing stays in this process's memory: it is read again when used.

    Whole pages only; gives the byte from which the next call goes on.
    """
    stop = stop if stop == len(pages) else stop // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED, start, stop - start)
    return stop


@dataclass(frozen=True)
class Header:
    """What a `.npy` file says of itself: nothing of it is believed before it is compared with the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int  # where the data begin
    fortran: bool


def read_header(path: Path, prefix: bytes, wanted: str = _ONE_ARRAY, hint: str = _RESAVE) -> Header:
    """The header in the first MAX_HEADER bytes of a file. `wanted` is what the file should hold, for errors.

    Raises ShardError: no `.npy` file, or one whose header makes no sense.
    """
    if not prefix:
        _refuse(path, "an empty file", "a .npy file", hint)
    if prefix.startswith(b"PK"):
        _refuse(
            path,
            "a zip archive, as an .npz is, whatever the name says",
            f"a .npy file with {wanted}",
            hint,
        )
    if prefix.startswith(b"\x80"):
        _refuse(path, "a Python pickle, which is never opened", "a .npy file", hint)
    version = tuple(prefix[6:8])
    if not prefix.startswith(npy.MAGIC_PREFIX):
        _refuse(path, f"a file that starts with {prefix[:6]!r}", "a .npy file", hint)
    if version not in ((1, 0), (2, 0)):
        _refuse(path, f".npy version bytes {list(version)}", "version 1.0 or 2.0", hint)
    width = 2 if version == (1, 0) else 4
    offset = 8 + width + int.from_bytes(prefix[8 : 8 + width], "little")
    if offset > MAX_HEADER:
        _refuse(path, f"a header of {offset} bytes", f"at most {MAX_HEADER}", hint)
    stream = io.BytesIO(prefix[8:])
    read = npy.read_array_header_1_0 if width == 2 else npy.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old writers; the layout is checked anyway
            shape, fortran, dtype = read(stream, max_header_size=MAX_HEADER)
    except Exception as error:
        # numpy's parser promises ValueError, but nested brackets or absurd field names bring out
        # RecursionError, MemoryError, TypeError and others: whatever it is, it is no shard.
        raise ShardError(
            f"{path}: found a header that cannot be read; expected a .npy file with {wanted}",
            hint=hint,
        ) from error
    return Header(dtype, tuple(int(side) for side in shape), offset, bool(fortran))


def _check_dtype(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], features: int | None) -> None:
    if dtype.hasobject:
        _refuse(path, "Python objects, stored as a pickle which is never opened", _ONE_ARRAY)
    if dtype.names is None:
        _refuse(path, f"a plain array of shape {shape} and type {dtype.str}", _ONE_ARRAY)
    if set(dtype.names) != {"image", "label"}:
        _refuse(path, f"the fields {', '.join(dtype.names)}", "the fields image and label")
    image, label = dtype["image"], dtype["label"]
    if image.base.str not in ("|u1", "<f4"):
        _refuse(path, f"images of type {image.base.str}", "u1 or <f4")
    if len(image.shape) != 1 or image.shape[0] < 1:
        _refuse(path, f"images of shape {image.shape}", "a flat row of at least one value")
    if label.str != "|u1":
        _refuse(path, f"labels of type {label.str} and shape {label.shape}", "u1, one a record")
    if features is not None and image.shape[0] != features:
        _refuse(
            path,
            f"images of {image.shape[0]} values",
            f"{features}, as the task says",
            "use the data that the task was made for, or make a task for this data",
        )
    if dtype != layout(image.shape[0], image.base.str):
        _refuse(path, f"records of {dtype.itemsize} bytes, packed another way", "align=True")
    if len(shape) != 1 or shape[0] < 0:
        _refuse(path, f"an array of shape {shape}", "one row of records, shape (n,)")


def _check_labels(path: Path, labels: NDArray[np.uint8], classes: int | None) -> None:
    if classes is None or int(labels.max()) < classes:
        return
    low, high = int(labels.min()), int(labels.max())
    row = int(np.argmax(labels >= classes))
    _refuse(
        path,
        f"labels {low} to {high}, the first one out of range in record {row}",
        f"0 to {classes - 1} for {classes} classes",
        "labels start at 0: subtract 1 from each and save the shard again"
        if low >= 1 and high == classes
        else "check the labels, or the number of classes in the task",
    )


def _check_finite(path: Path, images: NDArray[Any], first: int = 0) -> None:
    if images.dtype == np.uint8:
        return
    for start, block in _blocks(images):
        finite = np.isfinite(block)
        if not finite.all():
            row, column = np.unravel_index(int(np.argmin(finite)), finite.shape)
            _refuse(
                path,
                f"{block[row, column]} in record {first + start + int(row)}, value {int(column)}",
                "finite float32 numbers",
                "clean or drop that record, then save the shard again",
            )


def _check_images(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        hint = "X.astype(numpy.float32)"
        if images.dtype.kind in "iu" and images.size and images.min() >= 0 and images.max() <= 255:
            hint = f"X.astype(numpy.uint8) (--pixels) if they are pixels, divided by 255; else {hint}"
        elif images.dtype.kind in "USO":
            hint = "an array of numbers; a sparse matrix has X.toarray()"
        elif images.dtype.kind not in "iub":
            hint = "numbers that stand for it"
        _refuse(path, f"X of type {images.dtype}", "uint8 or a float type", hint)
    if images.ndim not in (2, 3) or 0 in images.shape:
        _refuse(
            path,
            f"X of shape {images.shape}",
            "(n, d) or (n, h, w) with at least one record and one value",
            "X.reshape(len(X), -1) makes one flat row an image",
        )
    return images.reshape(len(images), -1)


def _blocks(images: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Consecutive rows of (n, d) images, about BLOCK bytes a piece, with the first row's index."""
    rows = max(1, BLOCK // (images.shape[1] * images.itemsize))
    for start in range(0, len(images), rows):
        yield start, images[start : start + rows]


@contextlib.contextmanager
def _whole_or_not(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place once it is complete and on disk."""
    if not path.name:
        _refuse(path, "no name of a file", "a place for a .npy file", "for example client_1_data.npy")
    try:
        if path.exists() and not path.is_file():  # a device must not be written into either
            _refuse(
                path, "something that is no file", "a place for a .npy file", "for example client_1_data.npy"
            )
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise ShardError(
            f"{path}: cannot be written ({error.strerror or error}); expected a file in a "
            "directory that exists",
            hint="check that the directory exists, is writable and has room",
        ) from error


def _refuse(path: Path, found: str, expected: str, hint: str = _RESAVE) -> NoReturn:
    raise ShardError(f"{path}: found {found}; expected {expected}", hint=hint)
