"""`python -m choral`, and the command `choral`."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> None:
    """Entry point. SIGTERM works from here on: what follows imports for a second, and the first process of a
    container has no default way to end.
    """
    signal.signal(signal.SIGTERM, _end)
    from choral.cli import main as run  # noqa: PLC0415

    run()


def _end(number: int, _: object) -> NoReturn:
    os._exit(128 + number)  # nothing is open yet; whoever opens something brings a handler of its own


if __name__ == "__main__":
    main()
