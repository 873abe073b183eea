"""The report of `choral plot`: one HTML file that needs nothing else, not even a network or a script.

What it says and how it looks is report.html beside this; here are the figures and the charts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from choral.cli.drawing import Chart, bars, curve, stacks
from choral.cli.terminal import percent, size
from choral.cli.watch import CELLS
from choral.inspection.history import Findings
from choral.service.page.page import FILES

PHASES = (
    ("advertise", "advertise (joining)"), ("share", "share"), ("mask", "mask"), ("consistency", "sign"),
    ("unmask", "reveal"), ("sum", "sum"),
)  # fmt: skip
_CLASS = {"i": "i", "l": "l", "-": "a", "w": "l", "s": "s", "m": "m", "a": "b", "x": "x"}
_COUNTED = ("i", "l", "-", "w", "sm", "ax")  # cells by column of the members' table
_SAW = (
    ("masked", "", "One masked update, as it arrived", "histogram of a masked vector: flat"),
    ("sum", "sum", "The sum, on the same scale", "histogram of the sum: not flat"),
    ("close_up", "sum", "The sum, from near", "histogram of the sum over its own range"),
)


def report(found: Findings) -> str:
    """The whole file."""
    state = found.state
    done = [row for row in state["grid"] if row["state"] == "done"]
    up = [sum(row["in"].values()) / row["roster"] for row in done if row["roster"]]
    return _template("report.html").render(
        state=state,
        names=found.names,
        worst_error=found.worst_error,
        style=(FILES / "style.css").read_text(),
        made=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        last=state["curve"][-1] if state["curve"] else None,
        done=done,
        curves=list(_curves(state)),
        cells={cell: {"sign": s, "what": w, "kind": _CLASS[cell]} for cell, (s, _, w) in CELLS.items()},
        members=list(_members(found)),
        times=_times(done),
        costs=[_cost(done, name, label) for name, label in PHASES],
        each=median(up) if up else None,
        saw=[(caption, bars(state["saw"][key], kind=kind, label=label)) for key, kind, caption, label in _SAW]
        if state["saw"]
        else [],
    )


def _template(name: str) -> Template:
    there = Environment(
        loader=PackageLoader("choral.cli", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    there.filters.update(percent=percent, size=size, moment=_moment)
    return there.get_template(name)


def _moment(seconds: float | None) -> str:
    return "–" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _curves(state: dict[str, Any]) -> Iterator[tuple[str, Chart | None]]:
    for k, name, share in ((1, "accuracy", True), (2, "loss", False)):
        points = [(point[0], point[k]) for point in state["curve"] if point[k] is not None]
        label = f"{name} by version on members' held-out data"
        yield name, curve(points, kind=name, label=label, share=share)


def _members(found: Findings) -> Iterator[tuple[str, list[int]]]:
    """Rounds of each member by what became of it in them."""
    for i, name in enumerate(found.names):
        seen = [row["cells"][i] for row in found.state["grid"]]
        yield name, [sum(cell in kind for cell in seen) for kind in _COUNTED]


def _times(done: list[dict[str, Any]]) -> Chart:
    names = [name for name, _ in PHASES[1:]]
    return stacks(
        [[row["phases"].get(name, 0.0) for name in names] for row in done[-200:]],
        label="Seconds by phase and round, without the wait for members to join",
    )


def _cost(done: list[dict[str, Any]], name: str, label: str) -> tuple[str, str, str, str]:
    seconds = [row["phases"][name] for row in done if name in row["phases"]]
    return (
        label,
        _spread(seconds, lambda value: f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"),
        _spread([row["in"].get(name, 0) for row in done], size),
        _spread([row["out"].get(name, 0) for row in done], size),
    )


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    if not values:
        return "–"
    return " / ".join(form(value) for value in (min(values), median(values), max(values)))
