"""docker compose and podman kube play, for real: training, killed and cut-off containers, a stranger.

Takes some minutes and an engine, so it asks for both: CHORAL_CONTAINERS=1, and Docker with Compose v2.
For `podman kube play` a podman of 4.4 or newer; PODMAN is the command if it is another one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PODMAN = shlex.split(os.environ.get("PODMAN", "podman"))
CUT = 60.0  # seconds without a network


def answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def missing() -> str | None:
    if not os.environ.get("CHORAL_CONTAINERS"):
        return "CHORAL_CONTAINERS is not set: containers take minutes"
    if not answers("docker", "info"):
        return "no Docker engine answers"
    if not answers("docker", "compose", "version"):
        return "this Docker has no Compose v2"
    return None


REASON = missing()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


class Compose:
    """One copy of the repository, as after a fresh clone, and its own Compose project."""

    def __init__(self, folder: Path, **environment: object) -> None:
        self.folder = folder
        self.name = f"choral-test-{uuid.uuid4().hex[:8]}"
        self.environment = {
            **os.environ, "COMPOSE_PROJECT_NAME": self.name, "CHORAL_IMAGE": "choral-test",
            "PUBLISH": "127.0.0.1:0",
            **{key: str(value) for key, value in environment.items()},
        }  # fmt: skip
        built_from = "Dockerfile .dockerignore requirements.lock pyproject.toml README.md LICENSE"
        for part in ("docker-compose.yml", *built_from.split()):
            shutil.copy2(ROOT / part, folder / part)
        for part in ("src", "deploy", "examples", "locks"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))

    def __call__(self, *arguments: str, timeout: float = 300, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", "compose", *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done.stdout + ("" if check else done.stderr)

    def terminal(self, *services: str) -> subprocess.Popen[str]:
        """`docker compose up --build` in a terminal of its own; what it shows is in SERVICE.log."""
        with (self.folder / f"{services[0]}.log").open("w") as log:
            return subprocess.Popen(
                ["docker", "compose", "up", "--build", *services], cwd=self.folder, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip

    def said(self, service: str) -> str:
        """What a member has reported so far."""
        return self("logs", "--no-color", "--no-log-prefix", service)

    def container(self, service: str) -> str:
        return self("ps", "-a", "-q", service).strip()

    def status(self) -> dict:
        return json.loads(self("exec", "-T", "aggregator", "choral", "status", "/etc/choral", "--json"))

    def goes_on(self, seconds: float = 60) -> None:
        """The model moves by two versions from here."""
        before = self.status()["version"]
        until(lambda: self.status()["version"] >= before + 2, seconds, lambda: self("logs", "--tail", "30"))

    def down(self) -> None:
        self("--profile", "*", "down", "-v", "-t", "2", check=False)


def until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str] = str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.3)


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def accuracies(said: str) -> list[float]:
    """Of the federation as a whole, from a member's lines."""
    return [float(found) for found in re.findall(r"version \d+ was ([\d.]+)% right on held-out data", said)]


# ----- the two commands -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Compose]:
    """Two terminals, opened at once, until training is over."""
    compose = Compose(tmp_path_factory.mktemp("clone"), ROUNDS=8, PACE=1)
    try:
        terminals = [compose.terminal("client1"), compose.terminal("client2")]
        for process in terminals:
            assert process.wait(420) == 0, (compose.folder / "client1.log").read_text()[-3000:]
        yield compose
    finally:
        compose.down()


def test_two_terminals_show_their_members_and_reach_the_accuracy(trained) -> None:
    for member in ("client1", "client2"):
        said = (trained.folder / f"{member}.log").read_text()
        assert "Nothing is private between them" in said
        assert "training is over at version 8" in said
        assert accuracies(said)[-1] > 95
        other = "client2" if member == "client1" else "client1"
        assert f"{other}-1  |" not in said


def test_the_aggregator_serves_on_under_tls_at_the_published_port(trained) -> None:
    port = trained("port", "aggregator", "8750").strip().rpartition(":")[2]
    ca = trained("exec", "-T", "aggregator", "cat", "/etc/choral/ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    assert httpx.get(f"https://localhost:{port}/livez", verify=context).json() == {"status": "alive"}
    token = trained("exec", "-T", "aggregator", "cat", "/etc/choral/choral_dashboard_token").strip()
    assert len(token) >= 16
    assert httpx.get(f"https://localhost:{port}/", verify=context, follow_redirects=True).status_code < 500
    found = trained(
        "exec", "-T", "aggregator", "choral", "predict", "/etc/choral", "--state", "/var/lib/choral",
        "--data", "/etc/choral/test_data.npy", "--json",
    )  # fmt: skip
    assert json.loads(found)["accuracy"] > 0.95


def test_a_container_has_its_own_key_and_shard_and_nothing_else(trained) -> None:
    for i in (1, 2):
        (found,) = json.loads(docker("inspect", trained.container(f"client{i}")))
        volumes = {
            mount["Name"].removeprefix(f"{trained.name}_")
            for mount in found["Mounts"]
            if mount["Type"] == "volume"
        }
        assert volumes == {f"client{i}", f"client{i}-state", f"shard{i}"}
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] > 0
        assert found["Config"]["User"] == "10001:10001"


def test_the_image_is_small_and_carries_no_compiler_and_no_key(trained) -> None:
    (image,) = json.loads(docker("image", "inspect", "choral-test"))
    assert image["Size"] < 250e6
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Healthcheck"]["Test"][1:] == ["python", "-m", "choral.ping"]
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "choral"
    look = (
        "import pathlib, shutil; assert not any(map(shutil.which, ('gcc', 'cc', 'make', 'git')));"
        "assert not list(pathlib.Path('/opt').glob('**/*.key'));"
        "print(len(list(pathlib.Path('/etc/choral').iterdir())))"
    )
    assert (
        docker("run", "--rm", "--read-only", "--entrypoint", "python", "choral-test", "-c", look).strip()
        == "0"
    )


# ----- what happens on the way ----------------------------------------------------------------


# The smallest cohort is three, so four is the smallest federation that can lose one and go on.
MEMBERS = ("client1", "client2", "client3", "client4")
PROXY = "http://192.0.2.1:3128"  # RFC 5737: nobody is there


@pytest.fixture(scope="module")
def running(tmp_path_factory, trained) -> Iterator[Compose]:
    """A federation of four that goes on for long, under a Docker that gives a proxy to every container."""
    compose = Compose(tmp_path_factory.mktemp("long"), ROUNDS=5000, PACE=0.5, COMPOSE_PROFILES=4)
    proxied = {
        "environment": dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), PROXY)
    }
    (compose.folder / "docker-compose.override.yml").write_text(
        json.dumps({"services": dict.fromkeys(("aggregator", *MEMBERS), proxied)})
    )
    try:
        compose("up", "-d")
        compose.goes_on(120)
        yield compose
    finally:
        compose.down()


def test_a_proxy_in_dockers_settings_is_not_in_the_way(running) -> None:
    assert PROXY in running("exec", "-T", "client1", "env")
    running.goes_on()
    assert "cannot be reached" not in running.said("client1")


def test_a_member_says_for_whom_it_waits_and_goes_on_when_they_are_back(running) -> None:
    running("stop", "client2", "client3")
    assert "stopped" in running.said("client2")
    assert "Traceback" not in running.said("client2")
    until(lambda: "(not connected): 2 of at least 3" in running.said("client1"), 60)
    running("start", "client2", "client3")
    running.goes_on()


def test_a_member_killed_in_the_middle_of_a_round_costs_the_others_nothing(running) -> None:
    victim = running.container("client2")

    def amid() -> bool:
        """Whether a round that has begun waits for client2, which is frozen."""
        docker("pause", victim)
        time.sleep(1)
        for cohort in running.status()["cohorts"]:
            if cohort["phase"] != "advertise" and cohort["awaited"] == ["client2"]:
                return True
        docker("unpause", victim)
        return False

    until(amid, 60)
    docker("kill", "-s", "KILL", victim)
    running.goes_on()  # without it
    last = running.status()["survivors"]
    assert len(last) == 3
    assert "client2" not in last
    running("start", "client2")
    until(lambda: len(running.status()["survivors"]) == 4, 60)
    verified(running)


def test_a_signal_in_the_first_second_ends_a_container_at_once(running) -> None:
    for service in ("aggregator", "client2"):
        container = running.container(service)
        docker("kill", "-s", "KILL", container)
        docker("start", container)
        began = time.monotonic()
        docker("stop", "-t", "40", container)
        assert time.monotonic() - began < 15
        docker("start", container)
    running.goes_on(90)


def test_a_member_cut_off_for_a_minute_comes_back_by_itself(running) -> None:
    network, member = f"{running.name}_default", running.container("client2")
    docker("network", "disconnect", network, member)
    until(lambda: running.status()["members"]["client2"]["connected"] is False, 40)
    stood = running.status()["version"]
    time.sleep(CUT)
    assert running.status()["version"] > stood + 2  # the others went on
    assert "client2" not in running.status()["survivors"]
    docker("network", "connect", network, member)
    until(lambda: "client2" in running.status()["survivors"], 90)
    (found,) = json.loads(docker("inspect", member))
    assert found["State"]["Running"]
    assert found["RestartCount"] == 0


def test_the_aggregator_killed_and_started_again_goes_on_from_its_volume(running) -> None:
    before = running.status()["version"]
    docker("kill", "-s", "KILL", running.container("aggregator"))
    time.sleep(3)
    running("start", "aggregator")
    until(
        lambda: answers("docker", "exec", running.container("aggregator"), "python", "-m", "choral.ping"), 60
    )
    assert running.status()["version"] >= before
    running.goes_on(90)
    verified(running)


def verified(running: Compose) -> None:
    said = running("exec", "-T", "aggregator", "choral", "log", "/etc/choral", "--state", "/var/lib/choral")
    assert "every signature and link verified" in said


STRANGER = """
import os, pathlib, shutil, tomllib
from choral.federation import key_file
from choral.primitives.identity import Identity
folder = pathlib.Path('/tmp/stranger')
shutil.copytree('/etc/choral', folder, ignore=shutil.ignore_patterns('identity.pem'))
mine = Identity.generate(os.urandom)
key_file.save(mine, folder / 'identity.pem')
text = (folder / 'federation.toml').read_text()
pinned = tomllib.loads(text)['members']['client1']
(folder / 'federation.toml').write_text(text.replace(pinned, mine.public.hex()))
data, state = '/data/client_1_data.npy', '/tmp/state'
os.execvp('choral', ['choral', 'join', str(folder), '--data', data, '--state', state, '--patience', '5'])
"""


def test_a_stranger_with_a_key_that_is_not_enrolled_is_turned_away(running) -> None:
    before = running.status()["version"]
    # everything of client1 but its key
    said = docker(
        "run", "--rm", "--network", f"{running.name}_default", "-v", f"{running.name}_client1:/etc/choral:ro",
        "-v", f"{running.name}_shard1:/data:ro", "--entrypoint", "python", "choral-test", "-c", STRANGER,
        check=False,
    )  # fmt: skip
    assert "is not signed by the pinned key of client1" in said
    assert "version 0" not in said
    running.goes_on()
    assert running.status()["version"] > before


def test_a_change_of_client1_and_of_its_data_takes_effect(running) -> None:
    script = running.folder / "examples/digits/client1.py"
    script.write_text(script.read_text().replace("shards/", "").replace("CHORAL_DATA", "NOWHERE").replace(
        "client_1_data.npy", "/examples/mine.npy"))  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "choral", "data", "split", running.folder / "mine", "--data", "synthetic",
         "--members", "1", "--count", "100", "--test", "0"],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.copy(running.folder / "mine/client_1_data.npy", script.parent / "mine.npy")
    running("restart", "client1")
    until(lambda: "trained on 80 examples" in running.said("client1"), 60, lambda: running.said("client1"))
    running.goes_on()


def test_asking_for_other_members_or_another_task_stops_nothing_that_runs(running) -> None:
    version = running.status()["version"]
    running.environment |= {"COMPOSE_PROFILES": "5", "ROUNDS": "30"}
    try:
        running("up", "-d")
        assert "this federation has 4 members, COMPOSE_PROFILES=5 was asked for" in running.said("provision")
        assert "task is fixed: ROUNDS=5000" in running.said("provision")
        until(lambda: "client5 is no member: this federation was made for 4" in running.said("client5"), 30)
        until(lambda: "exited" in running("ps", "-a", "--format", "{{.State}}", "client5"), 20)
    finally:
        running.environment |= {"COMPOSE_PROFILES": "4", "ROUNDS": "5000"}
    # (a Compose before 2.30 makes what depends on `provision` anew: the round ends first, and it goes on)
    assert running.status()["version"] >= version
    running.goes_on(90)
    verified(running)


def test_a_member_whose_data_are_no_shard_says_so_once_and_is_not_started_again(running) -> None:
    script = running.folder / "examples/digits/client2.py"
    whole = script.read_text()
    script.write_text(
        whole.replace('os.environ.get("CHORAL_DATA", "shards/client_2_data.npy")', '"/examples/client1.py"')
    )
    try:
        running("restart", "client2")
        until(lambda: "not started again" in running.said("client2"), 60, lambda: running.said("client2"))
        time.sleep(3)
        said = running.said("client2")
        assert said.count("not started again") == 1
        assert "Traceback" not in said
        (found,) = json.loads(docker("inspect", running.container("client2")))
        assert not found["State"]["Running"]
    finally:
        script.write_text(whole)
        running("restart", "client2")
    running.goes_on()


# ----- what a volume may be -------------------------------------------------------------------


SMALL = 48  # MiB
FILL = f"import os; open('/var/lib/choral/ballast', 'wb').write(bytes({SMALL} << 20))"


@pytest.fixture(scope="module")
def small(tmp_path_factory, trained) -> Iterator[Compose]:
    """A federation of two whose aggregator has little room for its state."""
    compose = Compose(tmp_path_factory.mktemp("small"), ROUNDS=5000, PACE=0.5)
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={SMALL}m,uid=10001"}
    (compose.folder / "docker-compose.override.yml").write_text(
        json.dumps({"volumes": {"aggregator-state": {"driver": "local", "driver_opts": options}}})
    )
    try:
        compose("up", "-d")
        compose.goes_on(120)
        yield compose
    finally:
        compose.down()


def test_a_full_disk_is_told_waited_for_and_over_when_there_is_room(small) -> None:
    small("exec", "-T", "aggregator", "python", "-c", FILL, check=False)
    until(lambda: "nothing can be saved" in small.said("aggregator"), 30, lambda: small("logs"))
    stood = small.status()["version"]
    lines = len(small.said("aggregator").splitlines())
    time.sleep(12)
    said = small.said("aggregator")
    assert small.status()["version"] == stood
    assert len(said.splitlines()) - lines < 15  # no hot loop
    assert "Traceback" not in said
    assert "cannot save" in small.said("client1")
    assert "OperationalError" not in small.said("client1") + said
    look = ["exec", "-T", "aggregator", "python", "-m", "choral.ping"]
    assert "cannot save" in small(*look, check=False) + small(*look, "--live", check=False) + said
    small("exec", "-T", "aggregator", "rm", "/var/lib/choral/ballast")
    small.goes_on(90)
    assert "can be saved again" in small.said("aggregator")


def test_the_state_of_another_federation_is_named_at_both_ends(tmp_path, trained) -> None:
    compose = Compose(tmp_path, ROUNDS=3, PACE=0.5)
    try:
        compose("up", "-d")
        until(lambda: "training is over" in compose.said("client2"), 120, lambda: compose("logs"))
        compose("down", "-t", "5")
        kept = ("aggregator-state", "client1-state", "client2-state")
        volumes = docker("volume", "ls", "-q", "--filter", f"name={compose.name}_").split()
        docker("volume", "rm", *[each for each in volumes if not each.endswith(kept)])
        compose("up", "-d", "client1", check=False)
        told = "another federation"
        until(lambda: told in compose.said("aggregator"), 60, lambda: compose("logs"))
        assert "Traceback" not in compose.said("aggregator")
        # the aggregator's state is taken away, the members' is still the old one
        compose("down", "-t", "5")
        docker("volume", "rm", f"{compose.name}_aggregator-state")
        compose("up", "-d", check=False)
        until(lambda: told in compose.said("client1"), 90, lambda: compose("logs"))
        until(lambda: "not started again" in compose.said("client1"), 30, lambda: compose("logs"))
    finally:
        compose.down()


# ----- the manifests of Kubernetes ------------------------------------------------------------


def podman(*arguments: str, given: str = "", check: bool = True) -> str:
    done = subprocess.run(
        [*PODMAN, *arguments], input=given, capture_output=True, text=True, timeout=180, check=False
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def played(tmp_path, trained) -> Iterator[str]:
    """The real manifests and Secrets, run by podman; the name of their network."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if not answers(*PODMAN, "--version"):
        pytest.skip("no podman answers")
    run = [sys.executable, "-m", "choral"]
    subprocess.run(
        [*run, "init", "fed", "--names", "client1,client2", "--features", "784", "--weight-cap", "1080",
         "--rounds", "6", "--option", "epochs=3", "--option", "rate=0.2", "--tls", "--url", "https://aggregator:8750"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    secrets = subprocess.run(
        [*run, "kubernetes", "secrets", "fed"], cwd=tmp_path, check=True, capture_output=True
    )
    save = subprocess.Popen(["docker", "save", "choral-test"], stdout=subprocess.PIPE)
    subprocess.run([*PODMAN, "load", "-q"], stdin=save.stdout, check=True, capture_output=True, timeout=120)
    podman("tag", "choral-test", "choral:latest")
    network = f"choral-{uuid.uuid4().hex[:6]}"
    podman("network", "create", network)
    texts = [
        secrets.stdout.decode(),
        *(path.read_text() for path in (ROOT / "deploy/kubernetes").rglob("*.yml")),
    ]
    found = [document for text in texts for document in yaml.safe_load_all(text) if document]
    shared = [each for each in found if each["kind"] in ("Secret", "ConfigMap", "PersistentVolumeClaim")]
    try:
        podman("kube", "play", "--network", network, "-", given=yaml.safe_dump_all(shared))
        for each in [each for each in found if each["kind"] == "Deployment"]:
            pod = each["spec"]["template"]["spec"]
            # podman knows no fsGroup: its Secrets belong to root's group
            pod["securityContext"]["supplementalGroups"] = [0]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                # podman asks httpGet by the image's curl, and there is none
                if "httpGet" in pod["containers"][0][probe]:
                    asked = {"exec": {"command": ["python", "-m", "choral.ping"]}}
                    pod["containers"][0][probe] = {
                        **pod["containers"][0][probe],
                        **asked,
                        "timeoutSeconds": 10,
                    }
                    del pod["containers"][0][probe]["httpGet"]
            settings = [other for other in shared if other["kind"] == "ConfigMap"]
            alias = f"{network}:alias={each['metadata']['name']}"
            podman("kube", "play", "--network", alias, "-", given=yaml.safe_dump_all([*settings, each]))
        yield network
    finally:
        for name in ("client1", "client2", "aggregator"):
            podman("pod", "rm", "-f", "-t", "1", f"{name}-pod", check=False)
        for each in shared:
            kind = {"Secret": "secret", "PersistentVolumeClaim": "volume"}.get(each["kind"])
            if kind:
                podman(kind, "rm", each["metadata"]["name"], check=False)
        podman("network", "rm", "-f", network, check=False)


def test_the_manifests_reach_the_accuracy_with_real_secrets_and_volumes(played) -> None:
    def said(name: str) -> str:
        return podman("logs", f"{name}-pod-client", check=False)

    until(lambda: "training is over at version 6" in said("client1"), 120, lambda: said("client1"))
    for name in ("client1", "client2"):
        assert accuracies(said(name))[-1] > 95
        assert "alive" in podman("exec", f"{name}-pod-client", "python", "-m", "choral.ping")
        assert podman("exec", f"{name}-pod-client", "ls", "/etc/choral").split() == [
            "ca.pem", "federation.toml", "identity.pem", "task.toml",
        ]  # fmt: skip
    assert "ready" in podman("exec", "aggregator-pod-aggregator", "python", "-m", "choral.ping")
