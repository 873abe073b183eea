"""A person's own `.npy` file with one plain array, mapped once its header and its size agree."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from choral.data.shard import BLOCK, MAX_HEADER, Header, read_header
from choral.errors import ShardError

_MOST_SIDES = 4  # of an array: images, rows, columns, colours
_SAVE = "numpy.save(path, array) with an array of numbers"


def from_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The plain array in a `.npy` file, mapped from it and not read.

    Raises:
        ShardError: not a `.npy` file, or one that is cut short or holds Python objects or a shard.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a named pipe would wait for its writer
            _refuse(path, "no regular file", "a .npy file", "give the path of the file itself")
        with path.open("rb") as file:
            header = read_header(path, file.read(MAX_HEADER), "one plain array of numbers", _SAVE)
            size = os.fstat(file.fileno()).st_size
        _check_array(path, header, size)
        order: Literal["C", "F"] = "F" if header.fortran else "C"
        return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        _refuse(path, f"a file that cannot be read ({why})", "a .npy file with one array of numbers", _SAVE)


def pixels(path: str | os.PathLike[str], X: NDArray[Any]) -> NDArray[np.uint8]:  # noqa: N803
    """The same values as uint8, looked at a block at a time: whole numbers from 0 to 255, of any type.

    Raises:
        ShardError: a value that is none, and where it stands; an array of something else than numbers.
    """
    path, wanted = Path(path), "whole numbers from 0 to 255 (--pixels)"
    if X.dtype.kind not in "iuf" or not X.ndim:
        _refuse(path, f"an array of shape {X.shape} and type {X.dtype}", wanted, _SAVE)
    found = np.empty(X.shape, np.uint8)
    rows = max(1, BLOCK // max(1, X.itemsize * math.prod(X.shape[1:])))
    for start in range(0, len(X), rows):
        block, kept = X[start : start + rows], found[start : start + rows]
        with np.errstate(invalid="ignore"):
            kept[:] = block.astype(np.uint8)
        if not (good := kept == block).all():
            place = np.unravel_index(int(np.argmin(good)), good.shape)
            at = (start + int(place[0]), *map(int, place[1:]))
            hint = "without --pixels, float32 numbers are taken as they are, already scaled to 0..1"
            _refuse(path, f"{block[place]} at {list(at)}", wanted, hint)
    return found


def _check_array(path: Path, header: Header, size: int) -> None:
    """Everything before numpy maps it: what is of no size ends the process there, by a division."""
    dtype, shape = header.dtype, header.shape
    if dtype.names is not None:
        _refuse(path, "a structured array", "a plain array of numbers", "a shard needs no conversion")
    if dtype.hasobject:
        _refuse(
            path, "Python objects, stored as a pickle which is never opened", "an array of numbers", _SAVE
        )
    if not dtype.itemsize or len(shape) > _MOST_SIDES or not all(side > 0 for side in shape):
        _refuse(
            path,
            f"an array of shape {shape} and type {dtype.str}",
            f"at least one value, and {_MOST_SIDES} sides at most",
            _SAVE,
        )
    if size != (expected := header.offset + math.prod(shape) * dtype.itemsize):
        _refuse(
            path,
            f"{size} bytes",
            f"{expected} bytes for the shape {shape} that its header claims",
            "copy the file again if it was cut short, or save one array in it",
        )


def _refuse(path: Path, found: str, expected: str, hint: str) -> NoReturn:
    raise ShardError(f"{path}: found {found}; expected {expected}", hint=hint)
