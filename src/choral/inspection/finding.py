"""What `choral doctor` says about one thing that it looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, what was found, what to do."""

    what: str
    how: Literal["ok", "warn", "fail"]
    found: str
    do: str | None = None


Findings = Iterator[Finding]
