"""What happened in a federation, from the verified log and the rounds: what a report is about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.progress import measured, progress_of
from choral.inspection.reading import Log, fetch, understood
from choral.service.page import view
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import Store

ROUNDS = 2000  # the newest, that a report shows
_LARGE = 1000  # members by name


@dataclass(frozen=True)
class Findings:
    """What the report is about.

    Attributes:
        state: as the dashboard has it, with all rounds and versions.
        names: of all members.
        worst_error: the largest bound on the error of a mean over the rounds that were; None without one.
    """

    state: dict[str, Any]
    names: list[str]
    worst_error: float | None


def findings(me: Participant, state: Path | None) -> Findings:
    """Log and rounds of a federation, every link verified.

    Raises:
        ChoralError: they cannot be had, or do not verify.
    """
    records = Log(me, state).records
    if me.name == AGGREGATOR:
        store = Store(state or me.folder / "state", read_only=True)
        rows = store.rounds(ROUNDS)
        store.close()
    else:
        (data,) = fetch(me, "/v1/rounds")
        with understood(me.federation.aggregator.url):
            rows = [RoundRow.read(row) for row in json.loads(data)]
    names = list(me.federation.members)[:_LARGE]
    with understood(me.federation.aggregator.url):
        found = view.history(me, measured(records), records[-ROUNDS:], rows, progress_of(records))
        found["grid"] = [view.round_of(row, names) for row in rows if row.state != "open"]
    plan = me.task.plan
    bounds = [
        plan.error_bound(len(record.survivors), record.metrics.weight)
        for record in records
        if record.version and record.metrics and record.metrics.weight
    ]
    return Findings(found, names, max(bounds, default=None))
