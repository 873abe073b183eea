"""The command line: one function a verb. Prints, never computes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

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
    readmit,
    simulate,
    tls,
    watch,
)
from choral.cli.terminal import complain, leave
from choral.errors import ChoralError, IdentityError, ParameterError, ShardError


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
    readmit,
):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: every expected error ends in a sentence and a hint, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is still shown
            stream.reconfigure(errors="backslashreplace")
    try:
        cli.main(arguments, prog_name="choral", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.UsageError) and error.ctx is None:
            click.echo("Try 'choral --help' for help.", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(141)
    except ChoralError as error:
        if error.hint is None and isinstance(error, ParameterError | ShardError | IdentityError):
            verb = _verb(sys.argv[1:] if arguments is None else arguments)
            error.hint = f"`choral {verb} --help` says what goes where"
        leave(error)
    except OSError as error:
        complain(_of_the_system(error))
        sys.exit(1)
    except MemoryError:
        complain(ChoralError("this needs more memory than there is", hint="smaller numbers help"))
        sys.exit(1)


def _verb(arguments: Sequence[str]) -> str:
    """The verb in a command line, with its group's name before it."""
    found: list[str] = []
    group: click.Command | None = cli
    for each in arguments:
        if not isinstance(group, click.Group) or each not in group.commands:
            break
        group = group.commands[each]
        found.append(each)
    return " ".join(found)


def _of_the_system(error: OSError) -> ChoralError:
    """What the operating system refused, where nothing nearer knew what it means."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hint = "is the path right, may this user read and write there, and is there room?" if where else None
    return ChoralError(f"{where}{error.strerror or error}", hint=hint or "the operating system refused it")
