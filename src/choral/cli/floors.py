"""The floors of a federation as options: said once, the same for `init` and `simulate`."""

from __future__ import annotations

from typing import Any, Literal

import click


class Tolerated(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """How many members may collude: a number, or a quarter of the cohort."""

    name = "NUMBER|quarter"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["quarter"]:
        if value == "quarter":
            return "quarter"
        if isinstance(value, int) or (value.isascii() and value.isdecimal() and len(value) < 6):
            return int(value)
        self.fail(f"found {value!r:.40}, expected a number of members, or quarter", param, ctx)


MINIMUM = click.option(
    "--minimum", type=click.IntRange(2), help="Smallest cohort that members accept.  [default: 3; 2 of 2]"
)
TOLERATED = click.option(
    "--tolerated",
    default="quarter",
    show_default=True,
    type=Tolerated(),
    help="How many members of a cohort may collude with the aggregator.",
)
