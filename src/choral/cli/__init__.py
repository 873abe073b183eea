"""The command line: one function a verb. Prints, never computes."""

from __future__ import annotations

import sys

import click

from choral import __version__
from choral.cli import (
    compare,
    data,
    demo,
    doctor,
    federation,
    kubernetes,
    models,
    ping,
    plot,
    provisioning,
    simulate,
    tls,
    watch,
)
from choral.cli.terminal import leave
from choral.errors import ChoralError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  choral demo",
)
@click.version_option(__version__, prog_name="choral")
def cli() -> None:
    """Federated learning in which the aggregator learns only the sum of its members' updates."""


for _module in (
    demo,
    provisioning,
    federation,
    watch,
    plot,
    doctor,
    models,
    data,
    simulate,
    compare,
    tls,
    ping,
    kubernetes,
):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Entry point: every expected error ends in a sentence and a hint, never in a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except ChoralError as error:
        leave(error)
