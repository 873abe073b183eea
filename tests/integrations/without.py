"""A federation in an installation that has no `choral.integrations`:  without.py FOLDER

Prints, as JSON, which modules there are (all were imported), which version a training over HTTP came to, and
how what needs an integration was refused.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import sys
from pathlib import Path

from click.testing import CliRunner

import choral
from choral.cli import cli
from choral.errors import ParameterError
from house import house

EXTRAS = ("torch", "sklearn")


def every_module() -> list[str]:
    names = [found.name for found in pkgutil.walk_packages(choral.__path__, "choral.")]
    for name in names:
        try:
            if name != "choral.__main__":
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
    return names


async def trained(root: Path) -> int:
    async with house(root, 3, rounds=1) as home:
        records = await asyncio.gather(*(home.member(i) for i in (1, 2, 3)))
    return records[0].version


def refused(*arguments: str | Path) -> tuple[str, str | None]:
    error = CliRunner().invoke(cli, [*map(str, arguments)]).exception
    assert isinstance(error, ParameterError), error
    return error.reason, error.hint


def main(root: Path) -> None:
    version = asyncio.run(trained(root))
    task = ("--members", "3", "--features", "4", "--weight-cap", "10")
    told = [
        refused("init", root / "sealed", *task, "--sealing", "syft"),
        refused("serve", root / "fed/aggregator", "--via", "pysyft"),
        refused("join", root / "fed/m1", "--data", "x.npy", "--via", "pysyft"),
    ]
    print(json.dumps({"modules": every_module(), "version": version, "told": told}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
