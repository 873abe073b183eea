"""The floors of a federation as options: said once, the same for `init` and `simulate`."""

from __future__ import annotations

import click

MINIMUM = click.option(
    "--minimum", type=click.IntRange(2), help="Smallest cohort that members accept.  [default: 3; 2 of 2]"
)
TOLERATED = click.option(
    "--tolerated",
    default="quarter",
    show_default=True,
    help="How many members of a cohort may collude with the aggregator.",
)
