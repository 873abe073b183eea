"""Charts as SVG text, for the report: no script, nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

W, H, LEFT, RIGHT, TOP, BOTTOM = 560, 220, 56, 10, 14, 24


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between the two."""
    raw = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * (1 - 1e-9))
    start = math.ceil(low / step - 1e-9)
    return [i * step for i in range(start, math.floor(high / step + 1e-9) + 1)]


def curve(points: Sequence[tuple[int, float]], *, kind: str, label: str, share: bool) -> str:
    """A line over versions; `share`: values from 0 to 1, written as percentages."""
    if not points:
        return '<p class="quiet">Nothing measured yet.</p>'
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    high = 1.0 if share else max(value for _, value in points) * 1.05 or 1.0

    def x(version: float) -> float:
        return LEFT + (version - first) / (last - first) * (W - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - value / high) * (H - TOP - BOTTOM)

    parts = []
    for value in ticks(0, high, 4):
        text = f"{100 * value:g}%" if share else f"{value:g}"
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{W - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value in ticks(first, last, 6):
        if value == int(value):
            parts.append(f'<text x="{x(value):.1f}" y="{H - 7}" text-anchor="middle">{int(value)}</text>')
    line = " ".join(f"{x(version):.1f},{y(value):.1f}" for version, value in points)
    end = points[-1]
    parts.append(f'<polyline class="curve" points="{line}"/>')
    parts.append(f'<circle class="dot" cx="{x(end[0]):.1f}" cy="{y(end[1]):.1f}" r="4"/>')
    return _svg(W, H, label, "".join(parts), kind)


def bars(counts: Sequence[int], *, kind: str, label: str) -> str:
    """A histogram."""
    width, height = 320, 130
    step, most = width / len(counts), max(*counts, 1)
    parts = [f'<line class="axis" x1="0" x2="{width}" y1="{height}" y2="{height}"/>']
    for i, count in enumerate(counts):
        tall = count / most * (height - 6)
        parts.append(
            f'<rect class="bar {kind}" x="{i * step + 0.5:.1f}" y="{height - tall:.1f}"'
            f' width="{step - 1:.1f}" height="{tall:.1f}"/>'
        )
    parts.append(f'<text x="{width / 2}" y="{height + 14}" text-anchor="middle">0</text>')
    return _svg(width, height + 18, label, "".join(parts), "")


def stacks(rows: Sequence[Sequence[float]], *, label: str) -> str:
    """One stacked bar for each of `rows`: seconds by phase."""
    height = 140
    most = max([sum(row) for row in rows] + [1e-6])
    step = min(28.0, (W - LEFT) / max(len(rows), 1))
    parts = []
    for value in ticks(0, most, 3):
        at = height - value / most * (height - 8)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{W}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g} s</text>')
    for i, row in enumerate(rows):
        at = float(height)
        for k, value in enumerate(row, 1):
            tall = value / most * (height - 8)
            at -= tall
            parts.append(
                f'<rect class="b{k}" x="{LEFT + i * step + 0.5:.1f}" y="{at:.2f}"'
                f' width="{max(0.6, step - 1):.1f}" height="{tall:.2f}"/>'
            )
    return _svg(W, height + 6, label, "".join(parts), "")


def _svg(width: float, height: float, label: str, inside: str, kind: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" class="{kind}">'
        f"{inside}</svg>"
    )
