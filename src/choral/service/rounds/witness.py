"""For demonstrations: what the aggregator has seen, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from choral.service.rounds.events import Events, SumMade, VectorTaken


def keep_what_is_seen(events: Events, witness: Path) -> None:
    """Write every masked vector and every sum from now on to `witness`, in a folder a round."""

    def keep(round_id: bytes, name: str, vector: np.ndarray[Any, Any]) -> None:
        folder = witness / round_id.hex()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", vector)

    events.subscribe(VectorTaken, lambda event: keep(event.round, f"{event.member}.masked", event.vector))
    events.subscribe(SumMade, lambda event: keep(event.round, "sum", event.vector))
