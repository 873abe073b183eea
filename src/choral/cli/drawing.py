"""Charts: for the report as SVG elements, which its template writes down; for a terminal as characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

_BLOCKS = " ▁▂▃▄▅▆▇█"
W, H, LEFT, RIGHT, TOP, BOTTOM = 560, 220, 56, 10, 14, 24


@dataclass(frozen=True)
class Mark:
    """One element: its name, its attributes, the text in it."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """`marks` in a picture of `width` by `height`; `label` says in words what can be seen."""

    width: float
    height: float
    label: str
    kind: str = ""
    marks: list[Mark] = field(default_factory=list)

    def line(self, x1: float, x2: float, y: float | str) -> None:
        """A line of the axes, from left to right."""
        self.marks.append(Mark("line", {"class": "axis", "x1": x1, "x2": x2, "y1": y, "y2": y}))

    def text(self, x: float | str, y: float | str, anchor: str, text: str) -> None:
        self.marks.append(Mark("text", {"x": x, "y": y, "text-anchor": anchor}, text))

    def rect(self, kind: str, x: str, y: str, width: str, height: str) -> None:
        self.marks.append(Mark("rect", {"class": kind, "x": x, "y": y, "width": width, "height": height}))


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between the two."""
    raw = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * (1 - 1e-9))
    start = math.ceil(low / step - 1e-9)
    return [i * step for i in range(start, math.floor(high / step + 1e-9) + 1)]


def curve(points: Sequence[tuple[int, float]], *, kind: str, label: str, share: bool) -> Chart | None:
    """A line over versions; `share`: values from 0 to 1, written as percentages. None without points."""
    if not points:
        return None
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    high = 1.0 if share else max(value for _, value in points) * 1.05 or 1.0

    def x(version: float) -> str:
        return f"{LEFT + (version - first) / (last - first) * (W - LEFT - RIGHT):.1f}"

    def y(value: float, below: float = 0) -> str:
        return f"{TOP + (1 - value / high) * (H - TOP - BOTTOM) + below:.1f}"

    chart = Chart(W, H, label, kind)
    for value in ticks(0, high, 4):
        chart.line(LEFT, W - RIGHT, y(value))
        chart.text(LEFT - 6, y(value, 4), "end", f"{100 * value:g}%" if share else f"{value:g}")
    for value in ticks(first, last, 6):
        if value == int(value):
            chart.text(x(value), H - 7, "middle", str(int(value)))
    line = " ".join(f"{x(version)},{y(value)}" for version, value in points)
    end = points[-1]
    chart.marks.append(Mark("polyline", {"class": "curve", "points": line}))
    chart.marks.append(Mark("circle", {"class": "dot", "cx": x(end[0]), "cy": y(end[1]), "r": 4}))
    return chart


def bars(counts: Sequence[int], *, kind: str, label: str) -> Chart:
    """A histogram."""
    width, height = 320, 130
    step, most = width / len(counts), max(*counts, 1)
    chart = Chart(width, height + 18, label)
    chart.line(0, width, height)
    for i, count in enumerate(counts):
        tall = count / most * (height - 6)
        at = f"{i * step + 0.5:.1f}", f"{height - tall:.1f}", f"{step - 1:.1f}", f"{tall:.1f}"
        chart.rect(f"bar {kind}", *at)
    chart.text(width / 2, height + 14, "middle", "0")
    return chart


def stacks(rows: Sequence[Sequence[float]], *, label: str) -> Chart:
    """One stacked bar for each of `rows`: seconds by phase."""
    height = 140
    most = max([sum(row) for row in rows] + [1e-6])
    step = min(28.0, (W - LEFT) / max(len(rows), 1))
    chart = Chart(W, height + 6, label)
    for value in ticks(0, most, 3):
        at = height - value / most * (height - 8)
        chart.line(LEFT, W, f"{at:.1f}")
        chart.text(LEFT - 6, f"{at + 4:.1f}", "end", f"{value:g} s")
    for i, row in enumerate(rows):
        at = float(height)
        left, wide = f"{LEFT + i * step + 0.5:.1f}", f"{max(0.6, step - 1):.1f}"
        for k, value in enumerate(row, 1):
            tall = value / most * (height - 8)
            at -= tall
            chart.rect(f"b{k}", left, f"{at:.2f}", wide, f"{tall:.2f}")
    return chart


def blocks(values: Sequence[float], low: float, high: float, height: int = 1) -> list[str]:
    """A column of block characters for each value, `low` empty and `high` full: `height` lines, top first.

    >>> blocks([0.0, 0.5, 1.0], 0, 1, height=2)
    ['  █', ' ██']
    """
    line = (high - low) / height
    return [
        "".join(_BLOCKS[min(8, max(0, int((value - low - i * line) / line * 8)))] for value in values)
        for i in reversed(range(height))
    ]
