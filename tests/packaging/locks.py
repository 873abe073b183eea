"""Lock files, read as pip reads them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BASE, DEV = "requirements.lock", "requirements-dev.lock"
BESIDE = sorted(f"locks/{path.name}" for path in (ROOT / "locks").glob("*.lock"))
UNHASHED = "locks/torch-linux.lock"  # it says why
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Pin:
    """One line of a lock: `name==version ; marker --hash=…`."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (only,) = self.requirement.specifier
        assert only.operator == "==", f"{self.requirement} is not pinned"
        return only.version

    @property
    def here(self) -> bool:
        """Is it for this Python on this machine?"""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def pins(lock: str) -> list[Pin]:
    """Every pin of a lock, of all Pythons and machines."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for words in lines:
        hashes = tuple(word.removeprefix("--hash=") for word in words if word.startswith("--hash="))
        rest = " ".join(word for word in words if not word.startswith("--hash="))
        found.append(Pin(Requirement(rest), hashes))
    return found


def versions(*locks: str) -> dict[str, str]:
    """Name -> version of what these locks install here."""
    return {pin.name: pin.version for lock in locks for pin in pins(lock) if pin.here}


def asked(lock: str) -> Iterable[Requirement]:
    """What `lock` was made for: the direct requirements."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    name = Path(lock).stem
    if lock in (BASE, DEV):
        lines = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
        lines += [
            line for line in (ROOT / "requirements.in").read_text().splitlines() if line and line[0] != "#"
        ]
        if lock == DEV:
            lines += groups["dev"]
    else:
        lines = {**project["optional-dependencies"], **groups}[name.removesuffix("-linux")]
    return map(Requirement, lines)
