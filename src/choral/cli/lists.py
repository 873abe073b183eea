"""Lists as people type them: `a, b,c`, also `"one, two",three`."""

from __future__ import annotations

import csv

from choral.errors import ParameterError


def listed(text: str, option: str) -> tuple[str, ...]:
    """The items of a list with commas, without the blanks around them; none of an empty text.

    Args:
        option: whose value this is, for the error.

    Raises:
        ParameterError: an empty item, or one that is there twice.

    >>> listed('agg, 10.0.0.8,"a, b"', "--tls-name")
    ('agg', '10.0.0.8', 'a, b')
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ParameterError(
            f"{option}: found {text!r}, which is no list ({error})", hint="as in a,b,c"
        ) from error
    items = [item.strip() for item in rows[0]] if rows else []
    if "" in items:
        raise ParameterError(f"{option}: found an empty name in {text!r}", hint="as in a,b,c")
    if twice := sorted({item for item in items if items.count(item) > 1}):
        raise ParameterError(
            f"{option}: found {', '.join(map(repr, twice))} more than once in {text!r}", hint="name each once"
        )
    return tuple(items)
