"""A whole run of real processes, everything they say, and every secret they had: the two do not meet.

Each process writes down what it draws, deals, derives and trains; then all logs, reports and answers are
searched for it, raw, in hexadecimal, in base64 and as numbers.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

pytestmark = pytest.mark.e2e

# choral, with a pen: secrets of 32 bytes go into a file of their own, one a line
TELLTALE = """
import os, sys
file = open(os.environ["SECRETS"], "ab", buffering=0)
def note(*secrets):
    for secret in secrets:
        if isinstance(secret, bytes) and len(secret) >= 16:
            file.write(secret.hex().encode() + b"\\n")
    return secrets[0]
from choral.primitives import agreement, entropy, shamir
urandom, split, evaluate = os.urandom, shamir.split, shamir.evaluate
derive, shared = agreement.derive, agreement.Agreement.shared
os.urandom = lambda n: note(urandom(n))
def dealing(*a):
    shares = split(*a)
    note(*shares)
    return shares
shamir.split = dealing
shamir.evaluate = lambda *a: note(evaluate(*a))
agreement.derive = lambda *a, **k: note(derive(*a, **k))
agreement.Agreement.shared = lambda self, peer: note(shared(self, peer))
from choral.cli import main
if os.environ.get("FAIL") == "1":  # an unexpected error, in the middle of everything that is secret
    from choral.service.training import Training
    apply = Training.apply
    def failing(self, total, *a, **k):
        vector, text = total.main, total.main.tobytes().hex()
        if os.path.exists(os.environ["SECRETS"] + ".failed"):
            return apply(self, total, *a, **k)
        open(os.environ["SECRETS"] + ".failed", "w").close()
        raise ZeroDivisionError("on purpose")
    Training.apply = failing
main()
"""


class Run:
    """Four members and an aggregator, what they say in `said`, what they must not in `secrets`."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.root = root
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for arguments in (
            ("data", "split", "shards", "--members", "4"),
            ("init", "fed", "--members", "4", "--shards", "shards", "--rounds", "6", "--url", self.url),
        ):
            subprocess.run(
                [sys.executable, "-m", "choral", *arguments], cwd=root, check=True, capture_output=True
            )

    def start(self, name: str, *arguments: object, **environment: str) -> None:
        with (self.root / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", TELLTALE, *map(str, arguments)],
                cwd=self.root, stdout=out, stderr=out,
                env={**os.environ, "SECRETS": str(self.root / f"{name}.secrets"), **environment},
            )  # fmt: skip

    def join(self, i: int) -> None:
        self.start(
            f"member-{i}", "join", f"fed/member-{i}", "--data", f"shards/client_{i}_data.npy",
            "--witness", "witness", *(["--json"] if i % 2 else []),
        )  # fmt: skip

    def get(self, path: str) -> bytes:
        try:
            return httpx.get(self.url + path, timeout=5).content
        except httpx.HTTPError:
            return b""

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["json", "text"])
def run(request, tmp_path_factory) -> Iterator[tuple[Run, dict[str, bytes]]]:
    """The whole run, and everything that was said in it by where it was said."""
    found = Run(tmp_path_factory.mktemp("run"))
    said: dict[str, bytes] = {}
    try:
        found.start(
            "aggregator", "serve", "fed/aggregator", "--witness", "witness", "--pace-seconds", "0.2",
            "--gone-seconds", "1", CHORAL_LOG_FORMAT=request.param, FAIL="1",
        )  # fmt: skip
        wait(lambda: found.get("/livez"))
        for i in range(1, 5):
            found.join(i)
        wait(lambda: json.loads(found.get("/v1/status"))["version"] >= 2)
        found.processes["member-2"].kill()
        found.processes["member-2"].wait()
        said["a stranger's request"] = found.get("/v1/task")
        with httpx.stream("GET", f"{found.url}/v1/events", timeout=20) as events:
            for piece in events.iter_bytes():
                said["the page's events"] = said.get("the page's events", b"") + piece
                if said["the page's events"].count(b"event: state") > 2:
                    break
        found.join(2)
        wait(lambda: json.loads(found.get("/v1/status"))["over"])
        for name in ("member-1", "member-3", "member-4"):
            assert found.processes[name].wait(20) == 0
        for path in (
            "/metrics",
            "/v1/status",
            "/v1/rounds",
            "/v1/snapshot",
            "/v1/versions?before=99",
            "/readyz",
            "/",
        ):
            said[path] = found.get(path)
        found.processes["aggregator"].send_signal(signal.SIGTERM)
        assert found.processes["aggregator"].wait(20) == 0
        for log in found.root.glob("*.log"):
            said[log.name] = log.read_bytes()
        said["the aggregator's store"] = b"".join(
            path.read_bytes() for path in (found.root / "fed/aggregator/state").iterdir()
        )
        yield found, said
    finally:
        found.close()


def forms(secret: bytes) -> Iterator[bytes]:
    """How a secret could be written: raw, hexadecimal, base64 at any alignment, escaped."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(shift) + secret)[4 if shift else 0 : -4]
    yield repr(secret)[2:-1].encode()
    yield ", ".join(map(str, secret[:8])).encode()


def vectors(root: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for path in sorted((root / "witness").rglob("*.npy")):
        if path.name != "sum.npy":
            yield f"{path.parent.name}/{path.name}", np.load(path)


def numbers(vector: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """How a stretch of a vector could be written as numbers."""
    stretch = next(vector[i : i + 4] for i in range(len(vector)) if np.all(vector[i : i + 4] != 0))
    for values in (stretch, stretch.view(np.int32)):
        for between in (", ", ",", " ", "\n"):
            yield between.join(map(str, values.tolist())).encode()
        yield str(values)[1:-1].encode()


def test_the_run_had_secrets_and_said_a_lot(run):
    found, said = run
    drawn = {path.stem: path.read_text().split() for path in found.root.glob("*.secrets")}
    assert all(len(set(drawn[f"member-{i}"])) > 50 for i in range(1, 5))
    assert len(drawn["aggregator"]) > 5
    assert len(list(vectors(found.root))) >= 30
    log = said["aggregator.log"]
    assert log.count(b"a new model version") == 6
    assert b"ZeroDivisionError" in log
    assert b"a round failed" in log
    assert len(said["the page's events"]) > 2000
    public = bytes.fromhex(json.loads(said["/v1/status"])["record"])  # what is told would be found
    assert any(form in said["/v1/status"] for form in forms(public))
    assert any(form in said["the aggregator's store"] for form in forms(public))


def test_no_key_no_seed_no_share_is_told(run):
    found, said = run
    secrets = {
        bytes.fromhex(line) for path in found.root.glob("*.secrets") for line in path.read_text().split()
    }
    for path in found.root.glob("fed/*/identity.pem"):
        secrets.add(load_pem_private_key(path.read_bytes(), None).private_bytes_raw())  # type: ignore[union-attr]
    everything = b"\0".join(said[where] for where in said)
    for secret in secrets:
        for form in forms(secret):
            assert form not in everything, (secret.hex(), [where for where in said if form in said[where]])


def test_no_update_is_told_masked_or_not(run):
    found, said = run
    everything = b"\0".join(said.values())
    for name, vector in vectors(found.root):
        data = vector.tobytes()
        for at in (0, len(data) // 2 // 4 * 4, len(data) - 32):
            stretch = data[at : at + 32]
            if len(set(stretch)) < 12:
                continue  # zeros of an image's border: they are everywhere
            for form in forms(stretch):
                assert form not in everything, name
        for form in numbers(vector):
            assert form not in everything, name


def test_every_line_says_which_round_and_which_member(run):
    lines = run[1]["aggregator.log"].decode().splitlines()
    rounds = [
        line for line in lines if any(event in line for event in ("a cohort closed", "a new model version"))
    ]
    assert len(rounds) >= 12
    for line in rounds:
        if line.startswith("{"):
            found = json.loads(line)
            assert len(found["round"]) == 12
            assert found.get("members") or found.get("survivors")
        else:
            assert "round=" in line
    assert any(line.startswith("{") for line in lines) or any("[info" in line for line in lines)
