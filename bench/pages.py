"""What open dashboards cost the aggregator: CPU seconds a second, with pages and without.

    python bench/pages.py [--pages 50] [--seconds 20] [--json]

A real aggregator and five real members train on; each page is a connection to /v1/events that reads all
that comes. The figure is a ratio to one core: 0.05 is five percent of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

MEMBERS = 5


def choral(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "choral", *map(str, arguments)]


def provision(root: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    subprocess.run(
        choral("data", "split", root / "shards", "--members", MEMBERS), check=True, stdout=subprocess.DEVNULL
    )
    subprocess.run(
        choral("init", root / "fed", "--members", MEMBERS, "--shards", root / "shards", "--rounds", 100000,
               "--url", url),
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return url


async def read(port: int, got: list[int]) -> None:
    """One page: as a browser, but nothing is drawn."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    while data := await reader.read(1 << 16):
        got[0] += len(data)
        got[1] += data.count(b"event: ")


async def measure(process: psutil.Process, port: int, pages: int, seconds: float) -> tuple[float, list[int]]:
    """CPU seconds a second of `process`; bytes and events that all pages together got."""
    got = [0, 0]
    readers = [asyncio.create_task(read(port, got)) for _ in range(pages)]
    await asyncio.sleep(2)  # the first picture of each is no steady state
    got[:] = [0, 0]
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(seconds)
    used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return used, got


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds from one version to the next")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        url = provision(root)
        try:
            served = choral("serve", root / "fed/aggregator", "--pace-seconds", given.pace)
            processes.append(subprocess.Popen(served, **quiet))
            for i in range(1, MEMBERS + 1):
                shard = root / f"shards/client_{i}_data.npy"
                joined = choral("join", root / f"fed/member-{i}", "--data", shard)
                processes.append(subprocess.Popen(joined, **quiet))
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    if httpx.get(f"{url}/v1/status").json()["version"] >= 3:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)
            port = int(url.rpartition(":")[2])
            aggregator = psutil.Process(processes[0].pid)
            without, _ = asyncio.run(measure(aggregator, port, 0, given.seconds))
            with_pages, got = asyncio.run(measure(aggregator, port, given.pages, given.seconds))
        finally:
            for process in processes:
                process.kill()
                process.wait()
    ratio = with_pages - without
    print(
        f"{given.pages} pages cost {100 * ratio:.1f}% of one core ({100 * without:.1f}% without,"
        f" {100 * with_pages:.1f}% with them); each got {got[1] / given.pages / given.seconds:.1f} events and"
        f" {got[0] / given.pages / given.seconds / 1000:.1f} kB a second"
    )
    if given.json:
        print(
            json.dumps(
                {"pages": given.pages, "pages_over_core": ratio, "without": without, "with": with_pages}
            )
        )


if __name__ == "__main__":
    main()
