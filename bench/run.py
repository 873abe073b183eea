"""`./run bench`: Choral's own figures, each as a ratio to a limit or a peer measured in the same run.

    ./run bench                everything: about six minutes
    ./run bench --quick        without d = 10M and with fewer repetitions: about one minute
    ./run bench --json         one JSON object as the last line

Every figure is minimum / median / maximum. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from figures import SIZES, Figure, table
from http_round import MEMBERS, secure_over_plain
from masking import encode_decode_ns, mask_over_limit
from training import train_over_loop

HERE = Path(__file__).parent
COHORT, DROPS = 100, 10


def unmasking(d: int, times: int) -> tuple[Figure, Figure]:
    """CPU seconds and MiB above the start, of the aggregator with 100 members and 10 drops."""
    cpu, peak = [], []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, str(HERE / "unmasking.py"), str(d), str(COHORT), str(DROPS)],
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout)
        cpu.append(found["cpu_s"])
        peak.append(found["peak_mib"])
    return Figure(tuple(cpu)), Figure(tuple(peak))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="without d = 10M, fewer repetitions")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    sizes = SIZES[:2] if given.quick else SIZES
    times = 3 if given.quick else 5
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    medians: dict[str, dict[str, float]] = {
        key: {}
        for key in (
            "mask_over_limit", "encode_decode_ns", "unmask_cpu_s", "unmask_peak_mib", "secure_over_plain",
            "bytes_up_per_parameter",
        )
    }  # fmt: skip
    rows = []
    for d in sizes:
        repeat = max(3, min(200, 20_000_000 // d))
        _progress(f"masking and encoding, d = {d:,}")
        masked, per_stream = mask_over_limit(d, repeat)
        encoded = encode_decode_ns(d, repeat)
        medians["mask_over_limit"][str(d)] = masked.median
        medians["encode_decode_ns"][str(d)] = encoded.median
        rows.append([f"{d:,}", masked, f"{per_stream:.2f}", encoded])
    table(
        f"A member: masks of {MEMBERS} streams over the limit (AES-128-CTR and one add), and the encoding",
        ["d", "mask / limit", "ns a parameter and stream", "encode + decode, ns a parameter"],
        rows,
    )
    _progress("local training")
    trained = train_over_loop(times * 3)
    medians["train_over_loop"] = {name: figure.median for name, figure in trained.items()}
    table(
        "A member: local training over the plain numpy loop, one epoch of 6,000 images of 28 x 28",
        ["model, examples", "ratio"],
        list(trained.items()),
    )
    rows = []
    for d in sizes:
        _progress(f"unmasking, d = {d:,}")
        cpu, peak = unmasking(d, 3)
        medians["unmask_cpu_s"][str(d)] = cpu.median
        medians["unmask_peak_mib"][str(d)] = peak.median
        rows.append([f"{d:,}", cpu, peak, f"{4 * d / 2**20:.1f}"])
    table(
        f"The aggregator: the sum of {COHORT} members of whom {DROPS} dropped",
        ["d", "CPU, s", "memory above the start, MiB", "one vector, MiB"],
        rows,
    )
    rows = []
    for d in sizes:
        _progress(f"whole rounds over HTTP, d = {d:,}")
        # enough rounds in each turn that the start of the processes does not matter
        ratios, secure, plain, up = secure_over_plain(
            d, 6 if d <= 1_000_000 else 3, times if d <= 1_000_000 else 2
        )
        medians["secure_over_plain"][str(d)] = secure.median / plain.median
        medians["bytes_up_per_parameter"][str(d)] = up
        rows.append([f"{d:,}", f"{secure.median / plain.median:.2f}", ratios, secure, plain, f"{up:.3f}"])
    table(
        f"A whole round over HTTP, {MEMBERS} member processes and an aggregator on this machine",
        ["d", "secure / plain", "of sorted rounds", "secure, s", "plain sum, s", "bytes up a parameter"],
        rows,
    )
    if given.json:
        print(json.dumps(medians))


def _progress(what: str) -> None:
    print(f"… {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
