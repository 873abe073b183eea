"""What a member tells whoever runs it: events, fit for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from choral.binding import text as binding

Report = Callable[..., None]
"""Told what happens, as `report(event, **details)`."""

_MOST = 256  # entries of one list: a cohort has no more members


def printable(text: object) -> str:
    """What somebody else wrote, without what moves a cursor, and not for ever."""
    return binding.printable(str(text)[: binding.TEXT])


def harmless(report: Report) -> Report:
    """`report`, told nothing that was not `printable`: names, reasons and states come from the aggregator."""

    def told(event: str, **details: Any) -> None:
        report(event, **{name: _clean(value) for name, value in details.items()})

    return told


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value[:_MOST]]
    return value
