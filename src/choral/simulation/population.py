# ruff: noqa: N803  (X is a matrix)
"""The members' data: opened when a member trains and not before, so that members cost next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from choral.data import load_shard
from choral.data.examples import Examples, floats
from choral.data.partition import split as split_labels
from choral.errors import ParameterError


class Population(Protocol):
    """Whose data a simulation trains on; members are numbered from 0."""

    @property
    def sizes(self) -> Sequence[int]:
        """How many examples each member has."""
        ...

    def examples(self, member: int) -> Examples:
        """Fresh arrays of one member's examples."""
        ...


@dataclass(frozen=True, eq=False)
class Divided:
    """One data set in memory, a part of its rows for each member.

    Attributes:
        X: (n, features) float32, or uint8 pixels, which are divided by 255 when a member trains.
        y: (n,) uint8.
        parts: row numbers, one array a member.
    """

    X: NDArray[Any]
    y: NDArray[np.uint8]
    parts: Sequence[NDArray[np.int64]]

    @cached_property
    def sizes(self) -> Sequence[int]:
        return [len(part) for part in self.parts]

    def examples(self, member: int) -> Examples:
        part = self.parts[member]
        return Examples(floats(self.X[part]), self.y[part])


@dataclass(frozen=True, eq=False)
class Folder:
    """`client_1_data.npy` … in a folder: each member's shard is opened when it trains.

    Raises:
        ShardError: a shard that is none, or not like the first one.
    """

    paths: Sequence[Path]
    features: int

    @cached_property
    def sizes(self) -> Sequence[int]:
        return [len(load_shard(path, features=self.features)) for path in self.paths]

    def examples(self, member: int) -> Examples:
        return Examples(*load_shard(self.paths[member], features=self.features).arrays())


def divide(
    X: NDArray[Any], y: NDArray[np.uint8], *, members: int, split: str, test: int, seed: int
) -> tuple[Divided, Examples]:
    """Put `test` random examples aside and split the rest over the members.

    Args:
        split: as `choral.data.partition.split` reads it.

    Raises:
        ParameterError: a split that cannot be, or nothing left to test on or to train on.
    """
    if not 1 <= test < len(y):
        raise ParameterError(f"{test} of {len(y)} examples to test on, expected 1 to {len(y) - 1}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    training, held_out = order[:-test], order[-test:]
    parts = [training[part] for part in split_labels(split, y[training], members, rng)]
    return Divided(X, y, parts), Examples(floats(X[held_out]), y[held_out])


def open_folder(folder: Path) -> tuple[Folder, Examples]:
    """The members' shards and `test_data.npy` of a folder that `choral data split` made.

    Raises:
        ParameterError: no shards in it.
        ShardError: no test data, or a file that is no shard of the same kind.
    """
    found = {int(number): path for path in folder.glob("client_*_data.npy") if (number := _number(path))}
    if not found:
        raise ParameterError(
            f"{folder} holds no client_*_data.npy", hint="`choral data split FOLDER` makes shards"
        )
    paths = [found[number] for number in sorted(found)]
    features = load_shard(paths[0]).images.shape[1]
    test = load_shard(folder / "test_data.npy", features=features)
    return Folder(paths, features), Examples(*test.arrays())


def _number(path: Path) -> str | None:
    digits = path.name.removeprefix("client_").removesuffix("_data.npy")
    return digits if digits.isdecimal() else None
