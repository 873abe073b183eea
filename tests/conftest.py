"""In CI nothing is skipped but what `skips.toml` names.

CHORAL_NO_SKIPS=1: a test, or a file, that is skipped for a reason that is not on the list fails the run.
CHORAL_SKIPPED=FILE: the run goes on as ever; the files with such skips are written to FILE, one a line, and
`.ci/run` runs them again where everything is installed.
"""

from __future__ import annotations

import os
import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from packaging.specifiers import SpecifierSet

# how long an example takes says something of the machine, not of the property
hypothesis.settings.register_profile("choral", deadline=None)
hypothesis.settings.load_profile("choral")

LIST = Path(__file__).with_name("skips.toml")


@dataclass(frozen=True)
class Allowed:
    """`test` is a file or a test in it, `reason` what pytest prints, `why` what CI's machines lack.

    `python` limits the entry to some versions.
    """

    test: str
    reason: str
    why: str
    python: str = ""

    @property
    def here(self) -> bool:
        return platform.python_version() in SpecifierSet(self.python)

    def covers(self, test: str, reason: str) -> bool:
        inside = test == self.test or test.startswith((f"{self.test}::", f"{self.test}["))
        return self.here and inside and reason == self.reason


def allowed(path: Path) -> list[Allowed]:
    return [Allowed(**entry) for entry in tomllib.loads(path.read_text())["skip"]]


class Watch:
    """Sees every report of a run, with xdist those of all workers."""

    def __init__(self, entries: list[Allowed], *, strict: bool, file: str | None) -> None:
        self.entries, self.strict, self.file = entries, strict, file
        self.files: set[str] = set()
        self.used: set[Allowed] = set()
        self.refused: dict[str, str] = {}  # what was skipped and is not on the list -> reason

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        self.files.add(report.nodeid.partition("::")[0])
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        told = report.longrepr
        reason = (str(told[2]) if isinstance(told, tuple | list) else str(told)).removeprefix("Skipped: ")
        by = {entry for entry in self.entries if entry.covers(report.nodeid, reason)}
        self.used |= by
        if not by:
            self.refused[report.nodeid] = reason

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.file:
            names = sorted({test.partition("::")[0] for test in self.refused})
            Path(self.file).write_text("".join(f"{name}\n" for name in names))
        if (
            self.strict
            and self.refused
            and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.strict:
            return
        for test, reason in sorted(self.refused.items()):
            terminalreporter.write_line(f"SKIPPED AND NOT IN {LIST.name}: {test}: {reason}", red=True)
        for entry in self.entries:
            if entry.here and entry not in self.used and entry.test.partition("::")[0] in self.files:
                terminalreporter.write_line(
                    f"never used in {LIST.name}: {entry.test}: {entry.reason}", yellow=True
                )


def pytest_configure(config: pytest.Config) -> None:
    strict, file = os.environ.get("CHORAL_NO_SKIPS") == "1", os.environ.get("CHORAL_SKIPPED")
    if (strict or file) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Watch(allowed(LIST), strict=strict, file=file))
