"""Integrations are optional: with their folder gone, everything works that does not name one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import choral
from choral.errors import ParameterError
from choral.federation.integration import integration, sealer

TESTS = Path(__file__).parents[1]


@pytest.mark.e2e
def test_a_federation_needs_no_integration(tmp_path):
    """A copy of the package without the folder: every module is imported, a training runs to its end."""
    source, copy = Path(choral.__file__).parent, tmp_path / "installed/choral"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("integrations", "__pycache__"))
    path = os.pathsep.join(map(str, (copy.parent, TESTS / "service")))
    done = subprocess.run(
        [sys.executable, str(TESTS / "integrations/without.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])  # before it the log
    assert "choral.service.serve" in found["modules"]
    assert not [name for name in found["modules"] if name.startswith("choral.integrations")]
    assert found["version"] == 1
    for reason, hint in found["told"]:
        assert "found no choral.integrations.syft in this installation" in reason
        assert "aes-gcm" in hint
    assert not (tmp_path / "sealed").exists()


@pytest.mark.parametrize("gone", ["choral.integrations", "choral.integrations.syft"])
def test_one_that_was_taken_out_is_refused_by_its_name(monkeypatch, gone):
    for name in [name for name in sys.modules if name.startswith(f"{gone}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(ParameterError, match=r"found no choral\.integrations\.syft in this installation"):
        sealer("syft")


def test_a_package_that_an_integration_misses_is_not_taken_for_the_integration(monkeypatch):
    """The error of a broken installation comes out as it is: it names what is missing."""
    name = "choral.integrations.syft.sealing"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        integration("syft", "sealing")


def test_what_the_core_has_is_not_looked_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "choral.integrations", None)
    assert sealer("aes-gcm") is None
