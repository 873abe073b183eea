"""`choral watch`, `plot` and `doctor`: what a person sees without a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console

from choral.cli.watch import drawn
from choral.data import save_shard
from choral.inspection.folder import examine
from choral.inspection.reachability import _clock

pytestmark = pytest.mark.e2e
HTML = "<img src=x onerror=alert(1)>[bold]x[/]"


def choral(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "choral", *map(str, arguments)],
        check=False, cwd=cwd, capture_output=True, text=True, timeout=90, env={**os.environ, **environment},
    )  # fmt: skip


def ok(*arguments: object, cwd: Path) -> str:
    done = choral(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four members, five versions, the aggregator still there; the federation's name holds HTML."""
    folder = tmp_path_factory.mktemp("seeing")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    ok("data", "split", "shards", "--members", 4, cwd=folder)
    ok("init", "fed", "--members", 4, "--shards", "shards", "--rounds", 5, "--url", url, cwd=folder)
    for file in folder.glob("fed/*/federation.toml"):
        file.write_text(
            re.sub(r"^name = .*$", f"name = {json.dumps(HTML)}", file.read_text(), count=1, flags=re.M)
        )
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "choral", *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        for arguments in (
            ("serve", "fed/aggregator"),
            *(("join", f"fed/member-{i}", "--data", f"shards/client_{i}_data.npy") for i in range(1, 5)),
        )
    ]
    try:
        assert [process.wait(90) for process in processes[1:]] == [0] * 4
        yield folder, url
    finally:
        for process in processes:
            process.kill()
            process.wait()


# ----- watch ----------------------------------------------------------------------------------


def test_watch_shows_stations_curve_members_and_costs_by_url_and_by_folder(trained):
    folder, url = trained
    for where in (url, "fed/aggregator", "fed/member-2"):
        said = ok("watch", where, "--once", cwd=folder)
        assert "version 5 of 5, training is over" in said
        for word in ("accuracy", "member-4", "●●●●●", "bytes out", "in the sum"):
            assert word in said, word
        assert "1 train" not in said, "training is over: nobody is at a station"
        assert HTML in said  # as text: neither markup nor anything else
    assert json.loads(ok("watch", url, "--json", cwd=folder))["state"]["version"] == 5


def test_watch_draws_an_open_round_with_who_is_awaited(trained):
    folder, url = trained
    picture = json.loads(ok("watch", url, "--json", cwd=folder))
    some = {"names": ["member-1"], "count": 1}
    other = {"names": ["member-2", HTML], "count": 12}
    picture["live"]["cohorts"] = [{
        "round": "abc", "base": 5, "phase": "share", "station": "share", "deadline": 20.0, "needed": 3,
        "size": 4, "sent": 1, "expected": 4, "waiting_for": other,
        "stations": {"share": {"in": some, "awaited": other, "gone": some}},
        "apart": {"named": [{"name": "member-3", "why": HTML}], "count": 1},
    }]  # fmt: skip
    picture["live"].update(clock=8.0, over=False)
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(drawn(picture))
    said = console.export_text()
    assert "phase share: 1 in, at least 3 needed, 12 s left, waiting for member-2" in said
    assert "✓ member-1" in said
    assert "… member-2" in said
    assert "✕ member-1" in said
    assert f"kept apart: member-3 waits for another cohort: {HTML}" in said
    assert "and 4 more" in said
    assert "1 train" in said
    assert "5 reveal" in said


def test_watch_says_when_nobody_answers(trained):
    done = choral("watch", "http://127.0.0.1:1", "--once", cwd=trained[0])
    assert done.returncode == 1
    assert "hint:" in done.stderr


def test_watch_ends_tidily_by_ctrl_c(trained):
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    folder, url = trained
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "choral", "watch", url, "--every", "0.2"], cwd=folder, stdin=theirs,
        stdout=theirs, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    seen, until = b"", time.monotonic() + 30
    while b"in the sum" not in seen and time.monotonic() < until:
        seen += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # it has ended, and all that it said was read
            break
    assert process.wait(10) == 130
    assert b"\x1b[?1049l" in seen  # the screen is given back
    assert b"Traceback" not in (process.stderr.read() if process.stderr else b"")
    os.close(ours)


# ----- plot -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(trained) -> str:
    ok("plot", "fed/aggregator", "-o", "report.html", cwd=trained[0])
    return (trained[0] / "report.html").read_text()


def test_the_report_stands_alone_and_runs_nothing(report):
    assert not re.search(r"<script|<link|<img|<iframe|src=|@import|url\(", report.replace("&lt;img src=", ""))
    assert not re.search(r"""(href|action)=|\son[a-z]+\s*=\s*["']""", report)
    assert "default-src 'none'" in report
    assert "&lt;img src=x onerror=alert(1)&gt;[bold]x[/]" in report


def test_the_report_has_all_that_it_should(report):
    for title in (
        "Is it learning?", "Who took part", "Members", "What a round cost", "What the aggregator saw",
        "Rounds", "Model log", "Security parameters",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in report
    assert report.count("<polyline") == 2
    assert "Threshold t = 3 of n = 4" in report
    assert "Ring plan: 29 bits" not in report or "Clipped at ±8" in report
    assert re.search(r"Error of a mean: at most \d\.\de-\d\d", report)
    assert re.search(r"largest bound of the rounds so far: \d\.\de-\d\d", report)
    assert len(re.findall(r"<code>[0-9a-f]{64}</code>", report)) == 7  # six versions, one task
    assert "bytes in" in report


def test_a_member_gets_the_same_report_over_the_network(trained, report):
    ok("plot", "fed/member-3", "-o", "member.html", cwd=trained[0])
    same = [
        re.sub(r"report of [^<]+", "", text) for text in (report, (trained[0] / "member.html").read_text())
    ]
    assert same[0] == same[1]


def test_the_report_as_a_picture(trained):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ok("plot", "fed/aggregator", "-o", "report.png", cwd=trained[0])
    assert (trained[0] / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (trained[0] / "report.png").stat().st_size > 20_000


def test_what_cannot_be_written_is_said_and_leaves_nothing(trained):
    done = choral("plot", "fed/aggregator", "-o", "no/such/report.html", cwd=trained[0])
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert not [path for path in trained[0].rglob(".*") if "report" in path.name]


def test_another_kind_of_file_is_refused(trained):
    done = choral("plot", "fed/aggregator", "-o", "report.pdf", cwd=trained[0])
    assert done.returncode == 1
    assert ".html or .png" in done.stderr


# ----- doctor ---------------------------------------------------------------------------------


def findings(folder: Path, **given: object) -> dict[str, tuple[str, str]]:
    """How each thing is, and what was said; of several findings on one thing the worst."""
    order = ("ok", "warn", "fail")
    found: dict[str, tuple[str, str]] = {}
    arguments: dict[str, object] = {"url": None, "data": None, "state": None, **given}
    for finding in examine(folder, **arguments):  # type: ignore[arg-type]
        if finding.how != "ok":
            assert finding.do, finding
        before = found.get(finding.what, ("ok", ""))
        if order.index(finding.how) >= order.index(before[0]):
            found[finding.what] = (finding.how, finding.found)
    return found


def test_a_good_folder_is_in_order(trained):
    folder, _ = trained
    said = ok("doctor", "fed/member-1", "--data", "shards/client_1_data.npy", cwd=folder)
    assert "0 to look at, 0 failed: everything is in order" in said
    found = findings(folder / "fed/member-1", data=folder / "shards/client_1_data.npy")
    assert {how for how, _ in found.values()} == {"ok"}
    assert set(found) >= {
        "versions", "folder", "file modes", "key and enrolment", "task and floors", "state", "shard",
        "reachability", "clock", "enrolment there", "task there", "version there", "log and model",
    }  # fmt: skip
    lines = [json.loads(line) for line in ok("doctor", "fed/aggregator", "--json", cwd=folder).splitlines()]
    assert all(line["how"] == "ok" for line in lines)


@pytest.fixture
def member(trained, tmp_path) -> Path:
    """A copy of a member's folder, to be spoilt."""
    return Path(
        subprocess.run(["cp", "-a", trained[0] / "fed/member-2", tmp_path / "m"], check=True).args[-1]
    )


def test_a_key_that_all_can_read_fails_and_says_chmod(member):
    (member / "identity.pem").chmod(0o644)
    done = choral("doctor", member, cwd=member)
    assert done.returncode == 1
    assert f"chmod 600 {member}/identity.pem" in done.stdout
    (member / "identity.pem").chmod(0o640)
    assert findings(member)["file modes"][0] == "warn"


def test_files_that_others_can_change_are_told(member):
    (member / "federation.toml").chmod(0o666)
    assert findings(member)["file modes"][0] == "warn"


@pytest.mark.parametrize("name", ["identity.pem", "federation.toml", "task.toml"])
def test_a_file_that_is_missing_or_broken_is_named(member, name):
    (member / name).write_text("nonsense =")
    found = findings(member)
    assert found["key and enrolment"][0] == "fail"
    (member / name).unlink()
    assert name in findings(member)["folder"][1]


def test_no_folder_at_all(tmp_path):
    assert findings(tmp_path / "nothing")["folder"][0] == "fail"


def test_a_key_of_somebody_else_is_not_enrolled(trained, member, tmp_path):
    ok("init", "other", "--members", 3, "--features", 64, "--weight-cap", 10, cwd=tmp_path)
    (member / "identity.pem").unlink()
    (tmp_path / "other/member-1/identity.pem").rename(member / "identity.pem")
    how, said = findings(member)["key and enrolment"]
    assert how == "fail"
    assert "not enrolled" in said


def test_a_shard_that_does_not_fit_fails(member, tmp_path):
    rng = np.random.default_rng(0)
    other = save_shard(tmp_path / "other.npy", rng.random((20, 7), np.float32), rng.integers(0, 3, 20))
    assert findings(member, data=other)["shard"][0] == "fail"
    assert findings(member, data=tmp_path / "none.npy")["shard"][0] == "fail"
    assert findings(member)["shard"][0] == "warn"


def test_a_shard_above_the_weight_cap_is_told(member, tmp_path):
    rng = np.random.default_rng(0)
    large = save_shard(tmp_path / "large.npy", rng.random((5000, 64), np.float32), rng.integers(0, 10, 5000))
    how, _ = findings(member, data=large)["shard"]
    assert how == "warn"


def test_nobody_there_and_somebody_else_there(member):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert findings(member, url=f"http://127.0.0.1:{free.getsockname()[1]}")["reachability"][0] == "fail"
    other = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        cwd=member,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        port = re.search(rb"port (\d+)", other.stdout.readline())
        assert port is not None
        how, said = findings(member, url=f"http://127.0.0.1:{int(port[1])}")["reachability"]
    finally:
        other.kill()
        other.wait()
    assert how == "fail"
    assert "something else" in said


def test_an_aggregator_of_another_federation_is_found_out(trained, tmp_path):
    ok("init", "other", "--members", 3, "--features", 64, "--weight-cap", 10, cwd=tmp_path)
    found = findings(tmp_path / "other/member-1", url=trained[1])
    assert found["reachability"][0] == "ok"
    assert "fail" in (found.get("enrolment there", ("", ""))[0], found.get("task there", ("", ""))[0])


def test_a_damaged_journal_is_told(member):
    journal = member / "state/journal.sqlite"
    journal.write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    assert findings(member)["state"][0] == "fail"


@pytest.mark.parametrize(
    ("off", "how"), [(0, "ok"), (-1, "ok"), (20, "warn"), (-20, "warn"), (400, "fail"), (-400, "fail")]
)
def test_a_clock_that_is_off_is_told_by_how_much(off, how):
    there = format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)
    (finding,) = _clock(there, time.time())
    assert finding.how == how
    if how != "ok":
        assert re.search(rf"\b{abs(off)} s|{abs(off) - 1} s|{abs(off) + 1} s", finding.found)
    assert next(iter(_clock(None, 0.0))).how == "warn"


def test_the_aggregator_is_there_throughout(trained):
    assert httpx.get(f"{trained[1]}/livez").is_success


# ----- a version's figures stand in its own row -----------------------------------------------


def test_the_log_the_page_and_the_report_show_a_versions_figures_in_its_own_row(trained, report):
    folder, url = trained
    lines = [json.loads(line) for line in ok("log", "fed/aggregator", "--json", cwd=folder).splitlines()]
    picture = json.loads(ok("watch", url, "--json", cwd=folder))["state"]
    page = {line["version"]: line for line in picture["log"]}
    assert picture["curve"] == [[line["version"], line["accuracy"], line["loss"]] for line in lines[:-1]]
    for line in lines:
        for name in ("accuracy", "loss", "measured_by", "measured_on", "best"):
            assert page[line["version"]][name] == line[name]
    assert lines[0]["accuracy"] == pytest.approx(0.1, abs=0.1), "version 0 knows nothing"
    assert lines[-1]["accuracy"] is None, "the newest version is not measured yet"
    (row,) = re.findall(rf"<code>{lines[2]['parameters']}</code>.*?</tr>", report)
    assert f"{100 * lines[2]['accuracy']:.1f}%" in row
    assert f"{lines[2]['measured_on']:g} examples of 4 members" in row
