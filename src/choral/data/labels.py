"""Labels as people have them, as the numbers from 0 that a shard holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from choral.errors import ShardError

_SHOWN = 12  # labels in a sentence
_ORDER = "every member has to give the same list in the same order"


def from_array(path: Path, y: ArrayLike, classes: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Labels (n,) uint8 from integers, whole floats, truth values or one-hot rows.

    A column (n, 1) is taken as (n,). With `classes`, a label is its place in that list: also for text.

    Raises:
        ShardError: what cannot be a label, with a hint that is true for this shape and type.
    """
    labels = plain(path, y, "y")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1 and _is_one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        _refuse(path, f"y of shape {labels.shape}", "(n,), one label an image", _hint_for_shape(labels))
    if labels.dtype.kind == "O":
        labels = _of_one_kind(labels)
    if classes:
        return numbered(path, [str(label) for label in labels.tolist()], classes, "record {}".format)
    if labels.dtype.kind in "US":
        _refuse(
            path,
            f"labels that are text: {_some(labels.tolist())}",
            "whole numbers from 0",
            f'names = ["…", "…"]; y = [names.index(label) for label in y]; {_ORDER}',
        )
    _check_numbers(path, labels)
    return labels.astype(np.uint8)


def numbered(
    path: Path, texts: Sequence[str], classes: Sequence[str], where: Callable[[int], str]
) -> NDArray[np.uint8]:
    """Labels (n,) uint8 from text: the place in `classes`, or the whole number itself without any.

    Args:
        where: what to call the place of a label, by its row.

    Raises:
        ShardError: too many classes, or a label that is none of them, by its place.
    """
    if len(classes) > 256:
        _refuse(path, f"{len(classes)} classes", "256 at most", "a label is one byte")
    numbers = {_plain_number(name): number for number, name in enumerate(classes)}
    if len(numbers) != len(classes):
        _refuse(path, f"the classes {_some(list(classes))}", "different ones", "name each class once")
    found = np.empty(len(texts), np.uint8)
    for row, text in enumerate(texts):
        name = _plain_number(text)
        if not numbers and name.isascii() and name.isdecimal() and len(name) <= 3 and int(name) <= 255:
            found[row] = int(name)
        elif name in numbers:
            found[row] = numbers[name]
        elif numbers:
            _refuse(
                path,
                f"the label {shown(text)} in {where(row)}",
                f"one of {_some(list(classes))}",
                f"the list of classes has to name all of the federation; {_ORDER}",
            )
        else:
            _refuse(
                path,
                f"the label {shown(text)} in {where(row)}",
                "a whole number from 0 to 255",
                _hint_for_text(texts, name),
            )
    return found


def plain(path: Path, values: ArrayLike, name: str) -> NDArray[Any]:
    """`values` as an array with nothing hidden in it.

    Raises:
        ShardError: rows of different lengths, a masked value, a thing that is no array.
    """
    if np.ma.is_masked(values):
        _refuse(
            path,
            f"{name} with masked values",
            "a value in every place",
            f"fill or drop them: {name}.filled(0)",
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ShardError(
            f"{path}: found {name} that is no array ({error}); expected an array of numbers",
            hint=f"numpy.asarray({name}) has to work",
        ) from error


def shown(text: str) -> str:
    """Text of a file in a sentence: quoted, and not a page of it."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _plain_number(text: str) -> str:
    """`3.0` and `03` as `3`, so that labels which went through floats are the same labels."""
    text = text.strip()
    try:
        return str(int(float(text))) if float(text).is_integer() and "_" not in text else text
    except ValueError:
        return text


def _check_numbers(path: Path, labels: NDArray[Any]) -> None:
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels) & (np.trunc(labels) == labels)
        if not whole.all():
            at = int(np.argmin(whole))
            _refuse(
                path,
                f"the label {labels[at]} of record {at}",
                "whole numbers from 0",
                "a label is the number of a class; a shard holds no other right answers",
            )
    elif labels.dtype.kind not in "iub":
        _refuse(
            path, f"y of type {labels.dtype}", "whole numbers from 0", "number the classes 0, 1, 2 and so on"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        low, high = labels.min(), labels.max()
        found = np.unique(labels)
        if found.tolist() == [-1, 1]:
            hint = "y > 0 makes 0 and 1 of them"
        elif len(found) <= _SHOWN:
            hint = f"number the classes from 0: [{_some(found.tolist())}].index(label); {_ORDER}"
        elif len(found) <= 256:
            hint = f"number the {len(found)} classes from 0; {_ORDER}"
        else:
            hint = f"{len(found)} different labels: a shard has room for 256 classes"
        _refuse(path, f"labels {low} to {high}", "0 to 255 at most", hint)


def _is_one_hot(labels: NDArray[Any]) -> bool:
    if labels.dtype.kind not in "iufb":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _of_one_kind(labels: NDArray[Any]) -> NDArray[Any]:
    """An array of Python objects, as pandas has for a column of text, by what the objects are."""
    kinds = {type(label) for label in labels.tolist()}
    try:
        if kinds <= {str, np.str_}:
            return labels.astype(np.str_)
        if kinds <= {int, float, bool}:
            return np.array(labels.tolist())
    except (OverflowError, ValueError):
        pass
    return labels


def _hint_for_shape(labels: NDArray[Any]) -> str:
    if labels.ndim == 2 and labels.shape[0] == 1:
        return "y.ravel() makes one row of it"
    if labels.ndim == 2 and labels.dtype.kind in "iufb" and labels.size:
        if labels.dtype.kind == "f" and np.allclose(labels.sum(axis=1), 1) and labels.min() >= 0:
            return "rows of probabilities: y.argmax(axis=1) takes the most likely class of each"
        if ((labels == 0) | (labels == 1)).all():
            return "some rows have several ones, or none: a shard holds one label an image"
    return "a shard holds one label an image: choose the column that is to be learned"


def _hint_for_text(texts: Sequence[str], name: str) -> str:
    if not name:
        return "fill in or drop what is missing"
    found = sorted({_plain_number(text) for text in texts} - {""})
    if all(_is_number(text) for text in found):
        if not all(text.lstrip("-").isdecimal() for text in found):
            return "a label is the number of a class; a shard holds no other right answers"
        found.sort(key=float)
    if len(found) > _SHOWN:
        return f"{len(found)} different labels; --classes a,b,c numbers the classes, and {_ORDER}"
    names = ",".join(f'"{text}"' if "," in text else text for text in found)
    return f"--classes {names} numbers those found here; name all of the federation: {_ORDER}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _some(labels: Sequence[object]) -> str:
    different = list(dict.fromkeys(labels))
    more = f" … ({len(different)} different ones)" if len(different) > _SHOWN else ""
    return (
        ", ".join(shown(label) if isinstance(label, str) else f"{label}" for label in different[:_SHOWN])
        + more
    )


def _refuse(path: Path, found: str, expected: str, hint: str) -> NoReturn:
    raise ShardError(f"{path}: found {found}; expected {expected}", hint=hint)
