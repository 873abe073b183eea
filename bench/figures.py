"""Figures as they are printed: minimum, median, maximum of repeated runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SIZES = (7_850, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Figure:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{min(self.values):.3g} / {self.median:.3g} / {max(self.values):.3g}"


def timed(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ratio(run: Callable[[], object], peer: Callable[[], object], times: int) -> Figure:
    """`run` over `peer`, taken in turns so that both meet the same noise; one round to warm up."""
    timed(run), timed(peer)
    return Figure(tuple(timed(run) / timed(peer) for _ in range(times)))


def repeated(run: Callable[[], float], times: int) -> Figure:
    return Figure(tuple(run() for _ in range(times)))


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain text table, readable in a terminal and in Markdown."""
    cells = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    print(f"\n{title}\n")
    for at, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if at == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
