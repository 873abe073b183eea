"""The benchmark runs: nothing else would notice before somebody wants a figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("file", sorted(BENCH.glob("*.py")), ids=lambda path: path.stem)
def test_every_part_can_be_imported(file) -> None:
    look = f"import sys; sys.path.insert(0, {str(BENCH)!r}); import {file.stem}"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


@pytest.mark.e2e
def test_whole_rounds_are_timed_beside_a_plain_sum() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "http_round.py", "650", "2"], capture_output=True, text=True, check=True
    )
    ratios, secure, plain, up = done.stdout.splitlines()
    for figure in (ratios, secure, plain):
        least, median, most = (float(part) for part in figure.split(" / "))
        assert 0 < least <= median <= most
    assert float(up) > 4  # bytes a parameter
