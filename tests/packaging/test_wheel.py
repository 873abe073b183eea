"""The wheel that is built from this tree is the whole package.

It is installed into an environment of its own, beside the packages of requirements.lock. Where CHORAL_WHEELS
names a folder with them (`.ci/run` fetches it), they are installed there, offline; otherwise those of this
environment are used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from locks import BASE, ROOT

pytestmark = pytest.mark.e2e
REAL = os.environ.get("CHORAL_WHEELS")


def call(*command: object, cwd: Path = ROOT) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    ran = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-1500:] + ran.stderr[-1500:]
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (made,) = folder.glob("choral-*.whl")
    return made


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel: Path) -> None:
    here = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src/choral").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == here


def test_installed_by_itself_it_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    if REAL:
        call(*install, "--find-links", REAL, "--require-hashes", "-r", ROOT / BASE)
    else:  # a line of a .pth file is a path; .pth files in that, as of an editable choral, are not read
        there = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(there) / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(*install, wheel)
    where = call(python, "-c", "import choral; print(choral.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    short = ("--json", "--no-kill", "--rounds", "3", "--members", "3", "--sealing", "syft")
    told = call(tmp_path / "venv/bin/choral", "demo", *short, cwd=tmp_path)
    found = json.loads(told.splitlines()[-1])
    assert (found["rounds"], found["sum_exact"]) == (3, True)
