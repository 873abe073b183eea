"""Figures, health and logs: what a machine reads of the service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from choral.binding.certificates import CERTIFICATE, KEY
from choral.errors import (
    ChoralError,
    Ending,
    NoRoom,
    ParameterError,
    PeerError,
    RoundAborted,
    ShuttingDown,
    Superseded,
)
from choral.founding.authority import private_tls
from choral.primitives.identity import Identity
from choral.service.http.app import create_app
from choral.service.http.certificate import ServerCertificate
from choral.service.serve import _figures
from choral.service.settings import load
from house import House, free_port, house, until

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"


@pytest.fixture
async def home(tmp_path):
    async with house(tmp_path, 3) as found:
        yield found


async def ask(home: House, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=home.url) as http:
        return await http.get(path, headers=headers)


async def figures(home: House) -> dict[str, float]:
    """Every sample by its name with its labels."""
    text = (await ask(home, "/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def one_round(home: House, *who: int) -> None:
    async with home.players(*who) as players:
        await asyncio.gather(*(player.play(home.head) for player in players))


# ----- /metrics -------------------------------------------------------------------------------


async def test_a_round_is_counted_with_its_phases_and_its_bytes_both_ways(home):
    before = await figures(home)
    assert before['choral_rounds_total{outcome="done"}'] == 0
    await one_round(home, 1, 2, 3)
    after = await figures(home)
    assert after['choral_rounds_total{outcome="done"}'] == 1
    assert after['choral_rounds_total{outcome="aborted"}'] == 0
    assert after["choral_model_version"] == 1
    assert 0 <= after["choral_model_version_age_seconds"] < 30
    for phase in ("advertise", "share", "mask", "consistency", "unmask"):
        assert after[f'choral_phase_seconds_count{{phase="{phase}"}}'] == 1
        assert after[f'choral_received_bytes_total{{message="{phase}"}}'] > 0
        assert after[f'choral_sent_bytes_total{{answer="{phase}"}}'] > 0
    assert after["choral_upload_bytes_per_second_count"] == 3


async def test_what_goes_out_in_a_round_is_remembered_to_the_last_answer(home):
    await one_round(home, 1, 2, 3)
    figure = await figures(home)
    await until(lambda: "unmask" in home.store.rounds()[-1].facts.sent, 5)
    facts = home.store.rounds()[-1].facts
    for phase, count in facts.sent.items():
        assert figure[f'choral_sent_bytes_total{{answer="{phase}"}}'] == count
    assert facts.told()["bytes_out"] == sum(facts.sent.values())
    assert facts.told()["bytes_in"] == sum(facts.received.values())


async def test_an_aborted_round_is_counted_by_reason_and_phase(tmp_path):
    async with house(tmp_path, 3) as home:
        async with home.players(1, 2, 3) as players:
            playing = [asyncio.create_task(player.play(home.head)) for player in players[1:]]
            await players[0].play(home.head, until="share")
            await players[0].leave()
            await asyncio.gather(*playing, return_exceptions=True)
        found = await figures(home)
    assert found['choral_rounds_total{outcome="aborted"}'] == 1
    assert found['choral_round_aborts_total{phase="share",reason="missing-members"}'] == 1


async def test_members_are_counted_by_state(home):
    async with home.players(1, 2):
        found = await figures(home)
        assert found['choral_members{state="connected"}'] == 2
        assert found['choral_members{state="never-seen"}'] == 1
    await until(lambda: home.rounds.presence.states().count("away") == 2)
    assert (await figures(home))['choral_members{state="away"}'] == 2


async def test_refusals_are_counted_by_the_name_of_the_problem(home):
    assert (await ask(home, "/v1/task")).status_code == 401
    assert (await figures(home))['choral_refusals_total{problem="identity"}'] == 1


async def test_no_label_holds_a_name_of_a_member(home):
    await one_round(home, 1, 2, 3)
    text = (await ask(home, "/metrics")).text
    assert not re.search(r'"m[123]"', text)


async def test_the_age_of_the_model_survives_a_restart(tmp_path):
    async with house(tmp_path, 3) as home:
        await one_round(home, 1, 2, 3)
        born = home.rounds.conductor.version_born
        port = home.port
        await home.close()
        home.settings = home.settings.model_copy(update={"port": port})
        await home.open()
        assert home.rounds.conductor.version_born == pytest.approx(born, abs=0.5)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
async def test_figures_are_for_this_machine_only_unless_said_otherwise(home, header):
    assert (await ask(home, "/metrics")).status_code == 200
    assert (await ask(home, "/metrics", **{header: "for=1.2.3.4"})).status_code == 403
    assert (await ask(home, "/metrics", Host="figures.example.org")).status_code == 403


async def test_the_certificates_end_is_a_figure_and_an_expired_one_is_not_ready(tmp_path):
    pem = private_tls("house", ["localhost"]).server
    pem.save(tmp_path, CERTIFICATE, KEY)
    certificate = ServerCertificate(tmp_path / CERTIFICATE, tmp_path / KEY)
    async with house(tmp_path, 3) as home:
        app = create_app(home.aggregator, home.rounds, home.store, certificate=certificate)
        client = app.test_client()
        local = {"headers": {"Host": "localhost"}, "scope_base": {"client": ("127.0.0.1", 1)}}
        text = (await (await client.get("/metrics", **local)).get_data()).decode()
        (line,) = re.findall(r"^choral_certificate_expiry_timestamp_seconds (\S+)$", text, re.M)
        assert float(line) == pytest.approx(certificate.expires.timestamp(), abs=1)
        certificate.expires = datetime.now(UTC) - timedelta(seconds=1)
        found = await client.get("/readyz", **local)
        assert found.status_code == 503
        assert (await found.get_json())["reasons"] == ["the server's certificate has expired"]


async def test_open_figures_are_for_everybody_and_off_is_off(tmp_path):
    async with house(tmp_path, 3, settings={"metrics": "open"}) as home:
        assert (await ask(home, "/metrics", Host="aggregator.example")).status_code == 200
    async with house(tmp_path / "other", 3, settings={"metrics": "off"}) as home:
        assert (await ask(home, "/metrics")).status_code == 404


async def test_figures_move_to_a_port_of_their_own(tmp_path):
    port = free_port()
    async with (
        house(tmp_path, 3, settings={"metrics_port": port}) as home,
        _figures(home.aggregator, home.rounds, home.store, None),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        assert (await ask(home, "/metrics")).status_code == 404
        assert "choral_model_version 0" in (await http.get("/metrics")).text
        assert (await http.get("/readyz")).json()["status"] == "ready"
        assert (
            (await http.get("/metrics", headers={"Host": "elsewhere"})).json()["type"].endswith("not-local")
        )
        assert (await http.get("/v1/status")).status_code == 404
        with pytest.raises(ParameterError, match="metrics_port"):
            async with _figures(home.aggregator, home.rounds, home.store, None):
                pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RoundAborted("x", missing=["m1"]), "missing-members"),
        (RoundAborted("x", culprits=["m1"]), "broken-rule"),
        (RoundAborted("x", missing=["m1"], culprits=["m2"]), "broken-rule"),
        (RoundAborted("x", missing=["m1"], ending=Ending.STOPPING), "stopping"),
        (RoundAborted("the aggregator stopped"), "other"),
        (PeerError("x", culprits=["m1"]), "broken-rule"),
        (PeerError("x"), "other"),
        (NoRoom("x"), "no-room"),
        (ShuttingDown("x"), "stopping"),
        (Superseded("x"), "superseded"),
        (RoundAborted("x"), "other"),
        (ChoralError("x"), "other"),
    ],
)
def test_an_error_knows_how_the_round_that_it_ends_is_counted(error, kind):
    assert error.ending == kind


# ----- health ---------------------------------------------------------------------------------


async def test_ready_says_what_is_wrong(home, monkeypatch):
    assert (await ask(home, "/livez")).json() == {"status": "alive"}
    assert (await ask(home, "/readyz")).json() == {"status": "ready", "version": 0, "reasons": []}
    home.rounds.conductor.draining = True
    found = await ask(home, "/readyz")
    assert (found.status_code, found.json()["reasons"]) == (503, ["the aggregator is stopping"])


async def test_a_full_disk_and_a_store_that_cannot_be_written_are_not_ready(home, monkeypatch):
    monkeypatch.setattr("choral.service.http.probes._FRESH", -1.0)
    monkeypatch.setattr("choral.service.state.sqlite._LEAST_FREE", 1 << 62)
    found = await ask(home, "/readyz")
    assert found.status_code == 503
    assert "nothing can be saved: less than" in found.json()["reasons"][0]
    monkeypatch.undo()

    def locked() -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("choral.service.http.probes._FRESH", -1.0)
    monkeypatch.setattr(home.store, "writable", locked)
    assert (await ask(home, "/readyz")).json()["reasons"] == ["nothing can be saved: database is locked"]


async def test_a_key_of_another_federation_is_not_ready(home, monkeypatch):
    other = Identity.generate(os.urandom)
    monkeypatch.setattr("choral.service.http.probes._FRESH", -1.0)
    object.__setattr__(home.aggregator, "identity", other)
    assert "not the federation's" in (await ask(home, "/readyz")).json()["reasons"][0]


# ----- settings -------------------------------------------------------------------------------


def test_a_token_that_is_short_or_missing_is_refused_and_never_shown(tmp_path, monkeypatch):
    url = "http://127.0.0.1:8750"
    with pytest.raises(ParameterError, match="at least 16"):
        load(tmp_path, url, dashboard="token")
    monkeypatch.setenv("CHORAL_DASHBOARD_TOKEN", "tell-nobody")
    monkeypatch.setenv("CHORAL_DASHBOARD", "token")
    with pytest.raises(ParameterError) as refused:
        load(tmp_path, url)
    assert "tell-nobody" not in str(refused.value)
    monkeypatch.setenv("CHORAL_DASHBOARD_TOKEN", "tell-nobody-of-this-one")
    found = load(tmp_path, url)
    assert "tell-nobody" not in repr(found)


# ----- deploy/monitoring ----------------------------------------------------------------------


async def names(home: House) -> set[str]:
    await one_round(home, 1, 2, 3)
    text = (await ask(home, "/metrics")).text
    return set(re.findall(r"^# TYPE (\S+)", text, re.M)) | {"choral_certificate_expiry_timestamp_seconds"}


def used(text: str) -> set[str]:
    found = set(re.findall(r"\b(?:choral|process)_[a-z_]+\b", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


async def test_the_dashboard_for_grafana_shows_figures_that_exist(home):
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    asked = used(" ".join(t["expr"] for panel in board["panels"] for t in panel["targets"]))
    assert len(asked) >= 12
    there = await names(home)
    missing = {name for name in asked if name not in there and name.removesuffix("_total") not in there}
    assert not missing
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


async def test_there_are_six_alert_rules_over_figures_that_exist(home):
    text = (MONITORING / "alerts.yml").read_text()
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) == 6
    for rule in rules:
        assert rule["alert"].startswith("Choral")
        assert {"summary", "description"} <= rule["annotations"].keys()
        assert rule["labels"]["severity"] in ("warning", "critical")
    there = await names(home)
    asked = used(" ".join(rule["expr"] for rule in rules))
    assert not {name for name in asked if name not in there and name.removesuffix("_total") not in there}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_alerts_fire_when_they_should():
    test = Path(__file__).parent / "alerts_test.yml"
    done = subprocess.run(
        ["promtool", "test", "rules", str(test)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
