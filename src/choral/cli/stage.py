"""The processes of a demonstration: started, stopped, killed for real, and never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from choral.errors import ChoralError


class Stage:
    """Child processes by name, each with its log file. A context manager that ends them all."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, *arguments: str | Path) -> None:
        """Run `choral …` as a process of its own."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603  (our own interpreter and arguments)
                [sys.executable, "-m", "choral", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends its children
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def check(self) -> None:
        """Raises `ChoralError` with the end of its log if a process has failed."""
        for name, process in self._running.items():
            if process.poll() not in (None, 0):
                log = self._logs / f"{name}.log"
                lines = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise ChoralError(
                    f"{name} ended with exit code {process.returncode}: " + " | ".join(lines),
                    hint=f"its whole log is {log}",
                )
