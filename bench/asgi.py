"""Which ASGI server? Uploads of 40 MB, small requests, 200 waiting members; each server in turn on one app.

python bench/asgi.py            measures what is installed of uvicorn (with both of its parsers, and as Choral
                                runs it), hypercorn and granian; names as arguments choose among them
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time

import httpx
import psutil
from quart import Quart, Response, request

from choral.service.http import line
from choral.service.http.listener import Listener
from figures import Figure, table

UPLOAD = 40_000_000
WAITING = 200
SMALL = 500
TIMES = 5

app = Quart(__name__)
app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
_gate = {"open": asyncio.Event()}
_waiting: list[int] = []


@app.put("/upload")
async def upload() -> Response:
    buffer, at = bytearray(request.content_length or 0), 0
    async for chunk in request.body:
        buffer[at : at + len(chunk)] = chunk
        at += len(chunk)
    return Response(str(at))


@app.get("/wait")
async def wait() -> Response:
    _waiting.append(1)
    await _gate["open"].wait()
    return Response("go")


@app.get("/waiting")
async def waiting() -> Response:
    return Response(str(len(_waiting)))


@app.post("/release")
async def release() -> Response:
    _gate["open"].set()
    _gate["open"] = asyncio.Event()
    return Response("")


@app.get("/")
async def root() -> Response:
    return Response("")


def command(server: str, port: int) -> list[str]:
    return {
        "uvicorn, httptools": [*_uvicorn(port), "--http", "httptools"],
        "uvicorn, h11": [*_uvicorn(port), "--http", "h11", "--h11-max-incomplete-event-size", "16384"],
        "choral": ["asgi", "serve", str(port)],
        "hypercorn": ["hypercorn", "asgi:app", "--bind", f"127.0.0.1:{port}", "--log-level", "error"],
        "granian": [
            "granian", "--interface", "asginl", "asgi:app", "--port", str(port), "--log-level", "error",
            "--no-access-log",
        ],
    }[server]  # fmt: skip


def _uvicorn(port: int) -> list[str]:
    return ["uvicorn", "asgi:app", "--port", str(port), "--log-level", "error", "--no-access-log"]


async def measure(port: int, process: psutil.Process) -> dict[str, float]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    body = os.urandom(1 << 20)

    async def pieces():
        for _ in range(UPLOAD // len(body)):
            yield body

    sent = UPLOAD // len(body) * len(body)
    headers = {"Content-Length": str(sent)}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http:
        cpu, began = sum(process.cpu_times()[:2]), time.perf_counter()
        answers = await asyncio.gather(
            *(http.put("/upload", content=pieces(), headers=headers) for _ in range(4))
        )
        uploads = time.perf_counter() - began
        assert all(answer.text == str(sent) for answer in answers)
        upload_cpu = sum(process.cpu_times()[:2]) - cpu
        cpu = sum(process.cpu_times()[:2])
        for _ in range(SMALL):
            await http.get("/")
        small_cpu = sum(process.cpu_times()[:2]) - cpu
        small = asyncio.create_task(_latency(http))
        await http.put("/upload", content=pieces(), headers=headers)
        latency = await small
        waiting = [asyncio.create_task(http.get("/wait")) for _ in range(WAITING)]
        while int((await http.get("/waiting")).text) < WAITING:
            await asyncio.sleep(0.5)
        cpu = sum(process.cpu_times()[:2])
        began = time.perf_counter()
        await http.post("/release")
        await asyncio.gather(*waiting)
        released = time.perf_counter() - began
        released_cpu = sum(process.cpu_times()[:2]) - cpu
    return {
        "4 uploads, s": uploads, "CPU of that, s": upload_cpu, f"CPU of {SMALL} small, s": small_cpu,
        "small request meanwhile, ms": latency * 1000,
        f"{WAITING} released, ms": released * 1000, "CPU of these, ms": released_cpu * 1000,
        "resident, MiB": process.memory_info().rss / 2**20,
    }  # fmt: skip


async def _latency(http: httpx.AsyncClient) -> float:
    worst = 0.0
    for _ in range(10):
        began = time.perf_counter()
        await http.get("/")
        worst = max(worst, time.perf_counter() - began)
    return worst


async def serve(port: int) -> None:
    """The app as the aggregator serves: uvicorn with the limits of `choral.service.http.line`."""
    listener = Listener("127.0.0.1", port, most=1024, per_address=1024)
    await line.server(app).serve(sockets=[listener])


def run(server: str) -> dict[str, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = os.path.dirname(os.path.abspath(__file__))
    with subprocess.Popen([sys.executable, "-m", *command(server, port)], cwd=here) as process:
        try:
            for _ in range(100):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            # granian works in a child of the process that was started
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            worker = max(tree, key=lambda p: p.memory_info().rss)
            return asyncio.run(measure(port, worker))
        finally:
            process.terminate()


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2])))
        return
    known = ("choral", "uvicorn, httptools", "uvicorn, h11", "hypercorn", "granian")
    servers = [name for name in known if importlib.util.find_spec(name.partition(",")[0])]
    servers = [name for name in servers if name in sys.argv[1:]] or servers
    found: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for turn in range(TIMES):
        for server in servers:
            print(f"{turn + 1} of {TIMES}: {server}", file=sys.stderr)
            found[server].append(run(server))
    rows = [
        [server, *(Figure(tuple(one[key] for one in found[server])) for key in found[server][0])]
        for server in servers
    ]
    table("minimum / median / maximum", ["server", *found[servers[0]][0]], rows)


if __name__ == "__main__":
    main()
