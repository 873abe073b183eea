"""The main charts of a report as one PNG, by matplotlib (the extra `pictures`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from choral.cli.report import PHASES
from choral.data.picture import figure, matplotlib, write
from choral.inspection.history import Findings

_VALUE = {"i": 0, "l": 1, "w": 1, "-": 2, "s": 3, "m": 3, "a": 4, "x": 4}
_COLOURS = ("#0b6e6e", "#e3b341", "#e4e9e7", "#b3261e", "#6b3fa0")
_SAY = ("in the sum", "too late or kept apart", "absent", "dropped", "aborted")
_ROWS = 60


def save(found: Findings, out: Path) -> None:
    """Draw it.

    Raises:
        ParameterError: matplotlib is not installed, or the file cannot be written.
    """
    state = found.state
    sheet, colours = figure(12, 8), matplotlib("colors").ListedColormap(_COLOURS)
    (accuracy, loss), (grid, costs) = sheet.subplots(2, 2)
    sheet.suptitle(f"{state['federation']}: version {state['version']}", parse_math=False)
    for axis, k, name, colour in ((accuracy, 1, "accuracy", _COLOURS[0]), (loss, 2, "loss", "#a4460f")):
        points = [(point[0], point[k]) for point in state["curve"] if point[k] is not None]
        axis.plot([point[0] for point in points], [point[1] for point in points], color=colour)
        axis.set(xlabel="version", title=f"{name} on members' held-out data")
        axis.grid(alpha=0.3)
    accuracy.set_ylim(0, 1)
    loss.set_ylim(bottom=0)
    rows, names = state["grid"], found.names[:_ROWS]
    if rows:
        cells = np.array([[_VALUE[row["cells"][i]] for row in rows] for i in range(len(names))])
        grid.imshow(cells, aspect="auto", interpolation="nearest", cmap=colours, vmin=0, vmax=4)
        grid.set_yticks(range(len(names)), names, fontsize=8 if len(names) < 30 else 5, parse_math=False)
    grid.set(xlabel="round, oldest first", title="who took part")
    patch = matplotlib("patches").Patch
    handles = [patch(facecolor=c, edgecolor="grey", label=t) for c, t in zip(_COLOURS, _SAY, strict=True)]
    grid.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, fontsize=8, frameon=False
    )
    _stack(costs, [row for row in rows if row["state"] == "done"])
    write(sheet, out, hint="-o report.png", dpi=110, form="png")


def _stack(axis: Any, done: list[dict[str, Any]]) -> None:
    versions = [row["version"] for row in done]
    bottom = np.zeros(len(done))
    for name, label in PHASES[1:]:
        seconds = np.array([row["phases"].get(name, 0.0) for row in done])
        axis.bar(versions, seconds, bottom=bottom, width=0.9, label=label)
        bottom += seconds
    axis.set(xlabel="version", ylabel="seconds", title="time of a round by phase, without joining")
    if done:
        axis.legend(fontsize=8, frameon=False)
