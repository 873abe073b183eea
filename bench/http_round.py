"""A whole round over HTTP, ten member processes and an aggregator: secure, and in the clear.

The model is the built-in softmax, with as many features as make d parameters; 50 examples a member, of
which 40 train it once, so that training hardly counts.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from choral.data import save_shard
from choral.federation.enrolment import Participant
from choral.service.state.sqlite import Store
from figures import Figure

HERE = Path(__file__).parent
MEMBERS = 10
EXAMPLES = 50


def rounds_of(kind: str, d: int, rounds: int) -> tuple[list[float], float | None]:
    """Seconds from one model version to the next, as members see it, and bytes up a parameter.

    In a round every member fetches the model, trains, encodes, and goes through the round; the first
    one also waits for processes to start and is left out.
    """
    features = d // 10 - 1  # ten classes, and a bias for each
    folder = Path(tempfile.mkdtemp(prefix="choral-bench-"))
    entry = [sys.executable, "-m", "choral"] if kind == "secure" else [sys.executable, str(HERE / "plain.py")]
    processes: list[subprocess.Popen[bytes]] = []

    def choral(*arguments: object, log: str) -> subprocess.Popen[bytes]:
        with (folder / log).open("wb") as out:
            return subprocess.Popen([*entry, *map(str, arguments)], stdout=out, stderr=subprocess.STDOUT)

    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (EXAMPLES, features), dtype=np.uint8)
        save_shard(folder / "data.npy", pixels, np.arange(EXAMPLES) % 10)
        made = choral(
            "init", folder / "fed", "--members", MEMBERS, "--features", features, "--weight-cap", EXAMPLES,
            "--rounds", rounds + 1, "--option", "rate=0.001",
            "--url", f"http://127.0.0.1:{port}", log="init.log",
        )  # fmt: skip
        if made.wait():
            raise RuntimeError((folder / "init.log").read_text())
        processes.append(
            choral("serve", folder / "fed/aggregator", "--startup-seconds", 120, log="serve.log")
        )
        processes += [
            choral(
                "join", folder / f"fed/member-{i}", "--data", folder / "data.npy", "--json", log=f"{i}.log",
            )
            for i in range(1, MEMBERS + 1)
        ]  # fmt: skip
        for process in processes[1:]:
            if process.wait(120):
                raise RuntimeError((folder / f"{processes.index(process)}.log").read_text()[-2000:])
        seen = [_versions(folder / f"{i}.log") for i in range(1, MEMBERS + 1)]
        ends = [max(times[version] for times in seen) for version in range(1, rounds + 2)]
        processes[0].send_signal(signal.SIGTERM)
        processes[0].wait(30)
        store = Store(folder / "fed/aggregator/state", read_only=True)
        rows = [row for row in store.rounds() if row.state == "done"]
        assert Participant.load(folder / "fed/aggregator").task.dimension == d
        up = [sum(row.facts.received.values()) / len(row.facts.roster) / d for row in rows]
        store.close()
        return [after - before for before, after in itertools.pairwise(ends)], max(up)
    finally:
        for process in processes:
            process.kill()
        time.sleep(0.2)
        shutil.rmtree(folder, ignore_errors=True)


def _versions(log: Path) -> dict[int, float]:
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {event["version"]: event["time"] for event in events if event["event"] == "version"}


def secure_over_plain(d: int, rounds: int, times: int) -> tuple[Figure, Figure, Figure, float]:
    """Ratio of round times, both times in seconds, and bytes up a parameter. Taken in turns."""
    secure: list[float] = []
    plain: list[float] = []
    up = 0.0
    for _ in range(times):
        seconds, bytes_up = rounds_of("secure", d, rounds)
        secure += seconds
        up = max(up, bytes_up or 0.0)
        plain += rounds_of("plain", d, rounds)[0]
    ratios = Figure(tuple(s / p for s, p in zip(sorted(secure), sorted(plain), strict=True)))
    return ratios, Figure(tuple(secure)), Figure(tuple(plain)), up


if __name__ == "__main__":
    print(*map(str, secure_over_plain(int(sys.argv[1]), int(sys.argv[2]), 1)), sep="\n")
