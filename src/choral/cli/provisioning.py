"""`choral init`: the task, keys and one folder for each participant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from choral.binding import certificates
from choral.cli.floors import MINIMUM, TOLERATED
from choral.cli.recipe import for_task, recipe
from choral.cli.terminal import say, steps
from choral.cli.tls import tls_of
from choral.cli.values import COMMA_LIST, FILE, FOLDER, URL, Number
from choral.errors import ParameterError
from choral.federation.integration import sealer
from choral.founding import found
from choral.founding.folders import AUTHORITY
from choral.vectors.fixed_point import LARGEST_COHORT

LARGEST = 2**31 - 1  # features: more are a mistake


@click.command(epilog="Example:  choral init fed/ --members 3 --shards shards/ --rounds 60")
@click.argument("folder", type=FOLDER)
@click.option("--members", type=click.IntRange(2, 10000), help="How many members, named member-1, member-2 …")
@click.option("--names", type=COMMA_LIST, help="Names of the members instead, separated by commas.")
@click.option(
    "--shards",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of client_*_data.npy: features, classes and weight cap are read off them.",
)
@click.option(
    "--features", type=click.IntRange(1, LARGEST), help="Inputs an example, when there are no shards here."
)
@click.option(
    "--classes", type=click.IntRange(2, 256), help="Number of classes.  [default: of the shards, or 10]"
)
@click.option(
    "--weight-cap", type=click.IntRange(1, 2**32), help="Most training examples that count for a member."
)
@recipe
@click.option(
    "--url",
    default="http://127.0.0.1:8750",
    show_default=True,
    type=URL,
    help="Where members find the aggregator.",
)
@MINIMUM
@TOLERATED
@click.option("--largest-cohort", type=click.IntRange(2, LARGEST_COHORT), help="[default: all members]")
@click.option(
    "--clip",
    default=8.0,
    show_default=True,
    type=Number(0, min_open=True),
    help="Range of an update's coordinates.",
)
@click.option(
    "--holdout",
    default=0.2,
    show_default=True,
    type=Number(0, 1, max_open=True),
    help="Part of each shard that only measures the model.",
)
@click.option(
    "--stop-after",
    "patience",
    default=0,
    show_default=True,
    type=click.IntRange(0, 10**6),
    help="End early when the same members found so many versions in a row no better.  0: never.",
)
@click.option(
    "--max-staleness",
    default=0,
    show_default=True,
    type=click.IntRange(0, 100),
    help="How many versions older a member's base may be than the newest: docs/threats.md.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**63 - 1),
    help="Of the first model and of training.",
)
@click.option("--name", default="federation", show_default=True, help="Of the federation.")
@click.option(
    "--sealing",
    type=click.Choice(["aes-gcm", "syft"]),
    default="aes-gcm",
    show_default=True,
    help="How shares travel; syft is PySyft's encryption, around the masked vectors too.",
)
@click.option(
    "--tls", is_flag=True, help="Make a certificate authority and a certificate; the URL is then https."
)
@click.option(
    "--tls-name",
    type=COMMA_LIST,
    help="Further names and addresses for the certificate, separated by commas.",
)
@click.option("--tls-cert", type=FILE, help="Your own certificate (PEM, with its chain) instead.")
@click.option("--tls-key", type=FILE, help="Its key (PEM).")
@click.option("--tls-ca", type=FILE, help="Its authority, if not one that every machine trusts.")
def init(folder: Path, members: int | None, names: tuple[str, ...] | None, **given: Any) -> None:
    """Make keys and one folder for each participant.

    FOLDER/aggregator goes to whoever runs the aggregator, FOLDER/NAME to that member and to nobody
    else: each holds one private key, and no private key is in two places.
    """
    who = names or [f"member-{i}" for i in range(1, (members or 0) + 1)]
    if len(who) < 2:
        raise ParameterError(
            f"found {len(who)} members, expected at least 2", hint="--members 3, or --names anna,ben,chris"
        )
    tls = tls_of(given)
    federation, task = found(
        folder, who, **_values(given), tls=tls, each=lambda all_: steps(all_, "making folders", len(all_))
    )
    largest = min(task.largest_cohort, len(who))
    frame = task.parameters(federation.minimum, federation.tolerated)
    say("[bold]{}[/]: the aggregator and {} members, {} parameters", folder, len(who), task.dimension)
    say(
        "  a full cohort of {}: {} must stay to the end, up to {} may collude with the aggregator",
        largest, frame.quorum(largest), frame.colluders(largest),
    )  # fmt: skip
    bound = task.plan.error_bound(largest, largest * task.weight_cap)
    say(
        "  {}-bit integers, clipped at ±{:g}; error of a mean at most {:.1e} a coordinate when all have the"
        " capped weight", task.plan.bits, task.clip, bound,
    )  # fmt: skip
    if bound > 1e-4:
        say("  [yellow]warning:[/] that is coarse; a smaller --clip or cohort makes it finer")
    if federation.warning:
        say("  [yellow]warning:[/] {}", federation.warning)
    if sealed := sealer(task.sealing):
        say("  sealed by Syft Crypto: the Syft bundles of all are pinned in federation.toml")
        if warning := sealed.warning(largest):
            say("  [yellow]warning:[/] {}", warning)
    if tls:
        names_there = ", ".join(certificates.names_of(tls.server.certificate))
        say("  TLS for {} until {:%Y-%m-%d}", names_there, certificates.expires(tls.server.certificate))
    if tls and tls.authority_key:
        say("  move {} offline: its key can pass for the aggregator", folder / AUTHORITY)
    say("  next: choral serve {}", folder / "aggregator")


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `init` as `found` takes them."""
    folder = given.pop("shards")
    shards = sorted(folder.glob("client_*_data.npy")) if folder else []
    if folder and not shards:
        raise ParameterError(f"{folder} holds no client_*_data.npy", hint="`choral data split` makes them")
    return {
        **given,
        "shards": shards,
        **for_task(given),
    }


COMMANDS = (init,)
