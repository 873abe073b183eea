"""Nothing is skipped in CI but what tests/skips.toml names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from locks import PROJECT, ROOT

LIST = ROOT / "tests/skips.toml"
TESTS = {
    "test_two.py": """
import pytest

def test_runs(): pass
@pytest.mark.skip(reason="no moon")
@pytest.mark.parametrize("n", [1, 2])
def test_skips(n): pass
@pytest.mark.xfail(reason="known")
def test_known(): assert False
""",
    "test_file.py": """
import pytest
pytest.importorskip("no_such_module", reason="no sun")
def test_it(): pass
""",
}
MOON = {"test": "test_two.py::test_skips", "reason": "no moon", "why": "it is day"}
SUN = {"test": "test_file.py", "reason": "no sun", "why": "it is night"}


class Run:
    """A run of the two files above under the real conftest, with a list of its own."""

    def __init__(
        self, folder: Path, *entries: dict[str, str], more: tuple[str, ...] = (), **environment: str
    ) -> None:
        shutil.copy(ROOT / "tests/conftest.py", folder)
        for name, text in TESTS.items():
            (folder / name).write_text(text)
        lines = [
            line for each in entries for line in ("[[skip]]", *(f'{k} = "{v}"' for k, v in each.items()))
        ]
        (folder / "skips.toml").write_text("\n".join(lines) or "skip = []")
        (folder / "pytest.ini").write_text("[pytest]\n")
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("CHORAL_", "PYTEST_"))
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xdist", *more]
        clean |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
        ran = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        self.code, self.lines = ran.returncode, ran.stdout.splitlines()
        self.refused = [line.split(": ")[1] for line in self.lines if line.startswith("SKIPPED AND NOT IN")]
        self.unused = [line.split(": ")[1] for line in self.lines if line.startswith("never used")]


STRICT = {"CHORAL_NO_SKIPS": "1"}


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_skip_that_is_not_on_the_list_fails_the_run_and_is_named(tmp_path: Path, more) -> None:
    run = Run(tmp_path, more=more, **STRICT)
    assert run.code == 1
    assert run.refused == ["test_file.py", "test_two.py::test_skips[1]", "test_two.py::test_skips[2]"]


def test_what_is_on_the_list_is_skipped_and_nothing_is_left_over(tmp_path: Path) -> None:
    run = Run(tmp_path, MOON, SUN, **STRICT)
    assert (run.code, run.refused, run.unused) == (0, [], [])


@pytest.mark.parametrize(
    "other", [{"reason": "no stars"}, {"test": "test_two.py::test_ski"}, {"python": "<3.9"}],
    ids=["another reason", "another test", "another Python"],
)  # fmt: skip
def test_an_entry_is_for_one_test_and_one_reason(tmp_path: Path, other: dict[str, str]) -> None:
    run = Run(tmp_path, {**MOON, **other}, SUN, **STRICT)
    assert run.code == 1
    assert run.refused == ["test_two.py::test_skips[1]", "test_two.py::test_skips[2]"]


def test_an_entry_that_is_not_needed_is_reported(tmp_path: Path) -> None:
    run = Run(tmp_path, MOON, SUN, {**MOON, "test": "test_two.py::test_runs"}, **STRICT)
    assert (run.code, run.unused) == (0, ["test_two.py::test_runs"])


def test_a_run_in_which_all_is_skipped_fails_as_well(tmp_path: Path) -> None:
    run = Run(tmp_path, more=("test_file.py",), **STRICT)
    assert (run.code, run.refused) == (1, ["test_file.py"])


def test_an_everyday_run_skips_as_ever(tmp_path: Path) -> None:
    assert Run(tmp_path).code == 0


def test_the_files_with_skips_are_written_for_a_second_run(tmp_path: Path) -> None:
    run = Run(tmp_path, SUN, CHORAL_SKIPPED=str(tmp_path / "skipped"))
    assert run.code == 0
    assert (tmp_path / "skipped").read_text() == "test_two.py\n"


@pytest.mark.parametrize("entry", tomllib.loads(LIST.read_text())["skip"], ids=lambda entry: entry["test"])
def test_the_list_names_tests_that_are_there_and_says_why(entry: dict[str, str]) -> None:
    assert set(entry) - {"python"} == {"test", "reason", "why"}
    assert len(entry["why"].split()) > 5
    file, *names = entry["test"].split("::")
    text = (ROOT / file).read_text()
    for name in names:
        assert f"def {name}(" in text or f"class {name}:" in text, name


def test_ci_runs_on_every_python_that_is_supported() -> None:
    classifiers = PROJECT["project"]["classifiers"]
    supported = [each.split(" :: ")[-1] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)]
    (default,) = re.findall(r'"\$\{@:-(.*?)\}"', (ROOT / ".ci/run").read_text())
    assert supported
    assert [part for part in default.split() if part[0] == "3"] == supported
