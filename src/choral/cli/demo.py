"""`choral demo`: a whole federation on this machine, with real processes, in under a minute."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import httpx

from choral.cli.data import examples_of, write_shards
from choral.cli.demo_report import Story, baselines, sums_are_exact, tell
from choral.cli.recipe import for_task, recipe, trainer_of
from choral.cli.stage import Stage
from choral.cli.terminal import console, errors, percent, size
from choral.data import load_shard
from choral.errors import ChoralError, ParameterError
from choral.federation.enrolment import Participant
from choral.founding import found
from choral.learning import model_file
from choral.protocol.rounds import LABELS
from choral.service.state.sqlite import Store

HOLDOUT = 0.1  # of a member's images, which are few
_STUCK_SECONDS = 60.0


@click.command(epilog="Example:  choral demo --members 5 --split label --seed 1")
@click.option("--members", default=5, show_default=True, type=click.IntRange(2, 50))
@click.option("--split", default="label", show_default=True, help="iid, label, dirichlet:A or shards:K.")
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits (real), synthetic, or npy:DIR of your own shards.",
)
@recipe
@click.option(
    "--kill/--no-kill", default=True, show_default=True, help="Kill a member in the middle of a round."
)
@click.option(
    "--sealing",
    default="aes-gcm",
    show_default=True,
    type=click.Choice(["aes-gcm", "syft"]),
    help="How shares travel; syft is PySyft's encryption, around the masked vectors too.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Keep everything in this new folder."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line of standard output.")
def demo(
    members: int,
    rounds: int,
    split: str,
    data: str,
    kill: bool,
    sealing: str,
    seed: int,
    out: Path | None,
    as_json: bool,
    **learning: Any,
) -> None:
    """A real aggregator and real members on this machine, real digits, secure aggregation.

    Makes keys and shards in a temporary folder, starts one process for the aggregator and one for
    each member, trains, kills a member with SIGKILL in the middle of a round and starts it again.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        if out is None:
            folder = Path(tempfile.mkdtemp(prefix="choral-demo-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = out
            if folder.exists() and any(folder.iterdir()):
                raise ParameterError(f"{folder} is not empty", hint="give --out a new folder")
        shards, held_out = _shards(folder / "shards", data, members, split, seed)
        story = _provision(folder, shards, held_out, learning, rounds, seed, sealing)
        if kill and len(shards) < 4:
            errors.print("[yellow]nobody is killed:[/] with fewer than 4 members a round needs all of them")
            kill = False
        stage = stack.enter_context(Stage(folder / "logs"))
        _play(story, stage, folder, shards, rounds, kill=kill)
        with console.status("checking every sum, and training alone and pooled to compare"):
            exact = sums_are_exact(folder / "witness", story)
            alone, pooled = baselines(story, shards, rounds, seed)
    seconds = time.monotonic() - began
    tell(
        story, folder, shards, alone=alone, pooled=pooled, exact=exact, kept=out is not None, seconds=seconds
    )
    if as_json:
        click.echo(
            json.dumps(
                {
                    "rounds": len(story.rounds),
                    "accuracy": story.accuracy,
                    "accuracy_alone": alone,
                    "accuracy_pooled": pooled,
                    "survivors": [sorted(row["details"]["survivors"]) for row in story.rounds],
                    "dropped": [sorted(row["details"]["dropped"]) for row in story.rounds],
                    "absent": [
                        sorted(set(story.names) - set(row["details"]["roster"])) for row in story.rounds
                    ],
                    "killed": story.killed,
                    "sum_exact": exact["all"],
                    "bytes_up_per_member": exact["bytes_up"],
                    "seconds": round(seconds, 3),
                    "model_digest": story.digest,
                    "seed": seed,
                    "sealing": sealing,
                }
            )
        )
    if not exact["all"]:
        raise ChoralError("a sum was not that of its survivors' updates: this must never happen")


# ----- setting the stage ----------------------------------------------------------------------


def _shards(folder: Path, data: str, members: int, split: str, seed: int) -> tuple[list[Path], Path]:
    if not data.startswith("npy:"):
        X, y = examples_of(data, 3000, seed)
        paths = write_shards(folder, X, y, members=members, split=split, test=0.2, seed=seed)
        return paths, folder / "test_data.npy"
    own = Path(data.removeprefix("npy:"))
    paths = sorted(own.glob("client_*_data.npy"), key=lambda path: (len(path.name), path.name))
    if len(paths) < 2:
        raise ParameterError(
            f"{own} holds {len(paths)} files named client_*_data.npy, expected at least 2",
            hint="save_shard() writes such files; `choral data split` makes them from one",
        )
    if not (own / "test_data.npy").exists():
        raise ParameterError(
            f"{own} has no test_data.npy to measure on", hint="`choral data split` makes one"
        )
    return paths, own / "test_data.npy"


def _provision(
    folder: Path,
    shards: list[Path],
    held_out: Path,
    learning: dict[str, Any],
    rounds: int,
    seed: int,
    sealing: str,
) -> Story:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = [f"member-{i}" for i in range(1, len(shards) + 1)]
    found(
        folder / "fed",
        names,
        shards=shards,
        **for_task(learning),
        rounds=rounds,
        holdout=HOLDOUT,
        url=f"http://127.0.0.1:{port}",
        seed=seed,
        sealing=sealing,
    )
    task = Participant.load(folder / "fed" / "aggregator").task
    trainer = trainer_of(learning, task.model.features, task.model.classes)
    test = load_shard(held_out, features=task.model.features, classes=task.model.classes).arrays()
    console.print(
        f"[bold]{len(names)} members[/], {task.dimension} parameters, keys and shards made. They hold:"
    )
    for name, path in zip(names, shards, strict=True):
        labels = load_shard(path).describe().labels
        console.print(f"  {name}: {sum(labels.values())} images of {', '.join(map(str, labels))}")
    own = ("--model", learning["model"]) if task.model.name == "custom" else ()
    return Story(names, trainer, test, own_model=own)


# ----- the play -------------------------------------------------------------------------------


def _play(story: Story, stage: Stage, folder: Path, shards: list[Path], rounds: int, *, kill: bool) -> None:
    fed, witness = folder / "fed", folder / "witness"

    def start(name: str) -> None:
        shard = shards[story.names.index(name)]
        stage.start(name, "join", fed / name, "--data", shard, "--witness", witness, "--json",
                    *story.own_model)  # fmt: skip

    # the pace lets a person see the rounds; patience with slow starts keeps a run repeatable
    knobs = {"--pace-seconds": 0.3, "--startup-seconds": 60, "--gone-seconds": 1 if kill else 20}
    stage.start(
        "aggregator", "serve", fed / "aggregator", "--witness", witness,
        *(str(part) for knob in knobs.items() for part in knob),
    )  # fmt: skip
    for name in story.names:
        start(name)
    url = Participant.load(fed / "aggregator").federation.aggregator.url
    victim = story.names[len(story.names) // 2]
    heard = time.monotonic()
    with httpx.Client(base_url=url, timeout=5) as http, console.status("starting processes") as spinner:
        _wait_until_up(http, stage)
        store = Store(fed / "aggregator" / "state", read_only=True)
        while len(story.rounds) < rounds:
            stage.check()
            status = http.get("/v1/status").json()
            spinner.update(_now(status, story.names))
            if status["version"] > len(story.rounds):
                heard = time.monotonic()
                _new_versions(story, http, store)
            elif time.monotonic() - heard > _STUCK_SECONDS:
                raise ChoralError(f"no new version for {_STUCK_SECONDS:.0f} s", hint=f"see {folder / 'logs'}")
            hunting = kill and story.killed is None and len(story.rounds) >= kill_after(rounds)
            if hunting and _kill_in_the_middle(story, stage, http, victim, status):
                now = f"phase {story.killed_in} of round {len(story.rounds) + 1}"
                console.print(f"[red]SIGKILL[/] to {victim}, in {now}")
            if story.killed and story.came_back is None and _is_missed(story):
                start(victim)
                story.came_back = len(story.rounds)
                console.print(f"[green]{victim} is started again[/]")
            time.sleep(0.002 if hunting else 0.03)
        store.close()


def kill_after(rounds: int) -> int:
    """After how many of them the victim is killed: early, so that its digits are learned again by the end.

    Not in the first round either: it should have been in the model before.
    """
    return max(1, rounds // 4 - 2)


def _is_missed(story: Story) -> bool:
    """Whether a round has ended without the victim. To start again takes it a few rounds more."""
    return any(story.killed not in row["details"]["survivors"] for row in story.rounds)


def _wait_until_up(http: httpx.Client, stage: Stage) -> None:
    until = time.monotonic() + _STUCK_SECONDS
    while time.monotonic() < until:
        stage.check()
        try:
            http.get("/livez").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    raise ChoralError(f"the aggregator did not come up within {_STUCK_SECONDS:.0f} s")


def _kill_in_the_middle(
    story: Story, stage: Stage, http: httpx.Client, victim: str, status: dict[str, Any]
) -> bool:
    """Hold the victim still when it owes the open phase a message; if it still does then, kill it."""
    if not _owes(status, victim):
        return False
    stage.signal(victim, signal.SIGSTOP)
    phase = _owes(http.get("/v1/status").json(), victim)
    if phase is None:
        stage.signal(victim, signal.SIGCONT)
        return False
    stage.kill(victim)
    story.killed, story.killed_in = victim, phase
    return True


def _owes(status: dict[str, Any], victim: str) -> str | None:
    for cohort in status["cohorts"]:
        phase = cohort["phase"]
        if (
            phase in ("share", "mask")
            and victim in cohort["in"]["advertise"]
            and victim not in cohort["in"][phase]
        ):
            return str(phase)
    return None


def _now(status: dict[str, Any], names: list[str]) -> str:
    """The running round in a line: a place for every member, filled when its message is in."""
    if not status["cohorts"]:
        return f"version {status['version']}: members are training"
    cohort = status["cohorts"][0]
    got = set(cohort["in"][cohort["phase"]])
    marks = " ".join(f"{name}{'[green]●[/]' if name in got else '[dim]○[/]'}" for name in names)
    return f"round {status['version'] + 1}, {cohort['phase']:<11} {marks}"


def _new_versions(story: Story, http: httpx.Client, store: Store) -> None:
    done = {row["details"]["version"]: row for row in http.get("/v1/rounds").json() if row["state"] == "done"}
    for record in store.records(len(story.rounds)):
        row = done.get(record.version)
        if row is None:
            return
        data = store.blob(record.parameters)
        assert data is not None  # noqa: S101  (stored in one transaction with its record)
        measured = story.trainer.evaluate(model_file.decode(data), *story.test)
        story.rounds.append(row)
        story.accuracy.append(measured.accuracy)
        story.digest = record.parameters.hex()
        details = row["details"]
        marks = "".join(
            "[green]●[/]"
            if name in details["survivors"]
            else "[red]✗[/]"
            if name in details["dropped"]
            else "[dim]·[/]"
            for name in story.names
        )
        lost = "".join(f", {name} dropped in {phase}" for name, phase in details["dropped"].items())
        took = sum(details["seconds"].get(name, 0.0) for name in (*LABELS[1:], "sum"))
        sent = size(details["bytes_in"])
        console.print(
            f"round {record.version:>3}  {marks}  {len(details['survivors'])} in the sum"
            f"  accuracy [bold]{percent(measured.accuracy):>6}[/]  {sent:>8} up  {took:.3f} s{lost}"
        )


COMMANDS = (demo,)
