"""A federation under TLS by hand: init --tls, serve, join, status, ping, renew."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from test_by_hand import choral, ok

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A federation of three with digits, and its aggregator serving."""
    folder = tmp_path_factory.mktemp("tls")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ok("data", "split", "--data", "digits", "--members", 3, "shards/", cwd=folder)
    said = ok(
        "init", "fed/", "--members", 3, "--shards", "shards/", "--rounds", 2,
        "--tls-name", "127.0.0.1,aggregator.example", "--url", f"https://localhost:{port}", cwd=folder,
    )  # fmt: skip
    assert "TLS for localhost, 127.0.0.1, aggregator.example until" in said
    assert "move fed/ca offline" in said
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "choral", "serve", "fed/aggregator"], cwd=folder, stderr=log
        )
    until = time.monotonic() + 30
    while choral("ping", "fed/aggregator", cwd=folder).returncode:
        assert time.monotonic() < until
    yield folder
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_no_folder_but_the_authoritys_holds_its_key(folder) -> None:
    holders = [str(path.relative_to(folder / "fed")) for path in sorted(folder.glob("fed/*/*.key"))]
    assert holders == ["aggregator/server.key", "ca/ca.key"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.glob("fed/*/*.key"))
    assert "offline" in (folder / "fed/ca/README").read_text()
    assert len(list(folder.glob("fed/member-*/ca.pem"))) == 3


def test_members_train_to_the_end_and_are_well_meanwhile(folder) -> None:
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "choral", "join", f"fed/member-{i}", "--data", f"shards/client_{i}_data.npy"],  # noqa: E501
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in (1, 2, 3)
    ]  # fmt: skip
    for process in members:
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 0, said
        assert "training is over" in said
    assert "alive" in ok("ping", "fed/member-1", cwd=folder)


def test_status_says_when_the_certificate_expires(folder) -> None:
    found = json.loads(ok("status", "fed/member-2", "--json", cwd=folder))
    assert 364 * 86400 < found["tls"]["seconds_left"] < 366 * 86400
    url = next(
        line for line in (folder / "fed/member-1/federation.toml").read_text().split('"') if "://" in line
    )
    assert "version" in ok("status", url, "--ca", "fed/ca/ca.pem", cwd=folder)
    wrong = choral("status", url, cwd=folder)
    assert wrong.returncode == 1
    assert "not issued by an authority that this machine knows" in wrong.stderr


def test_a_renewed_certificate_is_in_use_without_a_restart(folder) -> None:
    ok("tls", "renew", "fed/", "--days", 100, cwd=folder)
    until = time.monotonic() + 20
    while True:
        found = json.loads(ok("status", "fed/member-2", "--json", cwd=folder))["tls"]["seconds_left"]
        if found < 101 * 86400:
            break
        assert time.monotonic() < until
        time.sleep(0.5)
    assert "a new certificate is in use" in (folder / "serve.log").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tls", "--url", "http://a.example:1"), "expected an https address"),
        (("--tls-cert", "nothing.pem"), "needs --tls-cert and --tls-key"),
        (("--tls", "--names", "ca,ben,chris"), "cannot be called 'ca'"),
    ],
)
def test_a_mistake_about_tls_ends_in_a_sentence(folder, options, says) -> None:
    done = choral("init", "other/", "--members", 3, "--shards", "shards/", *options, cwd=folder)
    assert done.returncode == 1
    assert says in done.stderr
    assert not (folder / "other").exists()


def test_a_health_check_says_what_is_wrong(folder) -> None:
    for where in ("fed/member-3/nothing", "fed/nobody"):
        done = choral("ping", where, cwd=folder)
        assert done.returncode == 1
        assert "not well" in done.stderr
