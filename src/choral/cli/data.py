"""`choral data`: shards for the members, and a look into one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from choral.cli.terminal import console
from choral.data import load_digits, load_shard, save_shard, synthetic_digits
from choral.data.partition import split as split_labels


@click.group()
def data() -> None:
    """Shards: making them, splitting them, looking into them."""


def examples_of(source: str, count: int, seed: int) -> tuple[Any, Any]:
    """X and y of `digits`, `synthetic` or a shard's path; u1 pixels stay u1."""
    if source == "digits":
        return load_digits()
    if source == "synthetic":
        return synthetic_digits(count, seed=seed)
    shard = load_shard(source)
    return shard.images, shard.labels


def write_shards(
    folder: Path, X: Any, y: Any, *, members: int, split: str, test: float, seed: int
) -> list[Path]:
    """`client_1_data.npy` … and, for a part `test`, `test_data.npy`; the paths of the clients'.

    Raises:
        ParameterError: a split that cannot be.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    cut = len(y) - round(len(y) * test)
    training = np.sort(order[:cut])
    parts = split_labels(split, y[training], members, rng)
    folder.mkdir(parents=True, exist_ok=True)
    if cut < len(y):
        held_out = np.sort(order[cut:])
        save_shard(folder / "test_data.npy", X[held_out], y[held_out])
    return [
        save_shard(folder / f"client_{i}_data.npy", X[training[part]], y[training[part]])
        for i, part in enumerate(parts, 1)
    ]


@data.command(epilog="Example:  choral data split --data digits --members 3 --split label shards/")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--data",
    "source",
    default="digits",
    show_default=True,
    help="digits (real, 8x8), synthetic (28x28), or a shard's path.",
)
@click.option("--members", default=3, show_default=True, type=click.IntRange(1), help="How many shards.")
@click.option("--split", default="iid", show_default=True, help="iid, label, dirichlet:A or shards:K.")
@click.option(
    "--test",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 0.9),
    help="Part kept aside as test_data.npy.",
)
@click.option(
    "--count", default=3000, show_default=True, type=click.IntRange(10), help="Of synthetic digits."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def split(folder: Path, source: str, members: int, split: str, test: float, count: int, seed: int) -> None:
    """Make client_1_data.npy, client_2_data.npy … in FOLDER."""
    X, y = examples_of(source, count, seed)
    for path in write_shards(folder, X, y, members=members, split=split, test=test, seed=seed):
        labels = load_shard(path).describe().labels
        console.print(f"{path}: {sum(labels.values())} examples of {', '.join(map(str, labels))}")


@data.command(epilog="Example:  choral data inspect shards/client_1_data.npy")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--features", type=click.IntRange(1), help="Check that it has so many.")
@click.option("--classes", type=click.IntRange(1), help="Check that its labels are below.")
@click.option("--json", "as_json", is_flag=True)
def inspect(file: Path, features: int | None, classes: int | None, as_json: bool) -> None:
    """Check a shard and say what is in it."""
    found = load_shard(file, features=features, classes=classes).describe()
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    console.print(
        f"[bold]{file}[/]: a good shard of {found.records} examples with {found.features} features"
        f" ({found.dtype}), {found.bytes} bytes"
    )
    console.print(f"  values {found.minimum:g} to {found.maximum:g}, mean {found.mean:.3g}")
    if found.dtype == "f4" and found.maximum > 32:
        console.print("  [yellow]note:[/] float features are used as they are; scale pixels to 0..1")
    table = Table("label", "examples", box=None)
    for label, count in found.labels.items():
        table.add_row(str(label), str(count))
    console.print(table)


COMMANDS = (data,)
