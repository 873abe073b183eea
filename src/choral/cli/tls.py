"""`choral tls`: the aggregator's certificate; and what `choral init` is told about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from choral.binding import certificates
from choral.cli.terminal import say
from choral.cli.values import COMMA_LIST, FOLDER
from choral.errors import ParameterError
from choral.federation.address import address
from choral.federation.enrolment import AGGREGATOR
from choral.founding import authority
from choral.founding.authority import Tls
from choral.founding.folders import AUTHORITY


def tls_of(given: dict[str, Any]) -> Tls | None:
    """What the options of `init` ask for. They are taken out of `given`, and its URL becomes https.

    Raises:
        ParameterError: options that do not go together, or files that cannot be used.
    """
    wanted, more = given.pop("tls"), given.pop("tls_name")
    own = {name: given.pop(f"tls_{name}") for name in ("cert", "key", "ca")}
    if not (wanted or more or any(own.values())):
        if given["url"].startswith("https:"):
            say(
                "  [yellow]note:[/] the address is https and no certificate is made here (--tls makes one):"
                " members will trust the authorities of their machines"
            )
        return None
    source = click.get_current_context().get_parameter_source("url")
    if source is click.core.ParameterSource.DEFAULT:
        given["url"] = given["url"].replace("http:", "https:", 1)
    url = address(given["url"])
    if url.scheme != "https":
        raise ParameterError(
            f"found --url {given['url']} with TLS, expected an https address",
            hint="--url https://aggregator.example:8750",
        )
    if any(own.values()):
        if more or not (own["cert"] and own["key"]):
            raise ParameterError(
                "a certificate of your own needs --tls-cert and --tls-key, and takes no --tls-name",
                hint="--tls-ca as well, unless every machine trusts its authority",
            )
        return authority.own_tls(own["cert"], own["key"], own["ca"], url.host)
    return authority.private_tls(given["name"], [url.host, *(more or ())])


@click.group()
def tls() -> None:
    """The aggregator's certificate."""


@tls.command(epilog="Example:  choral tls renew fed/")
@click.argument("folder", type=FOLDER)
@click.option("--ca", type=FOLDER, help="Where the authority's folder is.  [default: FOLDER/ca]")
@click.option("--into", type=FOLDER, help="The aggregator's folder.  [default: FOLDER/aggregator]")
@click.option(
    "--tls-name",
    type=COMMA_LIST,
    help="Other names and addresses, separated by commas.  [default: as before]",
)
@click.option(
    "--days",
    default=authority.SERVER_DAYS,
    show_default=True,
    type=click.IntRange(1, 3650),
    help="Validity.",
)
def renew(
    folder: Path, ca: Path | None, into: Path | None, tls_name: tuple[str, ...] | None, days: int
) -> None:
    """A new server certificate from the authority that `choral init --tls` made in FOLDER.

    A running aggregator takes it up within seconds; members notice nothing.
    """
    issuer = authority.load_authority(ca or folder / AUTHORITY)
    target = into or folder / AGGREGATOR
    names = list(tls_name or ())
    if not names:
        try:
            names = certificates.names_of((target / certificates.CERTIFICATE).read_bytes())
        except OSError as error:
            raise ParameterError(
                f"{error.filename}: cannot be read ({error.strerror})",
                hint="--into names the aggregator's folder; or give the names anew with --tls-name",
            ) from error
    fresh = authority.new_server(issuer, names, days=days)
    fresh.save(target, certificates.CERTIFICATE, certificates.KEY)
    there = ", ".join(certificates.names_of(fresh.certificate))
    until = certificates.expires(fresh.certificate)
    say("{}: for {}, until {:%Y-%m-%d}", target / certificates.CERTIFICATE, there, until)


COMMANDS = (tls,)
