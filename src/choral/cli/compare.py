"""`choral compare`: what a federation is worth to its members, in one table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from choral.cli.data import examples_of
from choral.cli.recipe import recipe, rule_of, trainer_of
from choral.cli.terminal import console, errors, percent, say, steps
from choral.cli.values import COMMA_LIST, Number
from choral.errors import ParameterError
from choral.simulation import Examples, Population, divide, open_folder
from choral.simulation.comparison import Comparison
from choral.simulation.comparison import compare as compare_once


@click.command(epilog="Example:  choral compare --data digits --members 5 --splits iid,dirichlet:0.5,label")
@click.option(
    "--data",
    "source",
    default="digits",
    show_default=True,
    help="digits (real, 8x8), synthetic (28x28), a shard's path, or npy:DIR of ready shards.",
)
@click.option("--members", type=click.IntRange(2, 256), help="[default: 5, or as many as npy:DIR has]")
@click.option(
    "--split", "--splits", "splits", type=COMMA_LIST,
    help="iid, label, dirichlet:A, shards:K; several with commas.  [default: iid,dirichlet:0.5,label]",
)  # fmt: skip
@click.option(
    "--seeds",
    default="0,1,2",
    show_default=True,
    type=COMMA_LIST,
    help="Of splits and training, with commas.",
)
@click.option(
    "--count", default=3000, show_default=True, type=click.IntRange(20), help="Of synthetic digits."
)
@click.option("--test", default=0.2, show_default=True, type=Number(0.01, 0.9), help="Part to test on.")
@recipe
@click.option("--json", "as_json", is_flag=True)
def compare(
    source: str,
    splits: tuple[str, ...] | None,
    seeds: tuple[str, ...],
    rounds: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Every member alone, all of them federated, all data in one place: the same model in three ways.

    All are measured on the same test examples, and train `rounds` times. The federation's sums come out
    of the protocol's own machines, in memory.
    """
    ready = source.startswith("npy:")
    if ready and splits:
        raise ParameterError("the shards of npy:DIR are split already", hint="leave --split out")
    names = ["as found"] if ready else list(splits or ("iid", "dirichlet:0.5", "label"))
    numbers = [int(seed) for seed in seeds if seed.isdecimal() and len(seed) < 19]
    if not numbers or len(numbers) != len(seeds):
        raise ParameterError(
            f"found the seeds {', '.join(seeds)!r:.80}, expected whole numbers with commas",
            hint="--seeds 0,1,2",
        )
    rule = rule_of(given)
    found: dict[str, list[Comparison]] = {name: [] for name in names}
    runs = [(name, seed) for name in names for seed in numbers]
    for name, seed in steps(runs, "comparing", len(runs)):
        say("[dim]{}, seed {} …[/]", name, seed, to=errors)
        population, test = _data(source, name, seed, given)
        classes = max(10, int(test.y.max()) + 1)
        trainer = trainer_of(given, test.X.shape[1], classes)
        found[name].append(compare_once(trainer, population, test, rounds=rounds, seed=seed, rule=rule))
    if as_json:
        object_ = {name: [asdict(one) for one in several] for name, several in found.items()}
        click.echo(
            json.dumps(
                {"data": source, "rounds": rounds, "rule": rule.name, "seeds": numbers, "splits": object_}
            )
        )
        return
    _print(found, rounds)


def _data(source: str, split: str, seed: int, given: dict[str, Any]) -> tuple[Population, Examples]:
    if source.startswith("npy:"):
        folder, test = open_folder(Path(source.removeprefix("npy:")))
        if given["members"] not in (None, len(folder.paths)):
            raise ParameterError(
                f"{source} has {len(folder.paths)} shards, found --members {given['members']}",
                hint="leave --members out",
            )
        return folder, test
    X, y = examples_of(source, given["count"], seed)
    return divide(
        X,
        y,
        members=given["members"] or 5,
        split=split,
        test=max(1, round(len(y) * given["test"])),
        seed=seed,
    )


def _print(found: dict[str, list[Comparison]], rounds: int) -> None:
    table = Table("split", "each alone", "worst … best of them", "[bold]federated[/]", "pooled", box=None)
    for name, several in found.items():
        alone = [accuracy for one in several for accuracy in one.alone]
        table.add_row(
            escape(name),
            _spread([statistics.mean(one.alone) for one in several]),
            f"{percent(min(alone))} … {percent(max(alone))}",
            f"[bold]{_spread([one.federated for one in several])}[/]",
            _spread([one.pooled for one in several]),
        )
    console.print(table)
    some = next(iter(found.values()))
    console.print(
        f"right on examples that nobody trained on, after {rounds} rounds, {len(some[0].sizes)} members;"
        f" mean{' ± standard deviation' if len(some) > 1 else ''} over {len(some)}"
        f" seed{'s' if len(some) > 1 else ''}"
    )


def _spread(values: Sequence[float]) -> str:
    mean = percent(statistics.mean(values))
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


COMMANDS = (compare,)
