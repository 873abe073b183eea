"""`choral init`: one folder for each participant, with its own key and no other's (§2)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from choral.errors import ParameterError
from choral.federation.enrolment import AGGREGATOR, Aggregator, Federation
from choral.federation.task import Task, checked
from choral.primitives.entropy import RandomBytes
from choral.primitives.identity import Identity

INITIAL = "initial.safetensors"


def provision(
    root: Path,
    *,
    url: str,
    members: Sequence[str],
    task: Task,
    initial: bytes,
    minimum: int,
    tolerated: int | str,
    random: RandomBytes,
) -> Federation:
    """Make `root` with a folder for the aggregator and one for each member.

    Each folder holds `federation.toml`, `task.toml` and that participant's `identity.pem`; the
    aggregator's also the initial model. Nothing is left behind when it fails.

    Raises:
        ParameterError: the folder exists, or the federation cannot be.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ParameterError(f"{root} exists already", hint="choose another folder: keys are never replaced")
    if len(set(members)) != len(members):
        raise ParameterError("two members have one name")
    # floors that no round could meet are refused before anything is written
    task.parameters(minimum, tolerated if isinstance(tolerated, int) else None)
    identities = {name: Identity.generate(random) for name in (AGGREGATOR, *members)}
    federation = checked(
        Federation,
        {
            "name": task.name,
            "aggregator": Aggregator(url=url, key=identities[AGGREGATOR].public.hex()),
            "members": {name: identities[name].public.hex() for name in members},
            "minimum": minimum,
            "tolerated": tolerated,
        },
        "the federation",
    )
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for name, identity in identities.items():
            folder = building / name
            folder.mkdir(mode=0o700)
            identity.save(folder / "identity.pem")
            federation.save(folder / "federation.toml")
            task.save(folder / "task.toml")
        (building / AGGREGATOR / INITIAL).write_bytes(initial)
        building.chmod(0o755)
        if root.exists():
            root.rmdir()
        building.rename(root)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return federation
