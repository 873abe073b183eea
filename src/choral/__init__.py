"""Choral: federated learning in which the aggregator learns only the sum of its members' updates.

Everything that a command does can be called. A member's script saves its data as a shard, and takes part:

>>> import tempfile
>>> import numpy as np
>>> import choral
>>> folder = tempfile.mkdtemp()
>>> rng = np.random.default_rng(0)
>>> shards = [
...     choral.save_shard(f"{folder}/client_{i}_data.npy", rng.random((60, 4)), rng.integers(0, 3, 60))
...     for i in (1, 2, 3)
... ]

One person makes the federation and hands each participant its folder:

>>> federation, task = choral.found(f"{folder}/fed", ["anna", "ben", "chris"], shards=shards, rounds=10)
>>> list(federation.members), task.dimension
(['anna', 'ben', 'chris'], 50)

Somebody runs `choral serve fed/aggregator`; each member then runs, until training is over,

    record = choral.participate("fed/anna", "client_1_data.npy")

These three names are stable: they change with a major version only. All else may move.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from choral.client import participate
    from choral.data import save_shard
    from choral.founding import found

__all__ = ["found", "participate", "save_shard"]
__version__ = "0.2.0"

_WHERE = {"found": "choral.founding", "participate": "choral.client", "save_shard": "choral.data"}


def __getattr__(name: str) -> Any:
    """What is asked for, imported then: `import choral` alone needs no numpy."""
    if name not in _WHERE:
        raise AttributeError(f"module 'choral' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
