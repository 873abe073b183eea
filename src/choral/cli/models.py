"""`choral predict`, `choral model export`: what came out of the training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from safetensors.numpy import save

from choral.cli.terminal import bar, console, percent, say, working
from choral.cli.terminal import version as version_by_name
from choral.data import load_shard
from choral.data.arrays import from_npy
from choral.disk import write_whole
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.federation.task import Model
from choral.founding.trainers import trainer_for
from choral.inspection.reading import Log
from choral.learning import model_file
from choral.learning.personal import FILE as PERSONAL
from choral.learning.personal import Personal
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters

_AT_ONCE = 8192  # examples
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(epilog="Example:  choral predict fed/aggregator --data shards/test_data.npy")
@click.argument("folder", type=FOLDER)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="A shard, or a .npy with an array of examples whose answers nobody knows.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what the model says as CSV: row,label.",
)
@click.option(
    "--version", type=version_by_name, metavar="NUMBER|best", help="Model version.  [default: the newest]"
)
@click.option("--model", help="Your own model as FILE.py:CLASS, when the task's model is custom.")
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
@click.option("--json", "as_json", is_flag=True)
def predict(
    folder: Path,
    data: Path,
    out: Path | None,
    version: int | str | None,
    model: str | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """What a model version says to examples, and how right it is where the answers are known.

    Labels are numbers from 0, in the order of the classes.
    """
    me = Participant.load(folder)
    task = me.task.model
    if task.name == "custom" and model is None:
        raise ParameterError("this federation trains a model of its own", hint="--model FILE.py:CLASS")
    _, trainer = trainer_for(model or task.name, task.features, task.classes, task.options)
    if isinstance(trainer, Personal):
        kept = (state or me.folder / "state") / PERSONAL
        if not kept.exists():
            raise ParameterError(
                f"the arrays {', '.join(trainer.patterns)} stay with the members, and {me.folder} has none",
                hint="predict with the folder of a member that has trained",
            )
        trainer = trainer.kept_in(kept)
    X, y = _examples(data, task)
    with working("reading and verifying the log"):
        log = Log(me, state)
    record = log.record(version)
    parameters = model_file.decode(log.model(record), me.task.arrays)
    labels = _labels(trainer, parameters, X) if y is None or out is not None else None
    if out is not None and labels is not None:
        _write(out, labels)
    if y is None:
        assert labels is not None  # noqa: S101
        _say(record.version, labels, out, as_json=as_json)
        return
    found = Evaluation(0, 0, 0.0)
    with bar("predicting", len(y)) as advance:
        for at in range(0, len(y), _AT_ONCE):
            found += trainer.evaluate(parameters, X[at : at + _AT_ONCE], y[at : at + _AT_ONCE])
            advance(_AT_ONCE)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "version": record.version,
                    "examples": found.examples,
                    "correct": found.correct if found.classified else None,
                    "accuracy": found.accuracy if found.classified else None,
                    "loss": found.mean_loss,
                }
            )
        )
        return
    right = f"{found.correct} of {found.examples} right, [bold]{percent(found.accuracy)}[/]"
    if not found.classified:
        right = f"{found.examples} examples, none of them right or wrong"
    console.print(f"version {record.version}: {right}, mean loss {found.mean_loss:.4f}")


def _examples(file: Path, task: Model) -> tuple[Examples, Labels | None]:
    """Inputs as members train on them, and the right answers if the file has them.

    Raises:
        ShardError, ParameterError: neither a shard nor an array of examples for this task.
    """
    try:
        bare = np.load(file, mmap_mode="r", allow_pickle=False).dtype.names is None
    except (OSError, ValueError):
        bare = False  # what is wrong with it is said better where shards are read
    if not bare:
        return load_shard(file, features=task.features, classes=task.classes).arrays()
    array = from_npy(file)
    if array.dtype.kind not in "uif" or array.ndim < 2 or math.prod(array.shape[1:]) != task.features:
        raise ParameterError(
            f"{file}: found {array.dtype} {array.shape}, expected numbers (n, {task.features}),"
            f" as many a row as the federation's examples have",
            hint="a shard with right answers will do, too",
        )
    X = array.reshape(len(array), -1)
    if array.dtype == np.uint8:  # pixels, as in a shard
        return np.divide(X, np.float32(255), dtype=np.float32), None
    return np.array(X, np.float32), None


def _labels(trainer: Any, parameters: Parameters, X: Examples) -> NDArray[np.int64]:
    """What the model says, int64 (n,).

    Raises:
        ParameterError: the model cannot say.
    """
    if not callable(getattr(trainer, "predict", None)):
        raise ParameterError(
            f"a {type(trainer).__name__} measures, but does not say which class an example belongs to",
            hint="give it a method predict(parameters, X) that returns one whole number for each row of X",
        )
    said = [
        np.asarray(trainer.predict(parameters, X[at : at + _AT_ONCE])) for at in range(0, len(X), _AT_ONCE)
    ]
    labels = np.concatenate(said) if said else np.empty(0, np.int64)
    if labels.shape != (len(X),):
        raise ParameterError(
            f"predict gave {labels.dtype} {labels.shape}, expected one label for each of {len(X)}"
        )
    return labels.astype(np.int64)


def _write(out: Path, labels: NDArray[np.int64]) -> None:
    lines = ["row,label", *(f"{row},{label}" for row, label in enumerate(labels))]
    try:
        write_whole(out, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise ParameterError(
            f"{out}: cannot be written ({error.strerror})", hint="another path, for example labels.csv"
        ) from error


def _say(version: int, labels: NDArray[np.int64], out: Path | None, *, as_json: bool) -> None:
    """What the model said to examples whose answers nobody knows."""
    if as_json:
        click.echo(json.dumps({"version": version, "examples": len(labels), "labels": labels.tolist()}))
        return
    classes, counts = np.unique(labels, return_counts=True)
    console.print(
        f"version {version}: {len(labels)} examples, "
        + ", ".join(f"{count} of class {label}" for label, count in zip(classes, counts, strict=True))
        + (f"; {escape(str(out))}: written" if out else "; --out labels.csv writes them row by row")
    )


@click.group()
def model() -> None:
    """Models as files."""


@model.command(epilog="Example:  choral model export fed/aggregator --version 7 out.safetensors")
@click.argument("folder", type=FOLDER)
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--version", type=version_by_name, metavar="NUMBER|best", help="Model version.  [default: the newest]"
)
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
def export(folder: Path, out: Path, version: int | str | None, state: Path | None) -> None:
    """Write a model version as safetensors, with its origin in the file's metadata.

    The arrays are those of the log. The file is not the log's to the byte: `model` in the metadata is the
    SHA-256 of the file that the record names, which has no metadata.
    """
    me = Participant.load(folder)
    with working("reading and verifying the log"):
        log = Log(me, state)
        record = log.record(version)
        data = save(model_file.decode(log.model(record), me.task.arrays), origin(me, record))
    try:
        write_whole(out, data)
    except OSError as error:
        raise ParameterError(
            f"{out}: cannot be written ({error.strerror})", hint="another path, for example model.safetensors"
        ) from error
    say("{}: version {}, {} bytes, SHA-256 {}", out, record.version, len(data), record.parameters.hex())


def origin(me: Participant, record: Record) -> dict[str, str]:
    """Where a model comes from, as safetensors' metadata has it."""
    task = me.task
    return {
        "format": "choral",
        "federation": me.federation.name,
        "name": f"{task.name} {task.model.name}",
        "version": str(record.version),
        "task": task.digest.hex(),
        "record": record.digest.hex(),
        "model": record.parameters.hex(),
    }


COMMANDS = (predict, model)
