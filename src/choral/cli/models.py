"""`choral predict`, `choral model export`: what came out of the training."""

from __future__ import annotations

import json
from pathlib import Path

import click

from choral.cli.reading import Log
from choral.cli.terminal import bar, console, percent, say, working
from choral.cli.terminal import version as version_by_name
from choral.data import load_shard
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.federation.files import write_whole
from choral.founding.trainers import trainer_for
from choral.learning import model_file
from choral.learning.personal import FILE as PERSONAL
from choral.learning.personal import Personal
from choral.learning.trainer import Evaluation

_AT_ONCE = 8192  # examples
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(epilog="Example:  choral predict fed/aggregator --data shards/test_data.npy")
@click.argument("folder", type=FOLDER)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A shard with the right answers."
)
@click.option(
    "--version", type=version_by_name, metavar="NUMBER|best", help="Model version.  [default: the newest]"
)
@click.option("--model", help="Your own model as FILE.py:CLASS, when the task's model is custom.")
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
@click.option("--json", "as_json", is_flag=True)
def predict(
    folder: Path, data: Path, version: int | str | None, model: str | None, state: Path | None, as_json: bool
) -> None:
    """How right a model version is on a shard."""
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
    shard = load_shard(data, features=task.features, classes=task.classes)
    with working("reading and verifying the log"):
        log = Log(me, state)
    record = log.record(version)
    parameters = model_file.decode(log.model(record), me.task.arrays)
    X, y = shard.arrays()
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
    """Write a model version as safetensors."""
    with working("reading and verifying the log"):
        log = Log(Participant.load(folder), state)
        record = log.record(version)
        data = log.model(record)
    try:
        write_whole(out, data)
    except OSError as error:
        raise ParameterError(
            f"{out}: cannot be written ({error.strerror})", hint="another path, for example model.safetensors"
        ) from error
    say("{}: version {}, {} bytes, SHA-256 {}", out, record.version, len(data), record.parameters.hex())


COMMANDS = (predict, model)
