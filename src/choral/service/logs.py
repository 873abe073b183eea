"""Log lines: bounded, and fit for a terminal, whatever strangers and members put into them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from itertools import islice
from typing import Any, TextIO

from choral.binding.text import cut, printable

ITEMS = 32  # of one list
_TRACEBACK = 16_000


class Lossy:
    """A text stream that loses what cannot be written: a log on a full disk, into a closed pipe or by a
    terminal that went away costs its lines, and never a round.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def bounded(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: what members say goes into the log, but no more of it than can be read."""
    for name, value in event.items():
        if name == "exception" and isinstance(value, str):  # its end says what went wrong
            event[name] = printable(value[-_TRACEBACK:], "\n")
        else:
            event[name] = _fit(value)
    return event


def _fit(value: Any, *, inner: bool = False) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 64 else cut(hex(value))
    if isinstance(value, str):
        return printable(cut(value))
    if isinstance(value, Mapping) and not inner:
        found = {_fit(str(key)): _fit(item, inner=True) for key, item in islice(value.items(), ITEMS)}
        return found if len(value) <= ITEMS else {**found, "…": f"and {len(value) - ITEMS} more"}
    if isinstance(value, list | tuple | set | frozenset) and not inner:
        more = [f"… and {len(value) - ITEMS} more"] if len(value) > ITEMS else []
        return [_fit(item, inner=True) for item in islice(value, ITEMS)] + more
    return printable(cut(repr(value)))
