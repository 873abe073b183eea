"""`choral kubernetes`: the folders of `choral init` as Secrets, one a participant."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import click

from choral.binding import certificates
from choral.cli.values import COMMA_LIST
from choral.errors import ParameterError
from choral.federation.enrolment import AGGREGATOR, CA, INITIAL, SYFT_KEYS, Participant

_LARGEST = 1 << 20  # bytes in one Secret, by Kubernetes
_PARTICIPANT = ("identity.pem", SYFT_KEYS, "federation.toml", "task.toml", CA, INITIAL)


@click.group()
def kubernetes() -> None:
    """What deploy/kubernetes needs from here."""


@kubernetes.command(epilog="Example:  choral kubernetes secrets fed/ | kubectl apply -f -")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--namespace", default="choral", show_default=True)
@click.option("--only", type=COMMA_LIST, help="Names of participants, separated by commas.  [default: all]")
def secrets(folder: Path, namespace: str, only: tuple[str, ...] | None) -> None:
    """One Secret for each participant of FOLDER, as YAML; the aggregator's certificate is one of its own.

    A pod mounts the Secret of its participant and no other. The authority's key (FOLDER/ca) goes nowhere.
    """
    aggregator = Participant.load(folder / AGGREGATOR)
    names = only or (AGGREGATOR, *aggregator.federation.members)
    made: dict[str, str] = {}
    for name in names:
        if name != AGGREGATOR and name not in aggregator.federation.members:
            raise ParameterError(
                f"{name!r:.80} is not enrolled in this federation",
                hint=f"{folder / AGGREGATOR / 'federation.toml'} names who is",
            )
        secret = f"choral-{_label(name)}"
        if secret in made:
            raise ParameterError(
                f"{name} and {made[secret]} would have one and the same Secret, {secret}",
                hint="--only makes one of them; rename its Secret before the other one's",
            )
        made[secret] = name
        files = {file: folder / name / file for file in _PARTICIPANT}
        _print(secret, namespace, "Opaque", files)
        if name == AGGREGATOR and (folder / name / certificates.CERTIFICATE).exists():
            pair = {
                "tls.crt": folder / name / certificates.CERTIFICATE,
                "tls.key": folder / name / certificates.KEY,
            }
            _print(f"{secret}-tls", namespace, "kubernetes.io/tls", pair)


def _label(name: str) -> str:
    return re.sub("[^a-z0-9-]+", "-", name.lower()).strip("-")


def _print(name: str, namespace: str, kind: str, files: dict[str, Path]) -> None:
    content = {file: path.read_bytes() for file, path in files.items() if path.exists()}
    if (size := sum(map(len, content.values()))) > _LARGEST:
        raise ParameterError(
            f"the Secret {name} would have {size} bytes, Kubernetes takes {_LARGEST}",
            hint="a large first model goes onto a volume: mount the aggregator's whole folder from one",
        )
    click.echo("---\napiVersion: v1\nkind: Secret\nmetadata:")
    click.echo(f"  name: {name}\n  namespace: {namespace}\n  labels:\n    app.kubernetes.io/name: choral")
    click.echo(f"type: {kind}\ndata:")
    for file, data in content.items():
        click.echo(f"  {file}: {base64.b64encode(data).decode()}")


COMMANDS = (kubernetes,)
