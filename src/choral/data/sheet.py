"""A contact sheet: some images of every class in one picture, to see whether a shard is what it should be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from choral.data.picture import figure, write
from choral.data.shard import Shard
from choral.errors import ParameterError

_PIXELS = 50_000_000  # of a whole sheet: more than anybody looks at


def shape_of(features: int, shape: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width of images of so many values: as given, or a square.

    Raises:
        ParameterError: the values do not fill it.

    >>> shape_of(784), shape_of(6, (2, 3))
    ((28, 28), (2, 3))
    """
    height, width = shape or (math.isqrt(features), math.isqrt(features))
    if height < 1 or height * width != features:
        raise ParameterError(
            f"images of {features} values, expected {height}x{width} = {height * width}",
            hint="--shape HEIGHTxWIDTH says how they are laid out",
        )
    return height, width


def mosaic(shard: Shard, shape: tuple[int, int], columns: int) -> tuple[NDArray[np.float32], list[int]]:
    """One row a class, its first `columns` images side by side with a pixel between them.

    Returns the picture, from 0 (dark) to 1, and the label of each row; a place without an image is NaN.

    Raises:
        ParameterError: too large a picture.
    """
    height, width = shape
    labels = [int(label) for label in np.unique(shard.labels)]
    if len(labels) * (height + 1) * columns * (width + 1) > _PIXELS:
        raise ParameterError(
            f"{len(labels)} rows of {columns} images of {height}x{width}; expected {_PIXELS:,} pixels in all",
            hint="--columns 4 draws fewer images of each class",
        )
    picture = np.full((len(labels) * (height + 1) - 1, columns * (width + 1) - 1), np.nan, np.float32)
    for row, label in enumerate(labels):
        for column, at in enumerate(np.flatnonzero(shard.labels == label)[:columns]):
            top, left = row * (height + 1), column * (width + 1)
            picture[top : top + height, left : left + width] = shard.images[at].reshape(height, width)
    low, high = float(np.nanmin(picture)), float(np.nanmax(picture))
    return (picture - np.float32(low)) / np.float32(high - low or 1), labels


def save(shard: Shard, out: Path, *, shape: tuple[int, int] | None = None, columns: int = 16) -> None:
    """Write the sheet as the suffix of `out` says: .png, .svg, .pdf.

    Raises:
        ParameterError: no matplotlib, images that are no rectangle, or a file that cannot be written.
    """
    height, width = shape_of(shard.images.shape[1], shape)
    picture, labels = mosaic(shard, (height, width), columns)
    inches = (0.6 + 0.4 * columns, 0.4 + 0.4 * len(labels) * height / width)
    sheet = figure(*inches)
    axes = sheet.add_subplot()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    counts = [int((shard.labels == label).sum()) for label in labels]
    centres = [row * (height + 1) + height / 2 for row in range(len(labels))]
    axes.set_yticks(centres, [f"{label}  ({n})" for label, n in zip(labels, counts, strict=True)])
    axes.set_xticks([])
    axes.set_frame_on(False)
    write(sheet, out, hint="-o sheet.png")
