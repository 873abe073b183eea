"""`run` on a fresh machine installs exactly what the lock names, whatever was published since.

Offline: an empty folder with `run` and the locks, and folders of wheels, one with version 99 of everything.
The other wheels are stand-ins of the locked names and versions, with what the real ones require; the locks
get their hashes. CHORAL_WHEELS names a folder with the real wheels of requirements-dev.lock and some of pip
(`.ci/run` fetches them): then the locks are installed as they stand, once with each pip.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import wheels
from locks import BASE, DEV, ROOT, pins, versions

pytestmark = pytest.mark.e2e
REAL = os.environ.get("CHORAL_WHEELS")
PIPS = sorted(Path(REAL).glob("pip-*.whl")) if REAL else [None]
BACKEND = (Path(__file__).parent / "backend.py").read_text()
COMMANDS = {BASE: "--help", DEV: "bench"}
# what no lock has: pip that resolves would ask for it, whatever its version
MORE = {"numpy": ["newcomer"]}
# an interpreter whose new environments get this pip rather than the one that it brings
PYTHON = """\
#!/bin/sh
[ "${2:-}" = venv ] || exec "@python" "$@"
"@python" -m venv --without-pip "$3" "$4"
cp -R "@pip"/. "$4"/lib/python*/site-packages/
"""
LIST = """
import importlib.metadata, json
print(json.dumps({each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}))
"""


def unpack_pip(wheel: Path | None, folder: Path) -> None:
    """The pip of a wheel, or else the one of the environment that runs this."""
    if wheel is not None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        return
    for file in importlib.metadata.distribution("pip").files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), folder / file)


class Machine:
    """A fresh one: no network, no environment, a folder of wheels."""

    def __init__(self, folder: Path, pip: Path | None, *, real: bool) -> None:
        self.root, self.places = folder / "choral", [folder / "newer"]
        self.root.mkdir()
        (folder / "newer").mkdir()
        (folder / "pip").mkdir()
        unpack_pip(pip, folder / "pip")
        self.python = folder / "python"
        self.python.write_text(PYTHON.replace("@python", sys.executable).replace("@pip", str(folder / "pip")))
        self.python.chmod(0o755)
        for name in (*versions(DEV), "newcomer"):
            wheels.make(folder / "newer", name, "99")
        shutil.copy(ROOT / "run", self.root)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.root)
        (self.root / "bench").mkdir()
        (self.root / "bench/run.py").touch()
        if real:
            self.places.append(Path(REAL or ""))
            shutil.copytree(ROOT / "src", self.root / "src")
            for lock in (BASE, DEV):
                shutil.copy(ROOT / lock, self.root)
        else:
            (folder / "locked").mkdir()
            self.places.append(folder / "locked")
            self.stand_in(folder / "locked")

    def stand_in(self, folder: Path) -> None:
        hashes = {}
        for name, version in versions(DEV).items():
            files = {"hatchling/__init__.py": "", "hatchling/build.py": BACKEND}
            requires = [*(importlib.metadata.distribution(name).requires or ()), *MORE.get(name, ())]
            hashes[name] = wheels.make(
                folder, name, version, requires, files if name == "hatchling" else None
            )
        for lock in (BASE, DEV):
            lines = [f"{pin.requirement} {hashes[pin.name]}" for pin in pins(lock) if pin.here]
            (self.root / lock).write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
        environment = {
            **clean, "PYTHON": str(self.python), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": " ".join(map(str, self.places)), "PIP_NO_CACHE_DIR": "1",
        }  # fmt: skip
        return subprocess.run(
            [self.root / "run", *arguments], env=environment, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip

    def installed(self) -> dict[str, str]:
        ran = subprocess.run(
            [self.root / ".venv/bin/python", "-c", LIST], capture_output=True, text=True, check=True
        )
        found = {
            name.lower().replace("_", "-").replace(".", "-"): v for name, v in json.loads(ran.stdout).items()
        }
        assert {found.pop(name, None) for name in ("pip", "choral")}.isdisjoint({None})
        return found


@pytest.mark.parametrize("lock", [BASE, DEV])
@pytest.mark.parametrize("pip", PIPS, ids=lambda path: path.name.split("-")[1] if path else "this")
def test_newer_releases_change_nothing(tmp_path: Path, pip: Path | None, lock: str) -> None:
    machine = Machine(tmp_path, pip, real=bool(REAL))
    ran = machine.run(COMMANDS[lock])
    assert ran.returncode == 0, ran.stdout[-1500:] + ran.stderr[-1500:]
    assert machine.installed() == versions(lock)


@pytest.mark.skipif(not REAL, reason="CHORAL_WHEELS names no folder with the real wheels")
def test_the_wheels_are_installed_by_an_old_pip_and_by_a_new_one() -> None:
    found = sorted(int(path.name.split("-")[1].split(".")[0]) for path in PIPS if path)
    assert found[0] == 23
    assert found[-1] >= 26


@pytest.mark.parametrize("before", ["--require-hashes", "--no-build-isolation"])
def test_a_run_that_lets_pip_resolve_does_not_get_past_the_test_above(tmp_path: Path, before: str) -> None:
    """As a release once broke: pip 23.2 asked for `coverage[toml]` anew, and had no hash of what it found."""
    machine = Machine(tmp_path, PIPS[0], real=False)
    script = machine.root / "run"
    text = script.read_text()
    assert text.count(f"--no-deps {before}") == 1
    script.write_text(text.replace(f"--no-deps {before}", before))
    assert machine.run(COMMANDS[DEV]).returncode != 0 or machine.installed() != versions(DEV)
