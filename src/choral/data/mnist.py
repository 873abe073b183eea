"""MNIST, and whatever comes in its format, from a person's own IDX files.

python-mnist (extra `choral[mnist]`) parses them. It believes what a header says and compares
neither counts nor lengths, so both are compared here: before it reads, because it would set memory
aside for what a header claims, and after, because what leaves here is somebody's training data.
"""

from __future__ import annotations

import gzip
import importlib
import itertools
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from choral.errors import ParameterError, ShardError

_IMAGES, _LABELS = 2051, 2049  # magic numbers: unsigned bytes, three dimensions and one
_MOST = 10_000_000  # examples; the largest set in this format, QMNIST and EMNIST included, has below 1e6
_SIDE = 1024
_ROWS = 10_000  # read at once: the parser keeps a Python list of integers for them
_BLOCK = 1 << 20
_GET = 'pip install "choral[mnist]"'


@dataclass(frozen=True)
class Pair:
    """One set: a file of images, one of labels, both plain or both gzipped. Paths without `.gz`."""

    images: Path
    labels: Path
    gz: bool


def load(
    folder: str | os.PathLike[str], part: str, *, classes: int = 10, prefix: str = ""
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """X (n, rows * columns) uint8 and y (n,) uint8 of the `train` or the `t10k` files in a folder.

    The files are called `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or `t10k-…`), with
    or without `.gz`. 60,000 images take python-mnist some seconds.

    Args:
        prefix: what the names begin with, such as `emnist-letters-`; by default whatever is there.

    Raises:
        ParameterError: no python-mnist, or another package where it should be.
        ShardError: files missing, cut short, too long, that do not belong together, or with labels
            outside 0 to classes - 1.
    """
    parser = _parser()
    images, labels = _read(parser, find(Path(folder), part, prefix))
    _check_labels(Path(folder), labels, classes)
    return images, labels


def load_both(
    folder: str | os.PathLike[str], *, classes: int = 10, prefix: str = ""
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]], bool]:
    """The training and the test part, as `load` reads them, and whether labels were counted from 1.

    Labels 1 to `classes` in both, as the letters of EMNIST have, become 0 to classes - 1.

    Raises:
        ParameterError, ShardError: as `load`.
    """
    parser = _parser()
    train = find(Path(folder), "train", prefix)
    begin = train.images.name.partition("train-images")[0]
    test = find(Path(folder), "t10k", begin)
    if not test.images.name.startswith((f"{begin}t10k-", f"{begin}test-")):
        _refuse(test.images, "a test part alone", f"one of the set that {train.images.name} belongs to")
    (X, y), (X_test, y_test) = (_read(parser, pair) for pair in (train, test))  # noqa: N806
    labels = np.concatenate([y, y_test])
    from_one = int(labels.min()) == 1 and int(labels.max()) == classes
    if from_one:
        y, y_test = y - np.uint8(1), y_test - np.uint8(1)
    else:
        _check_labels(Path(folder), labels, classes)
    return (X, y), (X_test, y_test), from_one


def _read(parser: Any, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    count, rows, columns = _header(pair.images, _IMAGES, 3, gz=pair.gz)
    (labels,) = _header(pair.labels, _LABELS, 1, gz=pair.gz)
    if count != labels:
        _refuse(pair.labels, f"{labels} labels", f"{count}, one for each image in {pair.images.name}")
    if not (0 < rows <= _SIDE and 0 < columns <= _SIDE):
        _refuse(pair.images, f"images of {rows}x{columns}", f"sides of 1 to {_SIDE} pixels")
    for path, start, size in ((pair.images, 16, count * rows * columns), (pair.labels, 8, count)):
        _check_length(path, start + size, gz=pair.gz)
    # the very literal: python-mnist 0.7 compares with `is`
    mnist = parser(str(pair.images.parent), return_type="numpy", gz=pair.gz)
    images, told = np.empty((count, rows * columns), np.uint8), np.empty(count, np.uint8)
    for first in range(0, count, _ROWS):
        some = min(_ROWS, count - first)
        found = mnist.load(str(pair.images), str(pair.labels), batch=[first, some])
        block, block_labels = mnist.process_images(found[0]), mnist.process_labels(found[1])
        if block.shape != (some, rows * columns) or block_labels.shape != (some,):
            _refuse(pair.images, f"{block.shape} values", f"({some}, {rows * columns}) from {first} on")
        if block.min() < 0 or block.max() > 255:
            _refuse(pair.images, f"values {block.min()} to {block.max()}", "0 to 255")
        images[first : first + some], told[first : first + some] = block, block_labels
    return images, told


def _check_labels(folder: Path, labels: NDArray[np.uint8], classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if high >= classes:
        raise ShardError(
            f"{folder}: found labels {low} to {high}; expected 0 to {classes - 1} for {classes} classes",
            hint=f"--classes {high if low == 1 else high + 1} for this set",
        )


def find(folder: Path, part: str, prefix: str = "") -> Pair:
    """The files of `part`, `train` or `t10k`, whatever their names begin with if no prefix is given.

    Raises:
        ShardError: there are none, or several.
    """
    parts = (part, "test") if part == "t10k" else (part,)  # EMNIST calls it test
    found: dict[str, Pair] = {}
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise ShardError(
            f"{folder}: found a folder that cannot be read ({error.strerror or error}); expected IDX files",
            hint="give the folder with the four MNIST files",
        ) from error
    for name in sorted(names):
        for called, dash, gz in itertools.product(parts, "-.", ("", ".gz")):  # some archives have a full stop
            end = f"{called}-images{dash}idx3-ubyte{gz}"
            begin = name.removesuffix(end)
            labels = f"{begin}{called}-labels{dash}idx1-ubyte"
            if name.endswith(end) and labels + gz in names and begin not in found:
                found[begin] = Pair(folder / name.removesuffix(".gz"), folder / labels, gz=bool(gz))
    if prefix in found:
        return found[prefix]
    if len(found) == 1 and not prefix:
        return next(iter(found.values()))
    if found:
        raise ShardError(
            f"{folder}: found sets that begin with {', '.join(map(repr, found))}; expected one of them",
            hint="--prefix says which",
        )
    raise ShardError(
        f"{folder}: found no pair of {prefix}{part}-images-idx3-ubyte and {prefix}{part}-labels-idx1-ubyte;"
        " expected both, plain or both with .gz",
        hint="give the folder with the four MNIST files; Choral does not download them",
    )


def _parser() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # about those comparisons with `is`
            module = importlib.import_module("mnist")
    except ImportError as error:
        raise ParameterError(
            "MNIST files are read by python-mnist, which is not installed", hint=_GET
        ) from error
    parser = getattr(module, "MNIST", None)
    if not all(
        callable(getattr(parser, name, None)) for name in ("load", "process_images", "process_labels")
    ):
        raise ParameterError(
            f"`import mnist` gives another package than python-mnist ({getattr(module, '__file__', '?')})",
            hint=f"two packages share that name: pip uninstall mnist, then {_GET}",
        )
    return parser


def _zipped(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def _open(path: Path, *, gz: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(_zipped(path), "rb")) if gz else path.open("rb")


def _header(path: Path, magic: int, dimensions: int, *, gz: bool) -> tuple[int, ...]:
    try:
        with _open(path, gz=gz) as file:
            head = file.read(4 + 4 * dimensions)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(path, f"a file that cannot be read ({error})", "an IDX file")
    if len(head) != 4 + 4 * dimensions:
        _refuse(path, f"{len(head)} bytes", f"an IDX header of {4 + 4 * dimensions}")
    found, *sides = (int(number) for number in np.frombuffer(head, ">u4"))
    if found != magic:
        _refuse(path, f"magic number {found}", f"{magic}, unsigned bytes in {dimensions} dimensions")
    if not 0 < sides[0] <= _MOST:
        _refuse(path, f"a header that claims {sides[0]} examples", f"1 to {_MOST}")
    return tuple(sides)


def _check_length(path: Path, expected: int, *, gz: bool) -> None:
    size = 0
    try:
        if gz:  # unpacked to count, and no further than what is expected
            with _open(path, gz=True) as file:
                while size <= expected and (block := file.read(_BLOCK)):
                    size += len(block)
        else:
            size = path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        _refuse(path, f"a file that cannot be read ({error})", f"{expected} bytes")
    if size != expected:
        more = "more than " if gz and size > expected else ""
        _refuse(
            path, f"{more}{min(size, expected) if more else size} bytes", f"{expected}, as its header says"
        )


def _refuse(path: Path, found: str, expected: str) -> NoReturn:
    raise ShardError(
        f"{path}: found {found}; expected {expected}", hint="copy or download the file again, whole"
    )
