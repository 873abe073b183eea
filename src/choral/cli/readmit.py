"""`choral readmit`: let a member back into cohorts that was proven to have lied."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import click

from choral.cli.terminal import console
from choral.errors import ParameterError
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.service.state.sqlite import Store

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(epilog="Example:  choral readmit fed/aggregator hospital-b")
@click.argument("folder", type=FOLDER)
@click.argument("name")
@click.option("--state", type=FOLDER, help="Where the SQLite file lives.  [default: FOLDER/state]")
def readmit(folder: Path, name: str, state: Path | None) -> None:
    """Let member NAME back into cohorts. FOLDER is the aggregator's, which may be running.

    The aggregator keeps a member out whose shares of a secret were proven wrong. Find out why first: a broken
    disk or memory does that, too. `choral status` says who is kept out.
    """
    me = Participant.load(folder)
    if me.name != AGGREGATOR:
        raise ParameterError(
            f"{folder} is the folder of {me.name}, expected the aggregator's",
            hint="it is the aggregator that keeps members out",
        )
    if name not in me.federation.members:
        raise ParameterError(
            f"{name!r:.70} is no member of {me.federation.name!r}", hint="`choral status` names them"
        )
    store = Store(state or folder / "state", beside=True)
    try:
        kept = store.kept_out()
        if not store.readmit(name):
            others = ", ".join(kept)
            raise ParameterError(
                f"{name} is not kept out", hint=f"kept out: {others}" if others else "nobody is kept out"
            )
    except sqlite3.Error as error:
        raise ParameterError(
            f"{store.path}: cannot be changed ({error})", hint="may this user write it, and is there room?"
        ) from error
    finally:
        store.close()
    console.print(f"{name} is let back in", markup=False)
    console.print("its process asks again by itself, within five minutes; start it if it is not running")


COMMANDS = (readmit,)
