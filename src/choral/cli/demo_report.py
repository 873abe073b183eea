"""What a demonstration ends with: sums checked bit for bit, baselines, and the tale of it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from choral.cli.drawing import blocks
from choral.cli.terminal import console, percent, size
from choral.data import load_shard
from choral.learning.baselines import train_alone
from choral.learning.trainer import Trainer
from choral.protocol.rounds import LABELS


@dataclass
class Story:
    """What happened, as it is told and as `--json` gives it."""

    names: list[str]
    trainer: Trainer
    test: tuple[Any, Any]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    killed: str | None = None
    killed_in: str | None = None
    came_back: int | None = None
    digest: str = ""
    own_model: tuple[str, ...] = ()  # options of `choral join` for a model that is not built in


def sums_are_exact(witness: Path, story: Story) -> dict[str, Any]:
    """Every sum against its survivors' encoded updates, bit for bit; and one round to look at."""
    result: dict[str, Any] = {"all": bool(story.rounds), "rounds": 0}
    up = []
    for row in track(story.rounds, "checking sums", transient=True, console=console):
        kept = witness / row["id"][:16]
        survivors = row["details"]["survivors"]
        updates = [np.load(kept / f"{name}.update.npy") for name in survivors]
        total = np.load(kept / "sum.npy")
        with np.errstate(over="ignore"):
            expected = np.sum(np.stack(updates), axis=0, dtype=np.uint32)
        result["all"] &= bool(np.array_equal(expected, total))
        result["rounds"] += 1
        if not row["details"]["dropped"]:
            up.append(row["details"]["bytes_in"] / len(row["details"]["roster"]))
        plain = time.perf_counter()
        np.mean(np.stack(updates).view(np.int32).astype(np.float32), axis=0)
        result.setdefault("plain_seconds", []).append(time.perf_counter() - plain)
        member = sorted(survivors)[0]
        result["example"] = {
            "member": member,
            "version": row["details"]["version"],
            "received": np.load(kept / f"{member}.masked.npy"),
            "update": updates[survivors.index(member)],
            "sum": total,
            "survivors": len(survivors),
        }
    result["bytes_up"] = round(statistics.median(up)) if up else None
    return result


def baselines(story: Story, shards: list[Path], rounds: int, seed: int) -> tuple[list[float], float]:
    data = [load_shard(path).arrays() for path in shards]
    alone = [train_alone(story.trainer, X, y, story.test, rounds, seed).accuracy for X, y in data]
    X, y = (np.concatenate(parts) for parts in zip(*data, strict=True))
    return alone, train_alone(story.trainer, X, y, story.test, rounds, seed).accuracy


def tell(
    story: Story, folder: Path, shards: list[Path], *,
    alone: list[float], pooled: float, exact: dict[str, Any], kept: bool, seconds: float,
) -> None:  # fmt: skip
    console.rule("accuracy on images that nobody trained on")
    console.print(_curve(story.accuracy))
    table = Table("who", "accuracy", box=None)
    for name, accuracy in zip(story.names, alone, strict=True):
        table.add_row(f"{name} alone", percent(accuracy))
    table.add_row(
        "[bold]all together, data staying where it is[/]", f"[bold]{percent(story.accuracy[-1])}[/]"
    )
    apart = 100 * (pooled - story.accuracy[-1])
    table.add_row("all data in one place", f"{percent(pooled)} ({abs(apart):.1f} points {_more(apart)})")
    console.print(table)
    example = exact["example"]
    console.rule(f"what the aggregator saw in round {example['version']}")
    table = Table("first numbers of", *(f"[{i}]" for i in range(6)), box=None)
    for what, vector in (
        (f"{example['member']}'s update as it arrived", example["received"]),
        ("its true update (known to that member only)", example["update"]),
        (f"the sum over {example['survivors']} survivors", example["sum"]),
    ):
        table.add_row(what, *(str(int(value)) for value in vector[:6].view(np.int32)))
    console.print(table)
    verdict = "[green]equal, bit for bit[/]" if exact["all"] else "[red]NOT EQUAL[/]"
    console.print(f"sums against the survivors' own updates, {exact['rounds']} rounds: {verdict}")
    console.rule("what secrecy cost")
    secure = statistics.median(
        sum(row["details"]["seconds"].get(name, 0.0) for name in (*LABELS[1:], "sum")) for row in story.rounds
    )
    plain = statistics.median(exact["plain_seconds"])
    d = len(example["sum"])
    console.print(
        f"time: {1000 * secure:.1f} ms a round from closed cohort to sum, four phases over HTTP"
        f" (a plain mean of the same updates in memory: {1000 * plain:.2f} ms)"
    )
    if exact["bytes_up"]:
        console.print(
            f"bytes up: {size(exact['bytes_up'])} a member and round, {size(4 * d)} of them the update itself"
        )
    if story.killed:
        console.print(
            f"{story.killed} was killed in phase {story.killed_in}; training went on, and it came back"
        )
    console.print(
        f"model {story.digest[:16]}…, {seconds:.1f} s in all"
        + (f", everything is in {folder}" if kept else "")
    )


def _more(apart: float) -> str:
    return "more" if apart >= 0 else "less"


def _curve(values: list[float], height: int = 8) -> str:
    """A chart of accuracies by round in block characters."""
    columns = values if len(values) <= 72 else [values[i * len(values) // 72] for i in range(72)]
    low = min(columns) * 0.98
    span = max(1e-9, 1.0 - low)
    lines = [
        f"{100 * (low + span * (height - i) / height):5.1f}% │[cyan]{cells}[/]"
        for i, cells in enumerate(blocks(columns, low, low + span, height))
    ]
    return "\n".join([*lines, f"       └{'─' * len(columns)} {len(values)} rounds"])
