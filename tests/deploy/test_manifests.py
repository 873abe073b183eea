"""What deploy/kubernetes says, without a cluster: the schemas of current versions, and who mounts what."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; kubernetes-validate brings it")
ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
OVERLAYS = ROOT / "deploy/overlays"
CHART = ROOT / "deploy/helm/choral"
CLIENTS = MANIFESTS / "clients"
EVERY = [*sorted(MANIFESTS.rglob("*.yml")), *sorted(OVERLAYS.rglob("*.yml"))]
HELM = os.environ.get("HELM") or shutil.which("helm")
KUBECTL = os.environ.get("KUBECTL") or shutil.which("kubectl")
VERSIONS = ("1.29", "1.32", "1.37")


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


FILES = [path for path in EVERY if path.name != "service-monitor.yml"]
ALL = [document for path in FILES for document in documents(path)]
DEPLOYMENTS = {document["metadata"]["name"]: document for document in ALL if document["kind"] == "Deployment"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> list[dict]:
    """What `choral kubernetes secrets` makes of a federation's folders."""
    folder = tmp_path_factory.mktemp("secrets")
    run = [sys.executable, "-m", "choral"]
    subprocess.run(
        [*run, "init", "fed", "--names", "client1,client2", "--features", "64", "--weight-cap", "9", "--tls",
         "--url", "https://aggregator:8750"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    made = subprocess.run([*run, "kubernetes", "secrets", "fed"], cwd=folder, check=True, capture_output=True)
    found = [document for document in yaml.safe_load_all(made.stdout) if document]
    for document in found:
        document["folder"] = folder / "fed"
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_for_a_current_kubernetes(version, secrets) -> None:
    check = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate (100 MB of schemas) is not installed"
    )
    for document in [*ALL, *({k: v for k, v in each.items() if k != "folder"} for each in secrets)]:
        check.validate(document, version, strict=True)


def test_kustomizations_name_files_that_are_there_and_leave_none_out() -> None:
    named = set()
    for file in (ROOT / "deploy").rglob("kustomization.yaml"):
        for resource in yaml.safe_load(file.read_text()).get("resources", []):
            path = (file.parent / resource).resolve()
            assert path.exists(), path
            named.add(path)
    assert set(EVERY) <= named


def kustomized(folder: Path) -> list[dict]:
    made = subprocess.run([str(KUBECTL), "kustomize", folder], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(made.stdout))


APPLIED = {
    "kubernetes": 3,
    "overlays/three-clients": 4,
    "overlays/monitoring": 3,
    "overlays/ingress": 3,
    "overlays/backup": 3,
    "overlays/members-only": 2,
}


def test_every_overlay_is_put_together_by_a_test() -> None:
    there = {f"overlays/{path.name}" for path in OVERLAYS.iterdir()}
    assert there | {"kubernetes"} == set(APPLIED)


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
@pytest.mark.parametrize(("folder", "deployments"), APPLIED.items())
def test_kubectl_puts_it_together(folder, deployments) -> None:
    found = kustomized(ROOT / "deploy" / folder)
    assert sum(document["kind"] == "Deployment" for document in found) == deployments
    inside = [document for document in found if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in inside} == {"choral"}


def images(value: object) -> set[str]:
    """Every `image` in a manifest, however deep."""
    if isinstance(value, dict):
        own = {value["image"]} if isinstance(value.get("image"), str) else set()
        return own.union(*map(images, value.values()))
    return set().union(*map(images, value)) if isinstance(value, list) else set()


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", APPLIED)
def test_one_line_changes_the_image_of_every_pod_of_every_overlay(folder, tmp_path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    one = tmp_path / "deploy/kubernetes/image/kustomization.yaml"
    one.write_text(one.read_text().replace("newTag: latest", "newTag: 9.9.9"))
    assert images(kustomized(tmp_path / "deploy" / folder)) == {"choral:9.9.9"}


def test_a_further_member_is_the_first_one_under_another_name() -> None:
    made = subprocess.run([CLIENTS / "client.sh", "client3"], check=True, capture_output=True, text=True)
    assert made.stdout == (OVERLAYS / "three-clients/client3.yml").read_text()
    second = subprocess.run([CLIENTS / "client.sh", "client2"], check=True, capture_output=True, text=True)
    assert second.stdout in (CLIENTS / "client-deployment.yml").read_text()


# ----- the chart ------------------------------------------------------------------------------


def charted(*options: str) -> dict[tuple[str, str], dict]:
    """What `helm template` makes of the chart, by kind and name."""
    run = [str(HELM), "template", "choral", CHART, "-n", "choral", *options]
    made = subprocess.run(run, check=True, capture_output=True, text=True)
    found = [each for each in yaml.safe_load_all(made.stdout) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def bare(found: list[dict]) -> dict[tuple[str, str], dict]:
    """What kubectl would apply, without the namespace, which helm gives otherwise."""
    inside = [each for each in found if each["kind"] != "Namespace"]
    for each in inside:
        del each["metadata"]["namespace"]
    return {(each["kind"], each["metadata"]["name"]): each for each in inside}


needs_both = pytest.mark.skipif(HELM is None or KUBECTL is None, reason="helm or kubectl is not installed")


@needs_both
@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("kubernetes", ()),
        ("overlays/three-clients", ("--set", "members.names={client1,client2,client3}")),
        ("overlays/monitoring", ("--set", "serviceMonitor=true")),
        ("overlays/ingress", ("--set", "ingress.enabled=true,ingress.host=choral.example.org")),
        ("overlays/backup", ("--set", "backup.enabled=true")),
    ],
)
def test_the_chart_gives_what_the_manifests_give(folder, options) -> None:
    assert charted(*options) == bare(kustomized(ROOT / "deploy" / folder))


@needs_both
def test_the_chart_without_an_aggregator_has_members_and_their_network_only() -> None:
    made = charted("--set", "aggregator.enabled=false")
    expected = bare(kustomized(OVERLAYS / "members-only"))
    assert made.pop(("PodDisruptionBudget", "clients"))
    assert made == expected


@pytest.mark.skipif(HELM is None, reason="helm is not installed")
def test_the_chart_refuses_an_ingress_without_a_host() -> None:
    run = [str(HELM), "template", "choral", CHART, "--set", "ingress.enabled=true"]
    refused = subprocess.run(run, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "ingress.host: the name that members use" in refused.stderr


# ----- the nightly copy -----------------------------------------------------------------------


def test_the_nightly_copy_is_whole_while_the_log_is_written_and_old_ones_go(tmp_path) -> None:
    script = next(
        each for each in ALL if each["metadata"]["name"] == "backup" and each["kind"] == "ConfigMap"
    )
    (tmp_path / "backup.py").write_text(script["data"]["backup.py"])
    (state := tmp_path / "state").mkdir()
    (backups := tmp_path / "backups").mkdir()
    for day in range(8):
        (backups / f"aggregator-2020010{day}T000000Z.sqlite").touch()
    with contextlib.closing(sqlite3.connect(state / "aggregator.sqlite")) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table records (version integer primary key)")
        db.execute("insert into records values (41)")
        db.commit()
        db.execute("insert into records values (42)")  # a version that is not committed yet
        run = [sys.executable, tmp_path / "backup.py", state, backups, "3"]
        made = subprocess.run(run, check=True, capture_output=True, text=True)
    assert made.stdout.endswith(": up to version 41\n")
    left = sorted(path.name for path in backups.iterdir())
    assert left[:2] == ["aggregator-20200106T000000Z.sqlite", "aggregator-20200107T000000Z.sqlite"]
    assert left[2] == made.stdout.partition(":")[0]
    assert len(left) == 3


def test_a_secret_holds_one_participants_key_and_nothing_of_the_authority(secrets) -> None:
    assert [each["metadata"]["name"] for each in secrets] == [
        "choral-aggregator", "choral-aggregator-tls", "choral-client1", "choral-client2",
    ]  # fmt: skip
    for each in secrets:
        name = each["metadata"]["name"].removeprefix("choral-")
        if each["type"] == "kubernetes.io/tls":
            assert set(each["data"]) == {"tls.crt", "tls.key"}
            continue
        for file, data in each["data"].items():
            assert base64.b64decode(data) == (each["folder"] / name / file).read_bytes()
    said = str([each["data"] for each in secrets])
    assert base64.b64encode((secrets[0]["folder"] / "ca/ca.key").read_bytes()).decode() not in said


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_pod_mounts_its_own_secret_and_no_other(name) -> None:
    volumes = DEPLOYMENTS[name]["spec"]["template"]["spec"]["volumes"]
    mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    assert mounted == {f"choral-{name}", *(["choral-aggregator-tls"] if name == "aggregator" else [])}


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_pod_has_no_right_that_it_does_not_need(name) -> None:
    spec = DEPLOYMENTS[name]["spec"]
    pod = spec["template"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"]["type"] == "Recreate"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    (main,) = pod["containers"]
    probes = [main[each] for each in ("startupProbe", "livenessProbe", "readinessProbe")]
    # none starts an interpreter: that takes seconds where there is a tenth of a core
    assert not any("python" in json.dumps(probe) for probe in probes)
    assert main["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("name", sorted(set(DEPLOYMENTS) - {"aggregator"}))
def test_a_members_probe_sees_a_heartbeat_and_its_end(name, tmp_path) -> None:
    (main,) = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    shell, flag, look = main["livenessProbe"]["exec"]["command"]
    beat = tmp_path / "heartbeat"

    def well() -> bool:
        mine = look.replace("/var/lib/choral/heartbeat", str(beat))
        return subprocess.run([shell, flag, mine], capture_output=True, check=False).returncode == 0

    assert not well()
    beat.touch()
    assert well()
    stopped = beat.stat().st_mtime - 61
    os.utime(beat, (stopped, stopped))
    assert not well()


@pytest.mark.parametrize("name", sorted(set(DEPLOYMENTS) - {"aggregator"}))
def test_the_way_to_the_aggregator_leads_through_no_proxy(name) -> None:
    (main,) = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in main["env"]}
    assert given["NO_PROXY"] == given["no_proxy"]
    assert "aggregator" in given["NO_PROXY"].split(",")


def test_the_aggregator_gets_longer_to_stop_than_a_phase_takes() -> None:
    settings = next(each for each in ALL if each["kind"] == "ConfigMap")["data"]
    phase = float(settings.get("CHORAL_PHASE_SECONDS", 30))
    spec = DEPLOYMENTS["aggregator"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > phase + 10


def test_the_network_is_closed_but_for_clients_to_the_aggregator_and_figures() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in ALL if each["kind"] == "NetworkPolicy"}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ports = [rule["ports"][0]["port"] for rule in policies["aggregator"]["ingress"]]
    assert ports == [8750, 9100]
    assert "ingress" not in policies["client"]
    to = policies["client"]["egress"]
    assert [{rule["port"] for rule in each["ports"]} for each in to] == [{8750}, {53, 5353}]


def test_no_budget_can_block_a_drain() -> None:
    """One pod that must always be there can never be evicted."""
    budgets = [each["spec"] for each in ALL if each["kind"] == "PodDisruptionBudget"]
    assert [budget.get("maxUnavailable") for budget in budgets] == [1]
