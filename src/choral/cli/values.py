"""What the value of an option may be: types for click, each with a sentence for what is not one."""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Any

import click

from choral.cli.lists import listed
from choral.errors import ParameterError
from choral.federation.address import address, is_host_name

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class Number(click.FloatRange):
    """A finite number in a range; click's own lets NaN through every bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"found {value!s:.40}, expected a finite number", param, ctx)
        return number


class Url(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """The address of an aggregator."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return address(value).url
        except ParameterError as error:
            self.fail(f"{error.reason}; {error.hint}", param, ctx)


class Host(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A name or an address of this machine to listen on."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            if not is_host_name(value):
                self.fail(f"found {value!r:.80}, expected a host name or an IP address", param, ctx)
        return str(value)


class CommaList(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Items separated by commas: blanks around them do not count, and none is empty or there twice."""

    name = "a,b,c"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            return listed(value, param.opts[0] if param else "the list")
        except ParameterError as error:
            self.fail(f"{error.reason}; {error.hint}", param, ctx)


COMMA_LIST = CommaList()
URL, HOST = Url(), Host()
