"""`choral serve`, `join`, `status`, `log`: a federation by hand."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import click
from rich.errors import MarkupError
from rich.markup import escape
from rich.table import Table

from choral.cli.left_out import Standing, left_out
from choral.cli.member_lines import show_event
from choral.cli.terminal import console, errors, percent, say, set_up_logs, working
from choral.cli.values import FILE, FOLDER, HOST, URL, Number
from choral.client import participate
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.federation.integration import integration
from choral.federation.progress import Measurement, measured, progress_of
from choral.federation.records import Record
from choral.founding.trainers import trainer_for
from choral.inspection.reading import Log, status_of, understood
from choral.service import settings as service_settings
from choral.service.serve import serve as run_aggregator

WEEK = 7 * 86400
SECONDS = Number(0, WEEK, min_open=True)
VIA = click.option(
    "--via",
    type=click.Choice(["http", "pysyft"]),
    default="http",
    show_default=True,
    help="How rounds travel; pysyft is files in PySyft's synchronised folders (docs/pysyft.md).",
)


@click.command(epilog="Example:  choral serve fed/aggregator")
@click.argument("folder", type=FOLDER)
@click.option("--host", type=HOST, help="Address to listen on.  [default: from the federation's URL]")
@click.option("--port", type=click.IntRange(0, 65535))
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
@click.option("--cohort", type=click.IntRange(2), help="How many members a cohort aims at.  [default: all]")
@click.option("--join-seconds", type=SECONDS, help="How long a cohort waits for members that are there.")
@click.option("--phase-seconds", type=SECONDS, help="Deadline of each later phase.")
@click.option("--gone-seconds", type=SECONDS, help="Not connected for this long: not waited for.")
@click.option(
    "--startup-seconds",
    type=Number(0, WEEK),
    help="After a start, wait this long for members never heard from.",
)
@click.option(
    "--pace-seconds", type=Number(0, WEEK), help="At least this long from one model version to the next."
)
@click.option("--wait-seconds", type=Number(0, 60, min_open=True), help="Longest wait of one request.")
@click.option(
    "--witness", type=FOLDER, help="Also write every masked vector and sum here (for demonstrations)."
)
@VIA
def serve(folder: Path, witness: Path | None, via: str, **given: Any) -> None:
    """Run the aggregator of FOLDER until it is stopped.

    Every option is also a line of FOLDER/settings.toml and an environment variable, for example
    CHORAL_PHASE_SECONDS. SIGTERM and Ctrl-C let the running round end first.
    """
    aggregator = Participant.load(folder).expect(aggregator=True)
    chosen = service_settings.load(folder, aggregator.federation.aggregator.url, **given)
    set_up_logs(chosen.log_format)

    def started(url: str) -> None:
        errors.print(
            f"[bold]choral[/] serves {escape(repr(aggregator.federation.name))} at {url}: "
            f"{len(aggregator.federation.members)} members enrolled, {aggregator.task.rounds} rounds"
        )
        if chosen.dashboard != "off" and via != "pysyft":
            who = "on this machine" if chosen.dashboard == "local" else "with the token"
            errors.print(f"  the dashboard is there, too, {who}: open it in a browser")

    run = integration("syft", "aggregator").serve if via == "pysyft" else run_aggregator
    try:
        asyncio.run(run(aggregator, chosen, witness=witness, started=started))
    except OSError as error:
        raise ParameterError(
            f"cannot listen on {chosen.host}:{chosen.port} ({error.strerror or error})",
            hint="is another aggregator running? `--port` takes another one",
        ) from error


@click.command(epilog="Example:  choral join fed/member-1 --data shards/client_1_data.npy")
@click.argument("folder", type=FOLDER)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="This member's shard.")
@click.option("--model", help="Your own model as FILE.py:CLASS, when the task's model is custom.")
@click.option("--state", type=FOLDER, help="Where the journal lives.  [default: FOLDER/state]")
@click.option("--url", type=URL, help="Address of the aggregator, if another than in federation.toml.")
@click.option("--seed", type=click.IntRange(0), help="Of this member's training.  [default: from the task's]")
@click.option(
    "--stay", is_flag=True, help="At the end of the training, wait to be stopped instead of ending."
)
@click.option("--patience", type=Number(0), help="Give up when the aggregator is away for so many seconds.")
@click.option(
    "--witness", type=FOLDER, help="Also write every update here, in the clear (for demonstrations)."
)
@VIA
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines.")
def join(folder: Path, data: Path, model: str | None, as_json: bool, via: str, **given: Any) -> None:
    """Take part with the key in FOLDER and the data of one shard.

    Trains when there is a new model, joins a cohort when the update is ready, and goes on until the
    task's rounds are done. The aggregator may be down, late or restarted meanwhile.
    """
    os.umask(0o077)  # what is kept is nobody else's to read, as at the aggregator; this process is ours
    trainer = trainer_for(model, 1, 2, {})[1] if model else None

    def as_line(event: str, **details: Any) -> None:
        click.echo(json.dumps({"event": event, "time": round(time.time(), 3), **details}))

    told: dict[str, Any] = {"report": as_line} if as_json else {"tell": show_event}
    carrier = integration("syft", "member").carrier(folder) if via == "pysyft" else None
    participate(folder, data, trainer, carrier=carrier, **told, **given)


@click.command(epilog="Example:  choral status fed/aggregator     choral status http://127.0.0.1:8750")
@click.argument("where", metavar="URL|FOLDER")
@click.option("--ca", type=FILE, help="The authority to trust for an https URL.")
@click.option("--json", "as_json", is_flag=True)
def status(where: str, ca: Path | None, as_json: bool) -> None:
    """Round and phase, who is in, who is awaited, and for how long still."""
    found = status_of(where, ca)
    if as_json:
        click.echo(json.dumps(found))
        return
    with understood(where, MarkupError):
        _print_status(found)


def _print_status(found: dict[str, Any]) -> None:
    console.print(
        f"[bold]{escape(found['federation'])}[/]: version {found['version']} of {found['rounds']}"
        + (", training is over" if found["over"] else "")
        + (
            f"; version {found['version'] - 1} was {percent(found['accuracy_before'])} right"
            if found["version"]
            else ""
        )
    )
    there = [name for name, member in found["members"].items() if member["connected"]]
    say("  connected: {} ({} of {})", ", ".join(there) or "nobody", len(there), len(found["members"]))
    for cohort in found["cohorts"]:
        got = cohort["in"][cohort["phase"]]
        left = cohort["seconds_left"]
        say(
            "  cohort {} from version {}, phase [bold]{}[/]: {} in ({} of at least {}), waiting for {}{}",
            cohort["round"][:12] or "(open)", cohort["base"], cohort["phase"], ", ".join(got) or "nobody",
            len(got), cohort["needed"], ", ".join(cohort["awaited"]) or "nobody",
            "" if left is None else f", {left:.0f} s left",
        )  # fmt: skip
    for style, line in left_out(_standing(found)):
        console.print(f"  {line}", style=style, markup=False, soft_wrap=True)


def _standing(found: dict[str, Any]) -> Standing:
    over = found["over"]
    resting = {name: member["resting"] for name, member in found["members"].items() if not over}
    return Standing(
        stuck=found["stuck"] or "",
        kept_out=[(name, kept["round"], kept["reason"]) for name, kept in found["kept_out"].items()],
        apart=[pair for cohort in found["cohorts"] for pair in cohort["apart"].items() if not over],
        spent=[name for name, kind in resting.items() if kind == "spent"],
        pause=[name for name, kind in resting.items() if kind == "pause"],
    )


@click.command(epilog="Example:  choral log fed/aggregator")
@click.argument("folder", type=FOLDER)
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
@click.option("--json", "as_json", is_flag=True)
def log(folder: Path, state: Path | None, as_json: bool) -> None:
    """The model log, every signature and link verified.

    FOLDER is the aggregator's (read from disk) or a member's (asked over the network).
    """
    me = Participant.load(folder)
    with working("reading and verifying the log"):
        found = Log(me, state).records
    progress, measures = progress_of(found), measured(found)
    best = progress.best
    if as_json:
        for record in found:
            said = _record(record, measures.get(record.version))
            click.echo(json.dumps({**said, "best": best is not None and record.version == best.version}))
        return
    table = Table("version", "model", "round", "in it", "examples", "right", "loss", "on", "", box=None)
    for record in found:
        metrics, measure = record.metrics, measures.get(record.version)
        table.add_row(
            str(record.version),
            record.parameters.hex()[:12],
            record.round_id.hex()[:12] if record.version else "–",
            escape(", ".join(sorted(record.survivors))) or "–",
            str(metrics.weight) if metrics else "–",
            percent(measure.accuracy) if measure else "–",
            f"{measure.loss:.4f}" if measure else "–",
            _on(measure) if measure else "–",
            "[green]best[/]" if best is not None and record.version == best.version else "",
        )
    console.print(table)
    console.print(f"{len(found)} records, every signature and link verified")
    if best is not None and progress.chosen is not None:
        console.print(
            f"best version: {best.version}, {percent(best.accuracy)} right, mean loss {best.loss:.4f}, of"
            f" the {progress.chosen.count} that the same {_on(best)} measured (the newest one never is)"
        )
    elif measures:
        console.print("no version is the best: no two of them were measured by the same members")
    if found and found[-1].version < me.task.rounds and progress.over(me.task):
        console.print(f"training ended early: {me.task.patience} versions in a row were no better")


def _on(measure: Measurement) -> str:
    return f"{measure.members} members' {measure.examples:g} examples"


def _record(record: Record, measure: Measurement | None) -> dict[str, Any]:
    metrics = record.metrics
    return {
        "version": record.version,
        "digest": record.digest.hex(),
        "parameters": record.parameters.hex(),
        "round": record.round_id.hex(),
        "survivors": list(record.survivors),
        "weight": metrics.weight if metrics else None,
        "accuracy": measure.accuracy if measure else None,
        "loss": measure.loss if measure else None,
        "measured_by": measure.members if measure else None,
        "measured_on": measure.examples if measure else None,
    }


COMMANDS = (serve, join, status, log)
