"""`choral plot`: what happened, as one file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from choral.cli.reading import Log, fetch, understood
from choral.cli.report import Findings, report
from choral.cli.terminal import say, working
from choral.disk import write_whole
from choral.errors import ParameterError
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.progress import measured, progress_of
from choral.service.page import view
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import Store

FOLDER = click.Path(path_type=Path, file_okay=False)
ROUNDS = 2000  # the newest, that a report shows
_LARGE = 1000  # members by name


@click.command(
    epilog="Example:  choral plot fed/aggregator -o report.html     choral plot fed/member-1 -o report.png"
)
@click.argument("folder", type=FOLDER)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help=".html or .png"
)
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
def plot(folder: Path, out: Path, state: Path | None) -> None:
    """A report that stands alone: curves, rounds, members, costs, security parameters, ring plan and error.

    FOLDER is the aggregator's (read from disk) or a member's (asked over the network). As .png it is a
    picture of the main charts, by matplotlib: pip install "choral[pictures]".
    """
    if out.suffix not in (".html", ".png"):
        raise ParameterError(
            f"found {out.name!r:.80}, expected a name that ends in .html or .png", hint="-o report.html"
        )
    with working("reading and verifying the log"):
        found = findings(Participant.load(folder), state)
    try:
        with working(f"drawing {out}"):
            if out.suffix == ".png":
                from choral.cli.picture import save  # noqa: PLC0415  (matplotlib takes its time)

                save(found, out)
            else:
                write_whole(out, report(found).encode())
    except OSError as error:
        raise ParameterError(
            f"{out}: cannot be written ({error.strerror})", hint="is its folder there, and is there room?"
        ) from error
    count = len(found.state["grid"])
    say("{}: {} rounds to version {}, {} bytes", out, count, found.state["version"], out.stat().st_size)


def findings(me: Participant, state: Path | None) -> Findings:
    """Log and rounds of a federation, every link verified.

    Raises:
        ChoralError: they cannot be had, or do not verify.
    """
    records = Log(me, state).records
    if me.name == AGGREGATOR:
        store = Store(state or me.folder / "state", read_only=True)
        rows = store.rounds(ROUNDS)
        store.close()
    else:
        (data,) = fetch(me, "/v1/rounds")
        with understood(me.federation.aggregator.url):
            rows = [RoundRow.read(row) for row in json.loads(data)]
    names = list(me.federation.members)[:_LARGE]
    with understood(me.federation.aggregator.url):
        found = view.history(me, measured(records), records[-ROUNDS:], rows, progress_of(records))
        found["grid"] = [view.round_of(row, names) for row in rows if row.state != "open"]
    plan = me.task.plan
    bounds = [
        plan.error_bound(len(record.survivors), record.metrics.weight)
        for record in records
        if record.version and record.metrics and record.metrics.weight
    ]
    return Findings(found, names, max(bounds, default=None))


COMMANDS = (plot,)
