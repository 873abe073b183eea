"""Members that wait in a phase: Quart on one event loop beside Flask on threads.

    python bench/waiting.py                 200 waiting requests, 7 times each, about a minute
    python bench/waiting.py --members 50 --json

A phase is a barrier: everybody's request waits for one moment. Each server is a process of its own with the
same routes. Quart runs on uvicorn as the aggregator does; Flask on Werkzeug's threaded server, and on
gunicorn's threads too where gunicorn is installed. Measured from outside: memory and threads while all wait,
above the idle server; the time from the release to the last answer; and how many handlers still wait one
second after all their clients have hung up. Every figure is minimum / median / maximum; servers take turns.
What follows from it: docs/decisions/0013-quart.md.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import socket
import subprocess
import sys
import threading
import time

import psutil
import uvicorn
from flask import Flask
from quart import Quart
from werkzeug.serving import make_server

from figures import Figure, table


def quart(port: int) -> None:
    app = Quart(__name__)
    released = asyncio.Event()

    waiting = 0

    @app.get("/wait")
    async def wait() -> str:
        nonlocal waiting
        waiting += 1
        try:
            await released.wait()
        finally:
            waiting -= 1
        return "on"

    @app.get("/waiting")
    async def count() -> str:
        return f"{waiting} on"

    @app.get("/release")
    async def release() -> str:
        nonlocal released
        released.set()
        released = asyncio.Event()
        return "released"

    uvicorn.run(app, port=port, log_level="error", access_log=False, lifespan="off")


def flask_app():
    app = Flask(__name__)
    barrier = threading.Condition()
    phase = waiting = 0

    @app.get("/wait")
    def wait() -> str:
        nonlocal waiting
        with barrier:
            mine = phase
            waiting += 1
            try:
                barrier.wait_for(lambda: phase > mine)
            finally:
                waiting -= 1
        return "on"

    @app.get("/waiting")
    def count() -> str:
        return f"{waiting} on"

    @app.get("/release")
    def release() -> str:
        nonlocal phase
        with barrier:
            phase += 1
            barrier.notify_all()
        return "released"

    return app


def flask(port: int) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, flask_app(), threaded=True)
    server.socket.listen(512)
    server.serve_forever()


def gunicorn(port: int, members: int) -> None:
    from gunicorn.app.base import BaseApplication

    class App(BaseApplication):
        def load_config(self) -> None:
            settings = {
                "bind": f"127.0.0.1:{port}", "workers": 1, "worker_class": "gthread",
                "threads": members + 8, "backlog": 512, "timeout": 300,
            }  # fmt: skip
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self):
            return flask_app()

    App().run()


class Server:
    """A server in a process of its own."""

    def __init__(self, kind: str, members: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        arguments = [sys.executable, __file__, "--serve", kind, str(self.port), "--members", str(members)]
        self._process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                asyncio.run(ask(self.port, "/release"))
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"{kind} did not come up")

    def _all(self) -> list[psutil.Process]:
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> float:
        """MiB of this server; pages that a forked worker shares with its parent count once."""
        found = [process.memory_full_info() for process in self._all()]
        return sum(getattr(info, "pss", info.uss) for info in found) / 2**20

    def threads(self) -> int:
        return sum(process.num_threads() for process in self._all())

    def stop(self) -> None:
        for process in self._all():
            process.kill()
        self._process.wait()


async def ask(port: int, path: str, asked: asyncio.Event | None = None) -> tuple[float, bytes]:
    """One request on a connection of its own: when its answer was there, and the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        if asked:
            asked.set()
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.endswith((b"on", b"released")):
        raise OSError("no answer")
    return time.perf_counter(), answer.rpartition(b"\r\n")[2]


async def all_wait(server: Server, members: int) -> list[asyncio.Task[tuple[float, bytes]]]:
    waiting = []
    for _ in range(members):
        asked = asyncio.Event()
        waiting.append(asyncio.create_task(ask(server.port, "/wait", asked)))
        await asked.wait()
    await asyncio.sleep(1.0)
    return waiting


async def once(server: Server, members: int) -> tuple[float, int, float, int]:
    """Memory above idle, threads, release seconds, and handlers left behind by clients that hung up."""
    idle = server.memory()
    waiting = await all_wait(server, members)
    memory, threads = server.memory() - idle, server.threads()
    began = time.perf_counter()
    await ask(server.port, "/release")
    ends = await asyncio.wait_for(asyncio.gather(*waiting), 60)
    took = max(end for end, _ in ends) - began
    waiting = await all_wait(server, members)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(1.0)
    _, answer = await ask(server.port, "/waiting")
    return memory, threads, took, int(answer.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        kind, port = given.serve
        {"quart": quart, "flask": flask}.get(kind, lambda port: gunicorn(port, given.members))(int(port))
        return
    kinds = ["quart", "flask"] + (["gunicorn"] if importlib.util.find_spec("gunicorn") else [])
    found: dict[str, list[tuple[float, int, float, int]]] = {kind: [] for kind in kinds}
    for _ in range(given.times):
        for kind in kinds:  # a fresh server each time: freed memory is not always given back
            server = Server(kind, given.members)
            try:
                found[kind].append(asyncio.run(once(server, given.members)))
            finally:
                server.stop()
    names = {
        "quart": "Quart, uvicorn",
        "flask": "Flask, threaded Werkzeug",
        "gunicorn": "Flask, gunicorn gthread",
    }
    rows, medians = [], {}
    for kind in kinds:
        memory, threads, seconds, left = (Figure(tuple(values)) for values in zip(*found[kind], strict=True))
        released = Figure(tuple(1e3 * value for value in seconds.values))
        rows.append((names[kind], memory, threads, released, left))
        medians |= {
            f"{kind}_mib": memory.median,
            f"{kind}_threads": threads.median,
            f"{kind}_release_ms": released.median,
            f"{kind}_left_behind": left.median,
        }
    head = ("server", "MiB above idle", "threads", "release to last answer, ms", "waiting after hang-up")
    table(f"{given.members} members waiting in one phase", head, rows)
    if given.json:
        print(json.dumps({key: round(value, 3) for key, value in medians.items()}))


if __name__ == "__main__":
    main()
