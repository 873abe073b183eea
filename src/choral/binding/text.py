"""What others wrote, as it may be shown: of bounded length, and nothing in it that a terminal would obey."""

from __future__ import annotations

TEXT = 500  # characters of one text


def cut(text: str, most: int = TEXT) -> str:
    """At most so many characters, the last of them a sign that there were more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def printable(text: str, keep: str = "") -> str:
    """`text` with a question mark for whatever moves a cursor or cannot be shown.

    >>> printable("red: \\x1b[31m")
    'red: ?[31m'
    """
    return "".join(letter if letter.isprintable() or letter in keep else "?" for letter in text)
