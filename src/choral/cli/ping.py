"""`choral ping`: the health check of containers, as a verb."""

from __future__ import annotations

import sys

import click

from choral import ping as health


@click.command(epilog="Example:  choral ping fed/aggregator")
@click.argument("folder", required=False)
@click.option("--live", is_flag=True, help="Alive is enough; by default the aggregator must be ready, too.")
def ping(folder: str | None, live: bool) -> None:
    """Whether the participant of FOLDER runs on this machine and is well; exit code 1 if not.

    FOLDER is CHORAL_FOLDER or /etc/choral by default; CHORAL_STATE names the state folder if it is elsewhere.
    `python -m choral.ping` is the same and starts faster.
    """
    sys.exit(health.look(folder, "/livez" if live else "/readyz"))


COMMANDS = (ping,)
