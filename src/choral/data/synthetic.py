"""Seeded 28x28 digits: pen strokes, seen through a smooth warp, with noise.

The same arguments give the same bytes on every machine. That is why there is nothing in here but
+, -, *, /, square root, minimum and maximum, which IEEE 754 defines to the last bit: no matrix
product, no float sum and no sine, whose results depend on the CPU kernel and the numpy version.
Random numbers come from the raw output of PCG64, which numpy never changes, rather than from
`Generator`, which it may.

They look like handwriting and are not: a model trained on them is no model of real digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from choral.errors import ParameterError

Floats = NDArray[np.float64]

SIDE = 28
CLASSES = 10

# Every way to write a digit: its label, then its strokes, each a row of points x,y in percent of
# the box (y grows downwards) that a smooth curve passes through. Where the pen turns sharply, a
# new stroke starts from the point where the last one ended.
_GLYPHS = (
    (0, "52,0 22,14 10,52 24,90 52,100 80,86 90,48 78,12 52,0"),
    (1, "50,0 50,50 50,100"),
    (1, "32,20 54,0 / 54,0 54,50 54,100"),
    (2, "14,24 34,3 66,3 82,27 64,58 36,82 12,100 / 12,100 50,97 90,100"),
    (3, "18,10 50,0 78,20 64,42 40,48 / 40,48 74,56 85,78 56,100 14,90"),
    (3, "18,0 80,0 / 80,0 46,40 / 46,40 78,50 84,78 54,100 14,92"),
    (4, "30,0 22,32 14,58 / 14,58 88,56 / 72,0 68,50 66,100"),
    (4, "66,0 40,36 10,66 / 10,66 92,66 / 66,0 66,50 66,100"),
    (5, "82,0 28,2 / 28,2 22,44 / 22,44 56,37 84,62 66,93 14,95"),
    (6, "70,0 36,26 16,66 34,97 68,96 82,72 60,52 30,60 18,78"),
    (7, "12,2 86,2 / 86,2 58,48 42,100"),
    (7, "12,2 86,2 / 86,2 58,48 42,100 / 34,50 78,50"),
    (8, "50,48 20,27 34,2 66,2 80,25 50,48 16,76 30,98 70,98 84,75 50,48"),
    (9, "80,28 56,52 24,40 28,8 62,2 80,28 76,64 62,100"),
)

# Standard deviations at hard=1.
_BEND = 0.13  # of the box's sides: each of the 4 x 4 points of the grid that warps the box
_LEAN = 0.3  # sideways shift from bottom to top, as a ratio
_TILT = 0.12  # downwards shift from left to right, as a ratio
_STRETCH = 0.12  # of width and of height, as a ratio
_SHIFT = 0.5  # pixels, sideways and downwards
_PEN = 0.7  # pixels, of the pen's radius
_NOISE = 60.0  # grey levels, the largest change of a pixel (uniform)

_WIDTH, _HEIGHT = 13.0, 19.0  # pixels, of the box
_RADIUS, _RADIUS_MIN = 1.2, 0.5  # pixels, of the pen
_DRAWS = 7 + 2 * 16  # what shapes one image: lean, tilt, stretch, shift, pen and the warp
_BATCH = 32  # images drawn at once: their pixels stay in a core's cache


def synthetic_digits(
    n: int,
    *,
    seed: int,
    hard: float = 0.8,
    style: int | None = None,
    done: Callable[[int], object] = lambda images: None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`n` digits: X (n, 784) uint8, rows of 28x28 images, ink 255; y (n,) uint8, 0 to 9.

    Labels are balanced to within one and shuffled. `hard`, 0 to 2, scales how much the images of
    one digit differ; at 0.8, with 2,000 images to learn from, softmax regression gets about 96%
    right. `style` seeds one writer: a slant, a width, a pen and a personal shape of each digit,
    so clients with different styles have different data, as people do. None is a mixed crowd.
    `done` is told how many more images are drawn.

    Raises ParameterError: n below 1, a negative seed or style, hard outside 0 to 2.
    """
    if n < 1 or seed < 0 or (style is not None and style < 0) or not 0 <= hard <= 2:
        raise ParameterError(
            f"found n={n}, seed={seed}, hard={hard}, style={style}; "
            "expected n from 1, seeds from 0 and hard from 0 to 2",
            hint="for example synthetic_digits(1000, seed=1)",
        )
    order, ways, shapes, pixels = (np.random.PCG64(child) for child in np.random.SeedSequence(seed).spawn(4))
    labels = np.argsort(order.random_raw(n), kind="stable") % CLASSES
    chance = _uniform(ways, n)
    draws = _normal(shapes, n, _DRAWS)
    if style is not None:
        writer = np.random.PCG64(np.random.SeedSequence(style).spawn(5)[4])
        habits = _uniform(writer, CLASSES)
        hand = np.repeat(_normal(writer, 1, _DRAWS), CLASSES, axis=0)
        hand[:, 7:] = _normal(writer, CLASSES, _DRAWS - 7)
        # A writer keeps to one way of writing a digit, nine times in ten. The weights' squares
        # sum to 1: many writers together vary as much as the crowd does.
        chance = habits[labels] * 0.9 + chance * 0.1
        draws = hand[labels] * 0.6 + draws * 0.8
    noise = _bytes(pixels, n * SIDE * SIDE).reshape(n, SIDE, SIDE)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for label, glyphs in enumerate(_ALPHABET):
        way = np.floor(chance * len(glyphs))
        for index, glyph in enumerate(glyphs):
            rows = np.flatnonzero((labels == label) & (way == index))
            for batch in np.split(rows, range(_BATCH, len(rows), _BATCH)):
                images[batch] = _draw(glyph, draws[batch] * hard, noise[batch], _NOISE * hard)
                done(len(batch))
    return images.reshape(n, -1), labels.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Glyph:
    """P points of a digit in the unit square, as a pen passes them."""

    x: Floats  # (P,)
    y: Floats  # (P,)
    segments: tuple[int, ...]  # k: a straight piece of ink from point k to point k + 1
    weights: Floats  # (16, P): how much each point of the warp's grid moves each point

    def pose(self, draws: Floats) -> tuple[Floats, Floats, Floats]:
        """Pixel coordinates x and y (m, P) and pen radius (m,) for the draws of m images."""
        lean, tilt, wide, high, right, down, pen = (draws[:, k, None] for k in range(7))
        x, y = self.x - 0.5, self.y - 0.5
        for k, weight in enumerate(self.weights):
            x = x + draws[:, 7 + k, None] * _BEND * weight
            y = y + draws[:, 23 + k, None] * _BEND * weight
        x, y = x * _WIDTH * (1 + _STRETCH * wide), y * _HEIGHT * (1 + _STRETCH * high)
        across = SIDE / 2 + _SHIFT * right + x - y * (0.1 + _LEAN * lean)
        downward = SIDE / 2 + _SHIFT * down + y + x * (_TILT * tilt)
        return across, downward, np.maximum(_RADIUS + _PEN * pen[:, 0], _RADIUS_MIN)


def _draw(glyph: _Glyph, draws: Floats, noise: NDArray[np.uint8], loudness: float) -> NDArray[np.uint8]:
    """Images (m, 28, 28) of a glyph: ink 255, and noise 0..255 as at most `loudness` up or down."""
    x, y, radius = glyph.pose(draws)
    grain = (noise.astype(np.float32) - np.float32(127.5)) * np.float32(loudness / 127.5)
    grey = _ink(x, y, radius, glyph.segments) * np.float32(255) + grain
    return np.rint(np.minimum(np.maximum(grey, 0), 255)).astype(np.uint8)


def _ink(x: Floats, y: Floats, radius: Floats, segments: tuple[int, ...]) -> NDArray[np.float32]:
    """Ink (m, 28, 28) in [0, 1]: full within the pen's radius of a segment, soft for a pixel."""
    column = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    # Axes: image, row, column. Float32 is as exact a definition as float64, and half the bytes.
    x32, y32 = x.astype(np.float32)[:, :, None, None], y.astype(np.float32)[:, :, None, None]
    nearest = np.full((len(x), SIDE, SIDE), np.float32(SIDE * SIDE))
    for k in segments:
        ax, ay = column - x32[:, k], column[:, None] - y32[:, k]
        dx, dy = x32[:, k + 1] - x32[:, k], y32[:, k + 1] - y32[:, k]
        length = dx * dx + dy * dy + np.float32(1e-6)
        # Where on the segment, 0 to 1, is the point that is nearest to the pixel?
        along = ax * (dx / length) + ay * (dy / length)
        np.minimum(np.maximum(along, 0, out=along), 1, out=along)
        off_x = along * -dx
        off_x += ax
        off_x *= off_x
        along *= -dy
        along += ay
        along *= along
        along += off_x
        np.minimum(nearest, along, out=nearest)
    edge = radius.astype(np.float32)[:, None, None] + np.float32(0.5)
    ink: NDArray[np.float32] = np.minimum(np.maximum(edge - np.sqrt(nearest), 0), 1)
    return ink


def _glyph(text: str) -> _Glyph:
    x: list[float] = []
    y: list[float] = []
    segments: list[int] = []
    for stroke in text.split("/"):
        points = [tuple(float(c) / 100 for c in point.split(",")) for point in stroke.split()]
        smooth_x, smooth_y = (_smooth([point[axis] for point in points]) for axis in (0, 1))
        segments.extend(range(len(x), len(x) + len(smooth_x) - 1))
        x.extend(smooth_x)
        y.extend(smooth_y)
    u, v = _bernstein(np.array(x)), _bernstein(np.array(y))
    weights = np.array([a * b for a in u for b in v])
    return _Glyph(np.array(x), np.array(y), tuple(segments), weights)


def _smooth(knots: list[float]) -> list[float]:
    """One coordinate of a Catmull-Rom curve through the knots, with one point between two knots."""
    if len(knots) == 2:
        return knots
    ends = [2 * knots[0] - knots[1], *knots, 2 * knots[-1] - knots[-2]]
    curve = [knots[0]]
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        curve += [(9 * (b + c) - a - d) / 16, c]
    return curve


def _bernstein(t: Floats) -> list[Floats]:
    """The four cubic Bernstein weights at t."""
    s = 1 - t
    return [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t]


def _uniform(source: np.random.PCG64, n: int) -> Floats:
    """(n,) multiples of 2**-53 in [0, 1)."""
    raw: NDArray[np.uint64] = source.random_raw(n)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(source: np.random.PCG64, n: int, width: int) -> Floats:
    """(n, width) draws of mean 0 and variance 1: four uniform ones summed, so never beyond 3.5."""
    a, b, c, d = _uniform(source, 4 * n * width).reshape(4, n, width)
    return (a + b + c + d - 2.0) * 1.7320508075688772


def _bytes(source: np.random.PCG64, n: int) -> NDArray[np.uint8]:
    raw: NDArray[np.uint64] = source.random_raw((n + 7) // 8)
    return raw.astype("<u8").view(np.uint8)[:n]


_ALPHABET = tuple(
    tuple(_glyph(text) for owner, text in _GLYPHS if owner == label) for label in range(CLASSES)
)
