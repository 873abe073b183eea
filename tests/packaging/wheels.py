"""Wheels made by hand, as stand-ins for packages."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def make(
    folder: Path,
    name: str,
    version: str,
    requires: Iterable[str] = (),
    files: Mapping[str, str] | None = None,
) -> str:
    """Write a wheel that installs `files` and claims to require `requires`; the `--hash` of it."""
    stem = f"{name.replace('-', '_')}-{version}"
    requires = list(requires)
    extras = sorted({line.split("extra ==")[1].strip(" '\")") for line in requires if "extra ==" in line})
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    contents = {
        **(files or {}),
        f"{stem}.dist-info/METADATA": "\n".join(metadata) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    contents[record] = "".join(f"{path},,\n" for path in (*contents, record))
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in contents.items():
            archive.writestr(inside, text)
    return f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
