"""`choral simulate`: thousands of members in one process, dropping where chance has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from choral.cli.data import examples_of
from choral.cli.floors import MINIMUM, TOLERATED
from choral.cli.recipe import recipe, rule_of, trainer_of
from choral.cli.speed import race
from choral.cli.terminal import console, errors, percent, size
from choral.cli.values import Number
from choral.errors import ParameterError
from choral.federation.task import colluding
from choral.simulation import Examples, Population, Report, Simulation, Summary, divide, open_folder

TEST_EXAMPLES = 2000
FEW = 10  # examples a member: below it, a person should know


@click.command(epilog="Example:  choral simulate --members 1000 --cohort 100 --rounds 20 --drop 0.2 --seed 1")
@click.option("--members", type=click.IntRange(2, 100_000), help="[default: 100, or as many as npy:DIR has]")
@click.option(
    "--cohort",
    type=click.IntRange(2),
    help="Members drawn for each round.  [default: a tenth of the members, 10 to 100]",
)
@click.option(
    "--drop",
    default=0.0,
    show_default=True,
    type=Number(0, 1),
    help="Probability that a member of a cohort vanishes somewhere in the round.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything.")
@click.option(
    "--data",
    "source",
    default="synthetic",
    show_default=True,
    help="synthetic (28x28), digits (real, 8x8), a shard's path to be split, or npy:DIR of ready shards.",
)
@click.option(
    "--examples",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Of synthetic digits, for each member on average.",
)
@click.option("--split", help="iid, label, dirichlet:A or shards:K.  [default: iid]")
@recipe
@MINIMUM
@TOLERATED
@click.option(
    "--speed",
    metavar="lognormal:SIGMA",
    help="Members differ in speed: compare synchronous, deadline and stale-tolerant training instead.",
)
@click.option(
    "--max-staleness", default=10, show_default=True, type=click.IntRange(1, 100), help="With --speed."
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="With --speed: curves as .png, .svg."
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object; the rest to standard error.")
def simulate(rounds: int, as_json: bool, **given: Any) -> None:
    """Train a federation in memory, with the protocol that real ones run.

    Every round draws a cohort; each of its members trains, masks its update, and may vanish before any of
    its messages. A round that loses too many aborts, says why, and the next one goes on from the same
    model. The same seed gives the same model. A quick look, not a measurement of a network: members
    answer at once, one after the other, on one core.
    """
    out = errors if as_json else console
    population, test = _data(given)
    classes = max(10, int(test.y.max()) + 1)
    trainer = trainer_of(given, test.X.shape[1], classes)
    rule = rule_of(given)
    members = len(population.sizes)
    if given["speed"]:
        race(
            trainer,
            population,
            test,
            speed=given["speed"],
            cohort=given["cohort"] or min(max(10, members // 10), 100, members),
            rounds=rounds,
            staleness=given["max_staleness"],
            seed=given["seed"],
            rule=rule,
            plot=given["plot"],
            as_json=as_json,
        )
        return
    simulation = Simulation(
        trainer,
        population,
        test,
        cohort=given["cohort"] or min(max(10, members // 10), 100, members),
        drop=given["drop"],
        seed=given["seed"],
        minimum=given["minimum"],
        tolerated=colluding(given["tolerated"]),
        rule=rule,
    )
    _introduce(out, simulation, population, test, given)
    reports: list[Report] = []
    try:
        _run(out, simulation, rounds, reports)
    finally:  # also after Ctrl-C: what is known by then
        if reports:
            _conclude(out, simulation, reports)
            if as_json:
                click.echo(json.dumps({**_object(simulation, population, reports, given), "rule": rule.name}))


def _run(out: Console, simulation: Simulation, rounds: int, reports: list[Report]) -> None:
    columns = (
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("time left", total=rounds)
        for report in simulation.run(rounds):
            reports.append(report)
            out.print(_line(report))
            progress.advance(bar)


def _data(given: dict[str, Any]) -> tuple[Population, Examples]:
    source, members = given["source"], given["members"]
    if source.startswith("npy:"):
        if given["split"]:
            raise ParameterError("the shards of npy:DIR are split already", hint="leave --split out")
        folder, test = open_folder(Path(source.removeprefix("npy:")))
        if members not in (None, len(folder.paths)):
            raise ParameterError(
                f"{source} has {len(folder.paths)} shards, found --members {members}",
                hint="leave --members out",
            )
        return folder, test
    members = members or 100
    X, y = examples_of(source, members * given["examples"] + TEST_EXAMPLES, given["seed"])
    return divide(
        X,
        y,
        members=members,
        split=given["split"] or "iid",
        test=TEST_EXAMPLES if source == "synthetic" else len(y) - len(y) * 4 // 5,
        seed=given["seed"],
    )


def _introduce(
    out: Console, simulation: Simulation, population: Population, test: Examples, given: dict[str, Any]
) -> None:
    frame, sizes, cohort = simulation.parameters, population.sizes, simulation.cohort
    out.print(
        f"[bold]{len(sizes)} members[/] with {_span(sizes)} examples each ({escape(given['source'])}),"
        f" {frame.dimension} parameters, {len(test.y)} examples to test on"
    )
    if sum(sizes) < FEW * len(sizes):
        out.print("  [yellow]note:[/] hardly any data a member; --data synthetic makes as much as is wanted")
    out.print(
        f"  a full cohort of {cohort}: {frame.quorum(cohort)} must stay to the end, up to"
        f" {frame.colluders(cohort)} may collude with the aggregator; a member drops with"
        f" probability {given['drop']:g}"
    )


def _line(report: Report) -> str:
    head = f"round {report.round:3}  {percent(report.measured.accuracy)}  {report.seconds:5.2f} s  "
    gone = ", ".join(f"{count} in {phase}" for phase, count in report.dropped_by_phase.items())
    gone = f"  [dim]dropped: {gone}[/]" if gone else ""
    if report.aborted is None:
        return f"{head}{len(report.survivors)} of {report.invited} in the sum{gone}"
    return f"{head}[yellow]aborted:[/] {report.aborted}{gone}"


def _conclude(out: Console, simulation: Simulation, reports: list[Report]) -> None:
    summary = Summary.of(reports)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("accuracy", f"[bold]{percent(summary.accuracy)}[/] after {summary.rounds} rounds")
    aborts = [f"{count} x {reason}" for reason, count in summary.aborted.items()]
    table.add_row("aborts", "\n".join(aborts) or "none")
    drops = [f"{count} in {phase}" for phase, count in summary.dropped.items()]
    table.add_row("dropped", ", ".join(drops) or "nobody")
    seconds = summary.seconds
    table.add_row(
        "seconds a round", f"{seconds.least:.2f} / {seconds.median:.2f} / {seconds.most:.2f} (min/median/max)"
    )
    if summary.bytes_up is not None and summary.bytes_down is not None:
        table.add_row(
            "bytes a member",
            f"{size(summary.bytes_up)} up, {size(summary.bytes_down)} down a round,"
            f" and the model of {size(len(simulation.model_bytes))}",
        )
    table.add_row("model", simulation.model_digest.hex())
    out.print()
    out.print(table)


def _object(
    simulation: Simulation, population: Population, reports: list[Report], given: dict[str, Any]
) -> dict[str, Any]:
    summary = Summary.of(reports)
    return {
        "rounds": summary.rounds,
        "version": simulation.version,
        "accuracy": [
            round(report.measured.accuracy, 6) if report.measured.classified else None for report in reports
        ],
        "survivors": [len(report.survivors) for report in reports],
        "dropped": [{name: phase.value for name, phase in report.dropped.items()} for report in reports],
        "aborted": [
            {"round": report.round, "reason": report.aborted, "missing": list(report.missing)}
            for report in reports
            if report.aborted is not None
        ],
        "seconds": [round(report.seconds, 4) for report in reports],
        "seconds_a_round": {name: round(value, 4) for name, value in summary.seconds._asdict().items()},
        "bytes_a_member": {
            "up": summary.bytes_up,
            "down": summary.bytes_down,
            "model": len(simulation.model_bytes),
        },
        "members": len(population.sizes),
        "cohort": simulation.cohort,
        "examples": [min(population.sizes), max(population.sizes)],
        "parameters": simulation.parameters.dimension,
        "model_digest": simulation.model_digest.hex(),
        "data": given["source"],
        "split": given["split"] or ("as found" if given["source"].startswith("npy:") else "iid"),
        **{name: given[name] for name in ("model", "drop", "seed")},
    }


def _span(sizes: Any) -> str:
    least, most = min(sizes), max(sizes)
    return str(least) if least == most else f"{least} to {most}"


COMMANDS = (simulate,)
