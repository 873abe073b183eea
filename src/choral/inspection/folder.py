"""What `choral doctor` looks at on this machine: folder, modes, key, floors, state, shard."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from urllib.parse import quote

from choral import __version__
from choral.client.journal import FILE as JOURNAL
from choral.data import load_shard
from choral.errors import ChoralError
from choral.federation.enrolment import AGGREGATOR, Federation, Participant
from choral.federation.task import Task
from choral.inspection.finding import Finding, Findings
from choral.inspection.reachability import asked, reach
from choral.service.state.sqlite import FILE as STORE

_WHOLE = "get the whole folder anew from whoever ran `choral init`"
_LOST = (
    "is the disk well? docs/operating.md, State and backup, says what a member without a journal has to know"
)
_LEAST_FREE = 64 << 20


def examine(folder: Path, url: str | None, data: Path | None, state: Path | None) -> Findings:
    """All checks of a participant's folder, one after the other; what cannot be looked at is left out."""
    yield from _python()
    yield from _files(folder)
    try:
        me = Participant.load(folder)
    except ChoralError as error:
        yield Finding("key and enrolment", "fail", error.reason, error.hint or _WHOLE)
        yield from _toml(folder)
        return
    yield Finding("key and enrolment", "ok", f"this is {me.name}, enrolled in {me.federation.name!r}")
    yield from _floors(me)
    yield from _state(me, state or folder / "state")
    yield from _shard(me, data)
    url = url or me.federation.aggregator.url
    reached = False
    for finding in reach(me, url):
        reached = reached or (finding.what == "reachability" and finding.how == "ok")
        yield finding
    if reached:
        yield from asked(me, url)


def _python() -> Findings:
    say = f"Choral {__version__}, Python {sys.version.split()[0]}, " + ", ".join(
        f"{name} {installed(name)}" for name in ("cryptography", "numpy")
    )
    yield Finding("versions", "ok", say)


def _files(folder: Path) -> Findings:
    if not folder.is_dir():
        yield Finding(
            "folder", "fail", f"{folder} is no folder", "`choral init` makes one for each participant"
        )
        return
    missing = [
        name for name in ("identity.pem", "federation.toml", "task.toml") if not (folder / name).exists()
    ]
    if missing:
        yield Finding(
            "folder",
            "fail",
            f"{folder} lacks {', '.join(missing)}",
            _WHOLE,
        )
    else:
        yield Finding("folder", "ok", f"{folder} has key, federation and task")
    if not hasattr(os, "getuid"):
        return
    key = folder / "identity.pem"
    if key.exists():
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & 0o007:
            yield Finding(
                "file modes", "fail", f"every user can read {key} (mode {mode:o})", f"chmod 600 {key}"
            )
        elif mode & 0o070:
            yield Finding(
                "file modes",
                "warn",
                f"its group can read {key} (mode {mode:o})",
                f"chmod 600 {key}, unless a container needs the group",
            )
    others = [
        name
        for name in ("federation.toml", "task.toml", "ca.pem")
        if (folder / name).exists() and (folder / name).stat().st_mode & 0o022
    ]
    if others:
        names = ", ".join(others)
        yield Finding(
            "file modes", "warn", f"others may write {names}",
            f"chmod go-w: whoever changes them chooses whom this participant trusts ({names})",
        )  # fmt: skip
    elif key.exists() and not stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield Finding("file modes", "ok", "the key is its owner's only, nobody else writes the rest")


def _toml(folder: Path) -> Findings:
    loads: tuple[tuple[str, Callable[[Path], object]], ...] = (
        ("federation.toml", Federation.load), ("task.toml", Task.load),
    )  # fmt: skip
    for name, load in loads:
        try:
            load(folder / name)
        except ChoralError as error:
            yield Finding(name, "fail", error.reason, error.hint or _WHOLE)


def _floors(me: Participant) -> Findings:
    task, frame = me.task, me.parameters
    n = min(task.largest_cohort, len(me.federation.members))
    bound = task.plan.error_bound(n, n * task.weight_cap)
    say = (
        f"task {task.digest.hex()[:12]}, {task.dimension} parameters, {task.rounds} rounds; a full cohort of"
        f" {n}: t = {frame.threshold(n)}, c = {frame.colluders(n)}, error of a mean at most {bound:.1e}"
    )
    if me.federation.warning:
        yield Finding("task and floors", "warn", say, me.federation.warning)
    elif bound > 1e-4:
        yield Finding(
            "task and floors", "warn", say, "that is coarse: a smaller clip or cohort in the next federation"
        )
    else:
        yield Finding("task and floors", "ok", say)


def _state(me: Participant, state: Path) -> Findings:
    at = next(place for place in (state, *state.absolute().parents) if place.exists())
    if not os.access(at, os.W_OK):
        yield Finding(
            "state",
            "fail",
            f"{at} cannot be written",
            "this user must be able to write there: it holds what must not be forgotten",
        )
        return
    try:
        disk = os.statvfs(at)
        free = disk.f_bavail * disk.f_frsize
    except (OSError, AttributeError):
        free = _LEAST_FREE
    if free < _LEAST_FREE:
        yield Finding(
            "state", "warn", f"{free >> 20} MiB are free at {at}", "make room: a full disk stops rounds"
        )
        return
    aggregator = me.name == AGGREGATOR
    file = state / (STORE if aggregator else JOURNAL)
    if not file.exists():
        yield Finding("state", "ok", f"{state} is made at the first start")
        return
    try:
        db = sqlite3.connect(f"file:{quote(os.fsencode(file))}?mode=ro", uri=True, timeout=0.2)
        try:
            good = db.execute("pragma quick_check").fetchone()[0] == "ok"
        finally:
            db.close()
    except sqlite3.Error as error:
        if "locked" in str(error):
            yield Finding("state", "ok", f"{file} is in use: this participant is running")
        else:
            yield Finding(
                "state",
                "fail",
                f"{file}: {error}",
                "restore it from the newest backup" if aggregator else _LOST,
            )
        return
    if good:
        yield Finding("state", "ok", f"{file} is whole")
    else:
        yield Finding(
            "state",
            "fail",
            f"{file} is damaged",
            "restore it from the newest backup" if aggregator else _LOST,
        )


def _shard(me: Participant, data: Path | None) -> Findings:
    if me.name == AGGREGATOR:
        return
    if data is None:
        yield Finding("shard", "warn", "not looked at", "--data FILE names it")
        return
    task = me.task
    try:
        shard = load_shard(data, features=task.model.features, classes=task.model.classes)
    except ChoralError as error:
        yield Finding("shard", "fail", error.reason, error.hint or "docs/data.md says what a shard is")
        return
    training = len(shard) - int(len(shard) * task.holdout)
    labels = len(shard.describe().labels)
    say = f"{len(shard)} examples of {labels} labels fit the task; {training} of them train"
    if training < 1:
        yield Finding("shard", "fail", say, "more examples, or a smaller holdout in the next federation")
    elif training > task.weight_cap:
        yield Finding("shard", "warn", say, f"they count as {task.weight_cap}, the weight cap")
    else:
        yield Finding("shard", "ok", say)
