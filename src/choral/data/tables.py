"""A person's own files as the arrays of a shard: two `.npy` files, or one CSV with a header."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from choral.data.shard import MAX_HEADER
from choral.errors import ShardError


def from_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The plain array in a `.npy` file, mapped from it and not read.

    Raises:
        ShardError: not a `.npy` file, or one that is cut short or holds Python objects or a shard.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            begin = file.read(len(npy.MAGIC_PREFIX))
        if begin != npy.MAGIC_PREFIX:  # a renamed zip or pickle would be opened as such by numpy.load
            _refuse(path, f"a file that starts with {begin!r}", "a .npy file", "numpy.save(path, array)")
        array = npy.open_memmap(path, mode="r", max_header_size=MAX_HEADER)
    except (OSError, ValueError, EOFError) as error:
        _refuse(path, f"a file that cannot be read ({error})", "a .npy file with one array of numbers")
    if array.dtype.names is not None:
        _refuse(path, "a structured array", "a plain array of numbers", "a shard needs no conversion")
    return array


def from_csv(
    path: str | os.PathLike[str],
    label: str,
    *,
    classes: Sequence[str] = (),
    pixels: bool = False,
    delimiter: str = ",",
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """X (n, columns - 1) and y (n,) of a CSV file whose first line names its columns.

    Args:
        label: name of the column with the right answers.
        classes: names of the classes in the federation's order, for labels that are not whole numbers
            from 0. Every member has to give the same: the order found in one file may be another elsewhere.
        pixels: values are whole numbers from 0 to 255, and are stored as such: X is uint8, else float32.

    Raises:
        ShardError: with the line and the column, whatever is no number or no label.
    """
    path = Path(path)
    numbers = {name: number for number, name in enumerate(classes)}
    images: list[NDArray[Any]] = []
    labels: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(rows, [])
            if label not in names or len(set(names)) != len(names):
                _refuse(
                    path,
                    f"the columns {', '.join(names[:12])}{' …' if len(names) > 12 else ''}",
                    f"a first line with different names, {label!r} among them",
                    "--label names one of the file's own columns",
                )
            at = names.index(label)
            for row in rows:
                if not row:
                    continue
                where = f"line {rows.line_num}"
                if len(row) != len(names):
                    _refuse(path, f"{len(row)} values in {where}", f"{len(names)}, as in the first line")
                labels.append(_label(path, row.pop(at), where, numbers))
                images.append(_features(path, row, where, [*names[:at], *names[at + 1 :]], pixels=pixels))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        _refuse(path, f"a file that cannot be read ({error})", "a CSV file in UTF-8")
    if not images or not images[0].size:
        _refuse(path, f"{len(images)} examples of {len(names) - 1} values", "at least one of each")
    return np.stack(images), np.array(labels, np.uint8)


def _label(path: Path, text: str, where: str, numbers: dict[str, int]) -> int:
    text = text.strip()
    if numbers:
        if text not in numbers:
            _refuse(path, f"the label {text!r} in {where}", f"one of {', '.join(numbers)}")
        return numbers[text]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value.is_integer() and 0 <= value <= 255):
        _refuse(
            path,
            f"the label {text!r} in {where}",
            "a whole number from 0 to 255",
            "--classes a,b,c numbers the classes; every member has to give the same order",
        )
    return int(value)


def _features(path: Path, row: list[str], where: str, names: Sequence[str], *, pixels: bool) -> NDArray[Any]:
    kind: Any = np.uint8 if pixels else np.float32
    try:
        values = np.array(row, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: found just below
            found = values.astype(kind, casting="unsafe")
        good = (found == values) if pixels else np.isfinite(found)
    except ValueError:
        good = np.array([_is_number(text) for text in row])
    if not good.all():
        column = int(np.argmin(good))
        _refuse(
            path,
            f"{row[column]!r} in {where}, column {names[column]!r}",
            "a whole number from 0 to 255" if pixels else "a finite number",
            "fill in or drop what is missing, and number what is text, the same way at every member",
        )
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _refuse(
    path: Path, found: str, expected: str, hint: str = "see the data page of the documentation"
) -> NoReturn:
    raise ShardError(f"{path}: found {found}; expected {expected}", hint=hint)
