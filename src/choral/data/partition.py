"""Ways to spread one labelled data set over clients.

Each function returns `parts` sorted index arrays (int64); every example is in exactly one of
them and none of them is empty. The same labels and the same seed give the same parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from choral.errors import ParameterError

Parts = list[NDArray[np.int64]]

N = TypeVar("N", int, float)

FORMS = "iid, label, dirichlet:ALPHA (as dirichlet:0.5) or shards:N (as shards:2)"


def iid(labels: ArrayLike, parts: int, rng: np.random.Generator) -> Parts:
    """Shuffle and cut in equal parts, to within one example.

    Raises ParameterError: fewer examples than parts.
    """
    count = len(_labels(labels, parts))
    return [np.sort(part) for part in np.array_split(rng.permutation(count), parts)]


def dirichlet(
    labels: ArrayLike, parts: int, alpha: float, rng: np.random.Generator, minimum: int = 10
) -> Parts:
    """Give each class to the parts in proportions drawn from Dirichlet(alpha, ..., alpha).

    A large alpha comes close to IID, a small one leaves most parts with few classes (Hsu, Qi and
    Brown 2019, arXiv:1909.06335). Parts below `minimum` examples are then filled up with random
    examples of the largest one, so a small alpha cannot leave a client with nothing.

    Raises ParameterError: alpha outside 0.001 to 1000000, a minimum below 1, fewer examples than
    parts * minimum.
    """
    if not 0.001 <= alpha <= 1e6:
        raise ParameterError(
            f"found alpha {alpha}; expected a number from 0.001 to 1000000",
            hint="0.1 is very uneven, 0.5 uneven, 100 nearly even",
        )
    if minimum < 1:
        raise ParameterError(
            f"found a minimum of {minimum} examples; expected at least 1", hint="10 is usual"
        )
    y = _labels(labels, parts, minimum)
    owner = np.empty(len(y), np.int64)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        shares = rng.dirichlet(np.full(parts, alpha))
        # Rounding the running total, not each share, deals out every example.
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in enumerate(np.split(members, cuts)):
            owner[piece] = part
    sizes = np.bincount(owner, minlength=parts)
    while sizes.min() < minimum:
        poor, rich = int(sizes.argmin()), int(sizes.argmax())
        moved = min(minimum - int(sizes[poor]), int(sizes[rich]) - minimum)
        owner[rng.choice(np.flatnonzero(owner == rich), moved, replace=False)] = poor
        sizes = np.bincount(owner, minlength=parts)
    return [np.flatnonzero(owner == part) for part in range(parts)]


def by_label(labels: ArrayLike, parts: int, rng: np.random.Generator) -> Parts:
    """Deal the classes out in contiguous groups: two parts of ten classes hold 0-4 and 5-9.

    With more parts than classes each part has one class, and the parts that share a class share
    its examples evenly and at random.

    Raises ParameterError: a class with fewer examples than the parts that share it.
    """
    y = _labels(labels, parts)
    classes = np.unique(y)
    if parts <= len(classes):
        return [np.flatnonzero(np.isin(y, group)) for group in np.array_split(classes, parts)]
    result: Parts = []
    for label, sharers in zip(classes, np.array_split(np.arange(parts), len(classes)), strict=True):
        members = np.flatnonzero(y == label)
        if len(members) < len(sharers):
            raise ParameterError(
                f"found {len(members)} examples of class {label}; expected at least "
                f"{len(sharers)}, one for each part that shares it",
                hint="use fewer parts or more data",
            )
        pieces = np.array_split(rng.permutation(members), len(sharers))
        result.extend(np.sort(piece) for piece in pieces)
    return result


def by_shards(labels: ArrayLike, parts: int, per_part: int, rng: np.random.Generator) -> Parts:
    """Sort by label, cut in parts * per_part equal shards, deal per_part random ones to each part.

    With two shards a part, most parts see two classes (McMahan et al. 2017, arXiv:1602.05629).

    Raises ParameterError: fewer examples than shards.
    """
    if per_part < 1:
        raise ParameterError(f"found {per_part} shards a part; expected at least 1", hint="2 is usual")
    y = _labels(labels, parts, per_part)
    # Shuffled first, so that the file's order does not choose who gets which half of a class.
    order = rng.permutation(len(y))
    shards = np.array_split(order[np.argsort(y[order], kind="stable")], parts * per_part)
    dealt = rng.permutation(len(shards)).reshape(parts, per_part)
    return [np.sort(np.concatenate([shards[shard] for shard in hand])) for hand in dealt]


def split(spec: str, labels: ArrayLike, parts: int, rng: np.random.Generator) -> Parts:
    """Split as `spec` says: `iid`, `label`, `dirichlet:0.5` or `shards:2`.

    Raises ParameterError: another form, or a split that cannot be made.
    """
    name, _, argument = spec.partition(":")
    if spec == "iid":
        return iid(labels, parts, rng)
    if spec == "label":
        return by_label(labels, parts, rng)
    if name == "dirichlet" and (alpha := _number(float, argument)) is not None:
        return dirichlet(labels, parts, alpha, rng)
    if name == "shards" and (per_part := _number(int, argument)) is not None:
        return by_shards(labels, parts, per_part, rng)
    raise ParameterError(f"found the split {spec!r}; expected {FORMS}", hint=f"use {FORMS}")


def _number(kind: Callable[[str], N], text: str) -> N | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _labels(labels: ArrayLike, parts: int, each: int = 1) -> NDArray[np.generic]:
    """Labels as an array (n,), once there are enough for `each` of them in every part."""
    y = np.asarray(labels)
    if y.ndim != 1:
        raise ParameterError(f"found labels of shape {y.shape}; expected (n,)", hint="one label an example")
    if parts < 1:
        raise ParameterError(f"found {parts} parts; expected at least 1", hint="one a client")
    if len(y) < parts * each:
        raise ParameterError(
            f"found {len(y)} examples; expected at least {parts * each} for {parts} parts",
            hint="use fewer parts or more data",
        )
    return y
