"""A federation in four commands, as the README shows it, and the commands beside them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.e2e
README = (Path(__file__).parents[2] / "README.md").read_text()


def shown(section: str) -> list[list[str]]:
    """The commands of a block of the README, without `./run`."""
    block = re.search(rf"<!-- {section} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert block, section
    return [line.partition("#")[0].split()[1:] for line in block[1].splitlines()]


def choral(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "choral", *map(str, arguments)],
        check=False,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
    )


def ok(*arguments: object, cwd: Path) -> str:
    done = choral(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three members, trained to the end; the aggregator still serves."""
    folder = tmp_path_factory.mktemp("by-hand")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    split, init, serve, join = shown("by hand")
    ok(*split, cwd=folder)
    ok(*init, "--rounds", 5, "--url", url, cwd=folder)  # said twice, the last one counts
    joins = [[part.replace("1", str(i)) for part in join] for i in (1, 2, 3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "choral", *arguments],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for arguments in (serve, *joins)
    ]  # fmt: skip
    try:
        output = [process.communicate(timeout=90)[0] for process in processes[1:]]
        assert [process.returncode for process in processes[1:]] == [0, 0, 0], output
        yield folder, url, output
        processes[0].send_signal(signal.SIGTERM)
        assert processes[0].wait(20) == 0
    finally:
        for process in processes:
            process.kill()


def test_every_member_sees_the_versions_and_the_end(trained) -> None:
    for text in trained[2]:
        assert re.search(r"version 5 from 3 members, with this member's update", text)
        assert "training is over" in text


def test_what_the_readme_shows_beside_them_works(trained) -> None:
    for command in shown("beside"):
        assert ok(*command, cwd=trained[0])


def test_status_tells_round_and_members_by_url_and_by_folder(trained) -> None:
    folder, url, _ = trained
    for where in (url, "fed/aggregator", "fed/member-2"):
        assert "version 5 of 5, training is over" in ok("status", where, cwd=folder)
    assert json.loads(ok("status", url, "--json", cwd=folder))["version"] == 5


def test_the_log_verifies_from_disk_and_over_the_network(trained) -> None:
    folder = trained[0]
    for where in ("fed/aggregator", "fed/member-1"):
        assert "6 records, every signature and link verified" in ok("log", where, cwd=folder)
    lines = [json.loads(line) for line in ok("log", "fed/aggregator", "--json", cwd=folder).splitlines()]
    assert [line["version"] for line in lines] == list(range(6))
    assert lines[-1]["survivors"]
    assert lines[-1]["accuracy"] is None, "the newest version is not measured yet"
    assert lines[-2]["accuracy"] > 0.5
    assert (lines[0]["measured_by"], [line["best"] for line in lines].count(True)) == (3, 1)


def test_every_version_predicts_and_a_later_one_better(trained) -> None:
    folder = trained[0]
    found = {}
    for v in (0, 5):
        test = ("--data", "shards/test_data.npy", "--version", v)
        found[v] = json.loads(ok("predict", "fed/member-3", *test, "--json", cwd=folder))["accuracy"]
    assert found[0] < 0.3
    assert found[5] > 0.7
    assert "right" in ok("predict", "fed/aggregator", "--data", "shards/test_data.npy", cwd=folder)


def test_a_version_is_exported_as_safetensors(trained) -> None:
    folder = trained[0]
    ok("model", "export", "fed/aggregator", "--version", 3, "out.safetensors", cwd=folder)
    assert {name: array.shape for name, array in load_file(folder / "out.safetensors").items()} == {
        "weight": (64, 10),
        "bias": (10,),
    }


def test_a_shard_is_inspected(trained) -> None:
    assert "a good shard of" in ok("data", "inspect", "shards/client_2_data.npy", cwd=trained[0])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("join", "fed/aggregator", "--data", "shards/client_1_data.npy"), "expected a member's"),
        (("serve", "fed/member-1"), "expected the aggregator's"),
        (("join", "fed/member-1", "--data", "nothing.npy"), "nothing.npy"),
        (("join", "nowhere", "--data", "shards/client_1_data.npy"), "choral init"),
        (("init", "fed/", "--members", "3", "--shards", "shards/"), "exists already"),
        (("predict", "fed/aggregator", "--data", "shards/test_data.npy", "--version", "99"), "no version 99"),
        (("init", "other/", "--members", "3"), "--features"),
        (("data", "split", "--split", "thirds", "more/"), "dirichlet"),
        (("status", "http://127.0.0.1:9"), "did not say"),
        (("serve", "fed/aggregator"), "another aggregator is running"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_a_hint(trained, command, says) -> None:
    done = choral(*command, cwd=trained[0])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert "hint:" in done.stderr


def test_every_command_has_help_with_an_example(trained) -> None:
    verbs = [
        "init",
        "serve",
        "join",
        "status",
        "log",
        "predict",
        "simulate",
        "demo",
        "data split",
        "data inspect",
    ]
    for verb in [*verbs, "model export"]:
        assert f"Example:  choral {verb}" in ok(*verb.split(), "--help", cwd=trained[0])


def test_no_private_key_is_in_two_places_or_in_the_output(trained) -> None:
    folder, _, output = trained
    keys = {path.read_text().split("\n")[1] for path in folder.glob("fed/*/identity.pem")}
    assert len(keys) == 4
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "identity.pem":
            assert not [key for key in keys if key.encode() in path.read_bytes()], path
    assert not [key for key in keys if key in "".join(output)]


def test_ctrl_c_ends_a_waiting_member_without_a_traceback(trained, tmp_path) -> None:
    ok(
        "init",
        "fed/",
        "--members",
        3,
        "--features",
        64,
        "--weight-cap",
        500,
        "--url",
        "http://127.0.0.1:9",
        cwd=tmp_path,
    )
    shard = trained[0] / "shards" / "client_1_data.npy"
    process = subprocess.Popen(
        [sys.executable, "-m", "choral", "join", "fed/member-1", "--data", shard],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "cannot be reached" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=10)[0]
    assert process.returncode == 130
    assert "Traceback" not in text


def test_the_service_stays_up_and_says_so(trained) -> None:
    assert httpx.get(f"{trained[1]}/livez").json() == {"status": "alive"}
    assert httpx.get(f"{trained[1]}/readyz").json()["status"] == "ready"
