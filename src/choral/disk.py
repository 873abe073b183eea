"""Files out whole or not at all: after a crash or a full disk there is the old one or the new."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is complete and on disk.

    What is there and is no regular file, such as a pipe or a device, is written into instead.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    fresh = path.with_name(f".{path.name[:50]}.{secrets.token_hex(6)}.new")
    # Windows would change line ends
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(fresh, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def write_whole(path: Path, content: bytes | Iterable[bytes | memoryview], *, mode: int = 0o644) -> None:
    """`replacing` with this content. Raises as that."""
    with replacing(path, mode=mode) as file:
        file.writelines((content,) if isinstance(content, bytes) else content)
