"""What deploy/kubernetes says, without a cluster: the schemas of current versions, and who mounts what."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; kubernetes-validate brings it")
ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
OVERLAYS = ROOT / "deploy/overlays"
EVERY = [*sorted(MANIFESTS.rglob("*.yml")), *sorted(OVERLAYS.rglob("*.yml"))]
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
        for resource in yaml.safe_load(file.read_text())["resources"]:
            path = (file.parent / resource).resolve()
            assert path.exists(), path
            named.add(path)
    assert set(EVERY) <= named


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize(
    ("folder", "deployments"), [("kubernetes", 3), ("overlays/three-clients", 4), ("overlays/monitoring", 3)]
)
def test_kubectl_puts_it_together(folder, deployments) -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", ROOT / "deploy" / folder], check=True, capture_output=True, text=True
    )
    found = list(yaml.safe_load_all(made.stdout))
    assert sum(document["kind"] == "Deployment" for document in found) == deployments
    inside = [document for document in found if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in inside} == {"choral"}


def test_a_further_member_is_the_first_one_under_another_name() -> None:
    made = subprocess.run([MANIFESTS / "client.sh", "client3"], check=True, capture_output=True, text=True)
    assert made.stdout == (OVERLAYS / "three-clients/client3.yml").read_text()
    second = subprocess.run([MANIFESTS / "client.sh", "client2"], check=True, capture_output=True, text=True)
    assert second.stdout in (MANIFESTS / "client-deployment.yml").read_text()


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
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(main)


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
