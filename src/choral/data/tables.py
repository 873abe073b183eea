"""A person's own CSV file as the arrays of a shard."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from choral.data.labels import numbered, shown
from choral.errors import ShardError

_BEGINS = (  # the longer mark first: UTF-32's begins as UTF-16's does
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_MISSING = {"", "?", "-", ".", "na", "n/a", "#n/a", "nan", "null", "nil", "none", "missing"}
_NO_NAME = re.compile(r"(Unnamed: \d+)?", re.ASCII)  # as pandas calls a column whose name is empty
_COUNTED = 10  # rows from which a column that counts them is taken for row numbers
_SHOWN = 12  # names in a sentence


@dataclass(frozen=True)
class _Column:
    """One column that is used: where it stands, and the categories of one that is text."""

    at: int
    name: str
    categories: tuple[str, ...] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={category}" for category in self.categories or ()) or (self.name,)


class Table(NamedTuple):
    """What was read: X (n, features) uint8 or float32, y (n,) uint8, and what the features are called."""

    X: NDArray[Any]
    y: NDArray[np.uint8]
    features: tuple[str, ...]


def from_csv(
    path: str | os.PathLike[str],
    label: str,
    *,
    classes: Sequence[str] = (),
    columns: Sequence[str] = (),
    drop: Sequence[str] = (),
    one_hot: Mapping[str, Sequence[str]] | None = None,
    pixels: bool = False,
    delimiter: str = ",",
    decimal: str = ".",
    encoding: str | None = None,
) -> Table:
    """The examples in a CSV file whose first line names its columns.

    Blanks around names, values and labels are left out, and so is a last column that is empty everywhere.

    Args:
        label: name of the column with the right answers.
        classes: names of the classes in the federation's order, for labels that are not whole numbers
            from 0. Every member has to give the same: the order found in one file may be another elsewhere.
        columns: the features, in this order; by default all columns but the label, in the file's order.
        drop: columns that are no features.
        one_hot: categories of columns that are text; each becomes a feature, 1 where it is the value. Empty
            ones are refused with those that are in the file.
        pixels: values are whole numbers from 0 to 255, and are stored as such: X is uint8, else float32.
        decimal: "," for numbers such as 3,14.
        encoding: by default what a byte order mark says, or UTF-8.

    Raises:
        ShardError: with the line and the column, whatever is no number or no label.
    """
    path = Path(path)
    if len(delimiter) != 1 or delimiter in '\r\n"':
        _refuse(path, f"the delimiter {delimiter!r}", "one character", "--delimiter ';', or tab")
    if decimal not in (".", ","):
        _refuse(path, f"the decimal sign {decimal!r}", "a point or a comma", "--decimal , reads 3,14")
    if one_hot and pixels:
        _refuse(path, "one-hot columns among pixels", "either", "leave out --pixels, and scale the values")
    images: list[NDArray[Any]] = []
    texts: list[str] = []
    lines: list[int] = []
    with _opened(path, encoding) as file:
        rows = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
        names = [name.strip("\ufeff \t") for name in next(rows, [])]
        while names[-1:] == [""]:
            names.pop()
        _check_names(path, names, label)
        used = _used(path, names, label, columns, drop, one_hot or {})
        at, features = names.index(label), tuple(name for column in used for name in column.features)
        good = _rows(path, rows, len(names))
        for column in used:
            if column.categories == ():
                _refuse_categories(path, column, good)
        for row in good:
            texts.append(row[at].strip())
            lines.append(rows.line_num)
            cells = _cells(path, row, used, rows.line_num)
            images.append(_numbers(path, cells, rows.line_num, features, pixels=pixels, decimal=decimal))
    if not images or not features:
        _refuse(path, f"{len(images)} examples of {len(features)} values", "at least one of each")
    found = np.stack(images)
    if not columns:
        _check_row_numbers(path, found, features)
    return Table(found, numbered(path, texts, classes, lambda row: f"line {lines[row]}"), features)


@contextlib.contextmanager
def _opened(path: Path, encoding: str | None) -> Iterator[io.TextIOWrapper]:
    """The text of a file, whose faults become refusals."""
    try:
        with path.open("rb") as raw:
            begin = raw.peek(4)[:4]  # a pipe can be read once only
            marked = next((name for mark, name in _BEGINS if begin.startswith(mark)), "utf-8")
            with io.TextIOWrapper(raw, encoding or marked, newline="") as file:
                yield file
    except OSError as error:
        _refuse(path, f"a file that cannot be read ({error.strerror or error})", "a CSV file")
    except UnicodeError as error:
        _refuse(
            path,
            f"bytes that are no text ({error})",
            f"a CSV file in {encoding or 'UTF-8'}",
            "--encoding cp1252 is what Excel writes in Western Europe",
        )
    except LookupError:
        _refuse(path, f"the encoding {encoding!r}", "one that Python knows", "--encoding cp1252, for example")
    except csv.Error as error:
        _refuse(
            path, f"a file that cannot be read ({error})", "a CSV file", "a quoted value ends with a quote"
        )


def _check_names(path: Path, names: Sequence[str], label: str) -> None:
    if twice := {name for name in names if name and names.count(name) > 1}:
        _refuse(
            path, f"more than one column called {_some(sorted(twice))}", "different names in the first line"
        )
    if label in names:
        return
    hint = "--label names one of the file's own columns"
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        sign = "tab" if other == "\t" else f"{other!r}"
        hint = f"the values seem to be separated by {other!r}: --delimiter {sign}"
    elif near := [name for name in names if name.casefold().strip(",;") == label.strip().casefold()]:
        hint = f"--label {shown(near[0])}"
    elif names and all(_is_number(name) for name in names):
        hint = "the first line has to name the columns; this one holds values"
    elif any("\0" in name for name in names):
        hint = "--encoding utf-16-le, perhaps"
    found = f"the columns {_some(names)}" if names else "no names"
    _refuse(path, found, f"a first line with {label!r} among its names", hint)


def _used(  # noqa: PLR0917
    path: Path,
    names: Sequence[str],
    label: str,
    columns: Sequence[str],
    drop: Sequence[str],
    one_hot: Mapping[str, Sequence[str]],
) -> tuple[_Column, ...]:
    """The columns that become features, in the order that was asked for, or the file's."""
    for option, given in (("--columns", columns), ("--drop", drop), ("--one-hot", one_hot)):
        if label in given:
            _refuse(path, f"the label {label!r} in {option}", "other columns", "the label is no feature")
        if unknown := [name for name in given if name not in names and not _position(name, names)]:
            hint = "blanks around names do not count; capitals do"
            _refuse(path, f"no column {_some(unknown)} for {option}", f"some of {_some(names)}", hint)
    if columns and drop:
        _refuse(path, "--columns and --drop", "one of them", "--columns names all features, in their order")
    used: list[_Column] = []
    gone = {_position(name, names) or names.index(name) + 1 for name in drop}
    chosen = [_position(name, names) or names.index(name) + 1 for name in columns]
    for place in chosen or range(1, len(names) + 1):
        name = names[place - 1]
        if name == label or place in gone:
            continue
        if _NO_NAME.fullmatch(name) and not columns:
            _refuse(
                path,
                f"a column without a name, number {place} in the file: row numbers, perhaps",
                "a name for every feature",
                f"--drop {_unnamed(place)} leaves it out; if it is data, name it in the first line",
            )
        used.append(
            _Column(place - 1, name or _unnamed(place), tuple(one_hot[name]) if name in one_hot else None)
        )
    if lost := sorted(set(one_hot) - {column.name for column in used}):
        _refuse(path, f"--one-hot for {_some(lost)}, which is left out", "a column that is a feature")
    return tuple(used)


def _unnamed(place: int) -> str:
    return f"unnamed-{place}"


def _position(name: str, names: Sequence[str]) -> int:
    """The place, from 1, of a column without a name that is called by its place; otherwise 0."""
    number = name.removeprefix("unnamed-")
    place = int(number) if name != number and number.isdecimal() and len(number) < 6 else 0
    return place if 0 < place <= len(names) and _NO_NAME.fullmatch(names[place - 1]) else 0


def _rows(path: Path, rows: Any, width: int) -> Iterator[list[str]]:
    """The rows of so many values; an empty value after the last one is none, nor is an empty line."""
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        while len(row) > width and not row[-1].strip():
            row.pop()
        if len(row) != width:
            hint = "a value with the delimiter in it stands in quotes"
            if len(row) == width + 1 and _is_number(row[0]):
                hint += "; or the rows begin with a number that the first line has no name for"
            _refuse(
                path,
                f"{len(row)} values in line {rows.line_num}",
                f"{width}, as in the first line",
                hint,
            )
        yield row


def _cells(path: Path, row: Sequence[str], used: Sequence[_Column], line: int) -> list[str]:
    """The values of the features, a category as zeros and a one."""
    cells: list[str] = []
    for column in used:
        text = row[column.at].strip()
        if column.categories is None:
            cells.append(text)
        elif text in column.categories:
            cells += ["1" if text == category else "0" for category in column.categories]
        else:
            _refuse(
                path,
                f"{shown(text)} in line {line}, column {shown(column.name)}",
                f"one of {_some(column.categories)}",
                f"--one-hot {column.name}=… has to name all values there are, the same at every member",
            )
    return cells


def _refuse_categories(path: Path, column: _Column, rows: Iterable[list[str]]) -> NoReturn:
    found = sorted({row[column.at].strip() for row in rows})
    if len(found) > 256 or "" in found:
        hint = "fill in what is missing" if "" in found else "so many are no categories"
    else:
        names = ",".join(f'"{name}"' if "," in name else name for name in found)
        hint = f"--one-hot {f'{column.name}={names}'!r} has those found here; name all of the federation"
    _refuse(
        path,
        f"no list of categories for column {shown(column.name)}",
        "the same list at every member, or their features would not be the same",
        hint,
    )


def _numbers(
    path: Path, cells: Sequence[str], line: int, names: Sequence[str], *, pixels: bool, decimal: str
) -> NDArray[Any]:
    kind: Any = np.uint8 if pixels else np.float32
    numbers = (
        [cell.replace(",", ".") if "." not in cell else "" for cell in cells] if decimal == "," else cells
    )
    try:
        values = np.array(numbers, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: found just below
            found = values.astype(kind, casting="unsafe")
        good = (found == values) if pixels else np.isfinite(found)
        if "_" in "".join(numbers):  # Python's numbers may have them, people's do not
            good &= np.array(["_" not in number for number in numbers])
    except ValueError:
        good = np.array([_is_number(number) for number in numbers])
        found = np.empty(0, kind)
    if not good.all():
        column = int(np.argmin(good))
        _refuse_value(path, cells[column], line, names[column], pixels=pixels, decimal=decimal)
    return found


def _refuse_value(path: Path, text: str, line: int, name: str, *, pixels: bool, decimal: str) -> NoReturn:
    expected = "a whole number from 0 to 255" if pixels else "a finite number"
    left_out = f"--drop {shown(name)} leaves the column out"
    what = shown(text) if text else "an empty value"
    if text.casefold() in _MISSING:
        hint = f"fill in or drop what is missing, the same way at every member, or {left_out}"
    elif decimal == "." and re.fullmatch(r"[+-]?\d+,\d+", text):
        hint = "if 3,14 is three and a bit, --decimal , reads it; a comma that separates thousands has to go"
    elif decimal == "," and _is_number(text):
        hint = "a point in a number may separate thousands here: write them without, or leave out --decimal"
    elif _is_number(text):
        hint = (
            "correct or drop that line"
            if not pixels
            else "without --pixels, any finite number may stand there"
        )
    else:
        hint = (
            f"for a column of categories, --one-hot {shown(name + '=a,b,c')} makes a feature of each,"
            f" the same list at every member; {left_out}"
        )
    _refuse(path, f"{what} in line {line}, column {shown(name)}", expected, hint)


def _check_row_numbers(path: Path, found: NDArray[Any], names: Sequence[str]) -> None:
    """Row numbers tell nothing but the order of a file, and a model learns them with zeal."""
    if len(found) < _COUNTED:
        return
    count = np.arange(len(found)).astype(np.float32)
    for column, name in enumerate(names):
        values = found[:, column]
        if values[0] in (0, 1) and (values == count + np.float32(values[0])).all():
            _refuse(
                path,
                f"a column {shown(name)} that numbers the rows from {values[0]:g} on",
                "features",
                f"--drop {shown(name)} leaves it out; if it is data, name all features with --columns",
            )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_SHOWN])) + (" …" if len(names) > _SHOWN else "")


def _refuse(
    path: Path, found: str, expected: str, hint: str = "see the data page of the documentation"
) -> NoReturn:
    raise ShardError(f"{path}: found {found}; expected {expected}", hint=hint)
