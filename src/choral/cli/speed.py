"""`choral simulate --speed …`: synchronous, deadline and stale-tolerant training side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from choral.cli.terminal import console, errors, percent, say
from choral.data.picture import figure, write
from choral.learning.rules import Rule
from choral.learning.trainer import Trainer
from choral.simulation import Examples, Population
from choral.simulation.speed import Point, Race, Way, reached, speeds

ENOUGH = 0.7  # of a cohort, when there is a deadline
FLOW = 0.3  # of a cohort, when late ones count in the next


def race(
    trainer: Trainer,
    population: Population,
    test: Examples,
    *,
    speed: str,
    cohort: int,
    rounds: int,
    staleness: int,
    seed: int,
    rule: Rule,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run the three ways for as long as `rounds` synchronous rounds take; print, and draw.

    Raises:
        ParameterError: a speed or a picture that cannot be.
    """
    seconds = speeds(speed, len(population.sizes), np.random.default_rng([seed, 0]))
    field = Race(trainer, population, test, seconds, cohort=cohort, seed=seed, rule=rule)
    ways = (
        Way("synchronous"),
        Way("deadline", ENOUGH),
        Way(f"stale, up to {staleness}", FLOW, staleness),
    )
    found: dict[str, list[Point]] = {}
    until = float("inf")
    for way in ways:
        errors.print(f"[dim]{way.name} …[/]")
        points = found.setdefault(way.name, [])
        for point in field.run(way, until):
            points.append(point)
            if until == float("inf") and point.version == rounds:
                break
        if until == float("inf"):
            until = points[-1].seconds
    target = _target(found[ways[0].name])
    if plot is not None:
        _draw(found, plot, f"{cohort} of {len(seconds)} members at a time, speed {speed}")
    if as_json:
        click.echo(
            json.dumps(
                {
                    "speed": speed,
                    "seconds": until,
                    "target": target,
                    "ways": {
                        name: {"reached": reached(points, target), "points": [p._asdict() for p in points]}
                        for name, points in found.items()
                    },
                }
            )
        )
        return
    _print(found, target, until)
    if plot is not None:
        say("{}: written", plot)


def _target(points: list[Point]) -> float:
    """What synchronous training is worth in the end, but for two points of accuracy."""
    return max(0.0, round(points[-1].accuracy - 0.02, 3))


def _print(found: dict[str, list[Point]], target: float, until: float) -> None:
    table = Table(
        "", f"{percent(target)} after", "in the end", "versions", "updates", "of them stale", box=None
    )
    first = None
    for name, points in found.items():
        when = reached(points, target)
        first = when if first is None else first
        times = f"  ({first / when:.1f} x)" if when and first and name != next(iter(found)) else ""
        table.add_row(
            name,
            (f"{when:.1f}{times}" if when is not None else "–"),
            percent(points[-1].accuracy),
            str(points[-1].version),
            str(sum(point.updates for point in points)),
            str(sum(point.stale for point in points)),
        )
    console.print(table)
    console.print(f"simulated time, {until:.1f} in all; a member of median speed trains in 1")


def _draw(found: dict[str, list[Point]], out: Path, title: str) -> None:
    sheet = figure(8, 4.5)
    axes = sheet.add_subplot()
    for name, points in found.items():
        axes.plot(
            [p.seconds for p in points],
            [100 * p.accuracy for p in points],
            label=name,
            drawstyle="steps-post",
        )
    axes.set_xlabel("simulated time (a member of median speed trains in 1)")
    axes.set_ylabel("right on test examples, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    write(sheet, out, hint="--plot curves.png")
