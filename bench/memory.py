"""What one aggregator and three members take: real processes, a softmax of d parameters, the default rule.

python bench/memory.py [D …]          MiB at the most (VmHWM), in all and above a model of ten parameters
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from choral.data import save_shard

EXAMPLES = 20
CHORAL = [sys.executable, "-m", "choral"]


def most(process: subprocess.Popen[bytes]) -> float:
    """MiB; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def run(d: int, root: Path) -> tuple[float, float]:
    """The most that the aggregator took, and a member."""
    rng, features = np.random.default_rng(0), max(1, d // 10 - 1)
    shards = [
        save_shard(
            root / f"client_{i}_data.npy",
            rng.integers(0, 255, (EXAMPLES, features)).astype(np.uint8),
            rng.integers(0, 10, EXAMPLES).astype(np.uint8),
        )
        for i in (1, 2, 3)
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    init = ["init", "fed", "--members", "3", "--shards", ".", "--rounds", "4", "--option", "epochs=1"]
    url = f"http://127.0.0.1:{port}"
    subprocess.run([*CHORAL, *init, "--url", url], cwd=root, check=True, capture_output=True)
    quiet = {"cwd": root, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    aggregator = subprocess.Popen([*CHORAL, "serve", "fed/aggregator"], **quiet)
    members = [
        subprocess.Popen([*CHORAL, "join", f"fed/member-{i}", "--data", shard], **quiet)
        for i, shard in enumerate(shards, 1)
    ]
    found = [0.0, 0.0]
    try:
        while any(member.poll() is None for member in members):
            found = [max(found[0], most(aggregator)), max(found[1], *map(most, members))]
            time.sleep(0.05)
    finally:
        for process in (aggregator, *members):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()
    assert all(member.returncode == 0 for member in members)
    return found[0], found[1]


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]] or [7_850, 1_000_000, 10_000_000]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "least").mkdir()
        least = run(10, Path(folder) / "least")
        print(f"with ten parameters: aggregator {least[0]:.0f} MiB, member {least[1]:.0f} MiB")
        heads = ("d", "a vector", "aggregator", "above that, vectors", "member", "above that, vectors")
        print(f"| {' | '.join(heads)} |")
        print("|---|---|---|---|---|---|")
        for d in sizes:
            (Path(folder) / str(d)).mkdir()
            found = run(d, Path(folder) / str(d))
            vector = 4 * d / 2**20
            cells = [
                f"{size:.0f} | {(size - base) / vector:.1f}" for size, base in zip(found, least, strict=True)
            ]
            print(f"| {d:,} | {vector:.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
