"""`choral data`: shards for the members, and a look into one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from choral.cli.lists import listed
from choral.cli.terminal import bar, console, steps, working
from choral.cli.values import Number
from choral.data import load_digits, load_shard, save_shard, sheet, synthetic_digits
from choral.data.arrays import from_npy as array_from_npy
from choral.data.arrays import pixels as as_pixels
from choral.data.mnist import load_both as load_mnist
from choral.data.partition import split as split_labels
from choral.data.tables import from_csv as arrays_from_csv
from choral.errors import ParameterError

_DELIMITERS = {"tab": "\t", r"\t": "\t"}
_FEATURES_SHOWN = 40


@click.group()
def data() -> None:
    """Shards: making them, splitting them, looking into them."""


def examples_of(source: str, count: int, seed: int) -> tuple[Any, Any]:
    """X and y of `digits`, `synthetic` or a shard's path; u1 pixels stay u1."""
    if source == "digits":
        return load_digits()
    if source == "synthetic":
        with bar("drawing digits", count) as advance:
            return synthetic_digits(count, seed=seed, done=advance)
    shard = load_shard(source)
    return shard.images, shard.labels


def write_shards(
    folder: Path, X: Any, y: Any, *, members: int, split: str, test: float, seed: int
) -> list[Path]:
    """`client_1_data.npy` … and, for a part `test`, `test_data.npy`; the paths of the clients'.

    Raises:
        ParameterError: a split that cannot be, or a folder with shards of more clients: whoever reads the
            folder would have examples twice.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    cut = len(y) - round(len(y) * test)
    training = np.sort(order[:cut])
    parts = split_labels(split, y[training], members, rng)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"{folder}: no folder can be made there ({error.strerror or error})",
            hint="give a folder that is there, or a place where you may make one",
        ) from error
    ours = {f"client_{i}_data.npy" for i in range(1, members + 1)}
    if others := sorted({path.name for path in folder.glob("client_*_data.npy")} - ours):
        raise ParameterError(
            f"{folder}: found {others[0]} of another split, expected shards of {members} clients at most",
            hint="another folder, or remove what is there",
        )
    if cut < len(y):
        held_out = np.sort(order[cut:])
        save_shard(folder / "test_data.npy", X[held_out], y[held_out])
    return [
        save_shard(folder / f"client_{i}_data.npy", X[training[part]], y[training[part]])
        for i, part in steps(enumerate(parts, 1), "writing shards", len(parts))
    ]


def _splitting(command: Any) -> Any:
    """The options of commands that make several shards."""
    for option in reversed(
        (
            click.option(
                "--members", default=3, show_default=True, type=click.IntRange(1), help="How many shards."
            ),
            click.option(
                "--split", default="iid", show_default=True, help="iid, label, dirichlet:A or shards:K."
            ),
            click.option("--seed", default=0, show_default=True, type=click.IntRange(0)),
        )
    ):
        command = option(command)
    return command


@data.command(epilog="Example:  choral data split --data digits --members 3 --split label shards/")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--data",
    "source",
    default="digits",
    show_default=True,
    help="digits (real, 8x8), synthetic (28x28), or a shard's path.",
)
@_splitting
@click.option(
    "--test",
    default=0.2,
    show_default=True,
    type=Number(0, 0.9),
    help="Part kept aside as test_data.npy.",
)
@click.option(
    "--count",
    default=3000,
    show_default=True,
    type=click.IntRange(10, 1_000_000),
    help="Of synthetic digits.",
)
def split(folder: Path, source: str, members: int, split: str, test: float, count: int, seed: int) -> None:
    """Make client_1_data.npy, client_2_data.npy … in FOLDER."""
    X, y = examples_of(source, count, seed)
    _say(write_shards(folder, X, y, members=members, split=split, test=test, seed=seed))


def _say(paths: list[Path]) -> None:
    for path in steps(paths, "looking at shards", len(paths)):
        labels = load_shard(path).describe().labels
        console.print(
            f"{escape(str(path))}: {sum(labels.values())} examples of {', '.join(map(str, labels))}"
        )


@data.command(epilog="Example:  choral data mnist ~/mnist --members 10 --split dirichlet:0.5 shards/")
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_splitting
@click.option(
    "--classes", default=10, show_default=True, type=click.IntRange(2, 256), help="How many the set has."
)
@click.option("--prefix", default="", help="What the names of the files begin with, where several sets are.")
def mnist(source: Path, folder: Path, members: int, split: str, seed: int, classes: int, prefix: str) -> None:
    """Shards in FOLDER from the four MNIST files in SOURCE, plain or gzipped.

    The training images are split over the members, the test images are test_data.npy. Any set in the
    same four files will do, such as Fashion-MNIST, or EMNIST with --classes. python-mnist reads them:
    pip install "choral[mnist]".
    """
    with working("reading and checking the files"):
        (X, y), (X_test, y_test), from_one = load_mnist(source, classes=classes, prefix=prefix)
    if from_one:
        console.print(f"labels 1 to {classes} are stored as 0 to {classes - 1}")
    paths = write_shards(folder, X, y, members=members, split=split, test=0.0, seed=seed)
    save_shard(folder / "test_data.npy", X_test, y_test)
    _say([*paths, folder / "test_data.npy"])


@data.command("from-npy", epilog="Example:  choral data from-npy X.npy y.npy client_1_data.npy")
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("labels", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--classes", default="", help="Names of the classes in order, for labels that are text: a,b,c")
@click.option("--pixels", is_flag=True, help="Values are whole numbers from 0 to 255: store them as such.")
def from_npy(images: Path, labels: Path, out: Path, classes: str, pixels: bool) -> None:
    """A shard from an array of images (n, d) or (n, h, w) and one of labels (n,)."""
    named = listed(classes, "--classes")
    with working("reading and checking the arrays"):
        X = array_from_npy(images)
        X = as_pixels(images, X) if pixels else X
        path = save_shard(out, X, array_from_npy(labels), classes=named)
    _say([path])


@data.command(
    "from-csv", epilog="Example:  choral data from-csv flowers.csv --label species client_1_data.npy"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--label", required=True, help="Column with the right answers.")
@click.option("--classes", default="", help="Names of the classes in order, for labels that are text: a,b,c")
@click.option("--columns", default="", help="The features, in this order: a,b,c.  [default: all columns]")
@click.option("--drop", default="", help="Columns that are no features: a,b,c")
@click.option(
    "--one-hot", "one_hot", multiple=True, metavar="COLUMN=a,b,c", help="A column of text and its categories."
)
@click.option("--pixels", is_flag=True, help="Values are whole numbers from 0 to 255: store them as such.")
@click.option("--delimiter", default=",", show_default=True, help="What separates values; tab for a tab.")
@click.option("--decimal", default=".", show_default=True, help="The decimal sign: a point or a comma.")
@click.option("--encoding", help="For example cp1252.  [default: by a byte order mark, or UTF-8]")
def from_csv(
    file: Path,
    out: Path,
    label: str,
    classes: str,
    columns: str,
    drop: str,
    one_hot: tuple[str, ...],
    pixels: bool,
    delimiter: str,
    decimal: str,
    encoding: str | None,
) -> None:
    """A shard from a CSV file whose first line names the columns.

    Every column but the label is a feature, unless --columns or --drop say otherwise. All members have to
    give the same options for files with the same columns.
    """
    categories: dict[str, tuple[str, ...]] = {}
    for each in one_hot:
        column, _, names = each.partition("=")
        if column.strip() in categories:
            raise ParameterError(f"--one-hot: found {column.strip()!r} more than once", hint="name each once")
        categories[column.strip()] = listed(names, "--one-hot")
    chosen = {
        "classes": listed(classes, "--classes"),
        "columns": listed(columns, "--columns"),
        "drop": listed(drop, "--drop"),
    }
    with working(f"reading {file}"):
        table = arrays_from_csv(
            file,
            label.strip(),
            one_hot=categories,
            pixels=pixels,
            delimiter=_DELIMITERS.get(delimiter, delimiter),
            decimal=decimal,
            encoding=encoding,
            **chosen,
        )
        path = save_shard(out, table.X, table.y)
    _say([path])
    if len(table.features) <= _FEATURES_SHOWN:
        console.print(f"  features: {escape(', '.join(table.features))}")


@data.command(epilog="Example:  choral data show shards/client_1_data.npy -o sheet.png")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=".png, .svg or .pdf")
@click.option("--columns", default=16, show_default=True, type=click.IntRange(1, 200), help="Images a class.")
@click.option("--shape", help="HEIGHTxWIDTH of the images.  [default: a square]")
def show(file: Path, out: Path, columns: int, shape: str | None) -> None:
    """A contact sheet of a shard: a row of images for every class."""
    sides = None
    if shape is not None:
        height, _, width = shape.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise ParameterError(f"found the shape {shape!r}, expected HEIGHTxWIDTH", hint="--shape 28x28")
        sides = int(height), int(width)
    with working(f"drawing {out}"):
        sheet.save(load_shard(file), out, shape=sides, columns=columns)
    console.print(f"{escape(str(out))}: written")


@data.command(epilog="Example:  choral data inspect shards/client_1_data.npy")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--features", type=click.IntRange(1), help="Check that it has so many.")
@click.option("--classes", type=click.IntRange(1), help="Check that its labels are below.")
@click.option("--json", "as_json", is_flag=True)
def inspect(file: Path, features: int | None, classes: int | None, as_json: bool) -> None:
    """Check a shard and say what is in it."""
    with working(f"checking {file}"):
        found = load_shard(file, features=features, classes=classes).describe()
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    console.print(
        f"[bold]{escape(str(file))}[/]: a good shard of {found.records} examples"
        f" with {found.features} features ({found.dtype}), {found.bytes} bytes"
    )
    console.print(f"  values {found.minimum:g} to {found.maximum:g}, mean {found.mean:.3g}")
    if found.dtype == "f4" and found.maximum > 32:
        console.print("  [yellow]note:[/] float features are used as they are; scale pixels to 0..1")
    table = Table("label", "examples", box=None)
    for label, count in found.labels.items():
        table.add_row(str(label), str(count))
    console.print(table)


COMMANDS = (data,)
