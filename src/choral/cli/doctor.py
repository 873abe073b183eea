"""`choral doctor`: is everything in order, and if not, what is there to do?"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from choral.cli.terminal import console
from choral.cli.values import FOLDER
from choral.inspection.finding import Finding
from choral.inspection.folder import examine

_SIGNS = {"ok": ("✓ ok  ", "green"), "warn": ("! warn", "yellow"), "fail": ("✗ fail", "bold red")}


@click.command(epilog="Example:  choral doctor fed/member-1 --data shards/client_1_data.npy")
@click.argument("folder", type=FOLDER)
@click.argument("url", required=False)
@click.option("--data", type=click.Path(path_type=Path), help="This member's shard.")
@click.option("--state", type=FOLDER, help="Where journal or store live.  [default: FOLDER/state]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def doctor(folder: Path, url: str | None, data: Path | None, state: Path | None, as_json: bool) -> None:
    """Check a participant's folder, clock, key, certificate, aggregator, versions, shard and model in one go.

    Changes nothing and sends no data. URL overrides the address in federation.toml. Exit code 1 if anything
    fails; warnings alone are 0.
    """
    count: Counter[str] = Counter()
    for finding in examine(folder, url, data, state):
        count[finding.how] += 1
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            _print(finding)
    if not as_json:
        verdict = "everything is in order" if not count["warn"] + count["fail"] else "see above"
        console.print(f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed: {verdict}")
    if count["fail"]:
        sys.exit(1)


def _print(finding: Finding) -> None:
    sign, style = _SIGNS[finding.how]
    console.print(Text.assemble((sign, style), f"  {finding.what:<18}", finding.found), soft_wrap=True)
    if finding.do:
        console.print(Text(f"{'':26}-> {finding.do}", "dim" if finding.how == "ok" else ""), soft_wrap=True)


COMMANDS = (doctor,)
