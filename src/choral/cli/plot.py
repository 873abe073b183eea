"""`choral plot`: what happened, as one file."""

from __future__ import annotations

from pathlib import Path

import click

from choral.cli.report import report
from choral.cli.terminal import say, working
from choral.disk import write_whole
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.inspection.history import findings

FOLDER = click.Path(path_type=Path, file_okay=False)


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


COMMANDS = (plot,)
