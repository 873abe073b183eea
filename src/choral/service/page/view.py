"""What a person may see of a federation, as plain values: from the log, the rounds and what is going on.

Never a vector, never a single member's figure: nothing that the aggregator would have to learn first (§2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from choral import __version__
from choral.federation.enrolment import Participant
from choral.federation.progress import Measurement, Progress
from choral.federation.records import Record
from choral.protocol.aggregator import Phase
from choral.protocol.rounds import PHASES
from choral.service.rounds.live import LiveRound
from choral.service.rounds.presence import RESTING
from choral.service.state.facts import RoundRow, made
from choral.service.state.sqlite import Kept

NAMED = 200  # members that are shown by name
CHIPS = 48  # names at one place of a station
POINTS = 400  # of a curve
Point = tuple[int, float | None, float]
STATION = {
    Phase.ADVERTISE: "advertise",
    Phase.SHARE: "share",
    Phase.MASK: "mask",
    Phase.CONSISTENCY: "reveal",
    Phase.UNMASK: "reveal",
}
# one letter a member and round
IN, LATE, ABSENT, NO_SHARES, NO_VECTOR, ABORTED, MISSING, APART = "il-smaxw"


def curve(measured: Mapping[int, Measurement]) -> list[Point]:
    """Version, accuracy and loss of what was measured, oldest first."""
    return [(version, one.accuracy, one.loss) for version, one in sorted(measured.items())]


def thin(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[i * (len(points) - 1) // (most - 1)] for i in range(most)]


def security(aggregator: Participant) -> dict[str, Any]:
    """The floors, the thresholds of a full cohort and the ring plan (§4, §6.2)."""
    task, frame = aggregator.task, aggregator.parameters
    n = min(task.largest_cohort, len(aggregator.federation.members))
    return {
        "n": n,
        "t": frame.threshold(n),
        "c": frame.colluders(n),
        "minimum": frame.minimum,
        "quorum": frame.quorum(n),
        "largest_cohort": task.largest_cohort,
        "sealing": task.sealing,
        "dimension": task.dimension,
        "bits": task.plan.bits,
        "clip": task.plan.clip,
        "weight_cap": task.weight_cap,
        "error_bound": task.plan.error_bound(n, n * task.weight_cap),
        "max_staleness": task.max_staleness,
        "warning": aggregator.federation.warning,
    }


def cells(row: RoundRow, names: Iterable[str]) -> str:
    """What became of each member in a round, a letter each."""
    facts = row.facts
    roster, survivors, late = map(set, (facts.roster, facts.survivors, facts.late))
    missing, apart = set(facts.missing), set(facts.apart)

    def cell(name: str) -> str:
        if name not in roster:
            if name in apart:
                return APART
            return LATE if name in late else ABSENT
        if row.state != "done":
            return MISSING if name in missing else ABORTED
        if name in survivors:
            return IN
        return NO_SHARES if facts.dropped.get(name) == Phase.SHARE.value else NO_VECTOR

    return "".join(map(cell, names))


def round_of(row: RoundRow, names: Iterable[str]) -> dict[str, Any]:
    """A round that is over, for the grid and the costs."""
    facts = row.facts
    return {
        "id": row.id.hex()[:12],
        "state": row.state,
        "version": facts.version,
        "base": row.base,
        "opened": row.opened,
        "seconds": row.seconds,
        "phases": dict(facts.seconds),
        "in": dict(facts.received),
        "out": dict(facts.sent),
        "roster": len(facts.roster),
        "survivors": len(facts.survivors),
        "reason": facts.reason,
        "phase": facts.phase,
        "missing": list(facts.missing[:CHIPS]),
        "culprits": list(facts.culprits[:CHIPS]),
        "cells": cells(row, names),
    }


def version_of(
    record: Record,
    measured: Mapping[int, Measurement],
    best: Measurement | None,
    when: Mapping[int, float],
) -> dict[str, Any]:
    """A line of the model log. Its signature and its link were verified when it was read."""
    metrics, measure = record.metrics, measured.get(record.version)
    return {
        "version": record.version,
        "model": record.parameters.hex(),
        "record": record.digest.hex(),
        "round": record.round_id.hex()[:12] if record.version else None,
        "survivors": len(record.survivors),
        "weight": metrics.weight if metrics else None,
        "made": when.get(record.version),
        "accuracy": measure.accuracy if measure else None,
        "loss": measure.loss if measure else None,
        "measured_by": measure.members if measure else None,
        "measured_on": measure.examples if measure else None,
        "best": best is not None and record.version == best.version,
    }


def saw(rows: Sequence[RoundRow]) -> dict[str, Any] | None:
    """Histograms of the newest round that has them: one masked vector, the sum, the sum from near."""
    for row in reversed(rows):
        facts = row.facts
        if facts.saw.masked and facts.saw.sum:
            return {"version": facts.version, "survivors": len(facts.survivors), **facts.saw.told()}
    return None


def history(
    aggregator: Participant,
    measured: Mapping[int, Measurement],
    newest: Sequence[Record],
    rows: Sequence[RoundRow],
    progress: Progress,
) -> dict[str, Any]:
    """Everything that changes only when a round ends.

    Args:
        measured: what is known of which version.
        newest: the last records, oldest first, for the model log.
        rows: the last rounds, oldest first.
    """
    task, federation = aggregator.task, aggregator.federation
    names = list(federation.members)[:NAMED]
    over = [row for row in rows if row.state != "open"]
    best, when = progress.best, made(over)
    return {
        "federation": federation.name,
        "choral": __version__,
        "task": task.digest.hex(),
        "model": {"name": task.model.name, "features": task.model.features, "classes": task.model.classes},
        "rule": task.rule.name,
        "rounds": task.rounds,
        "version": newest[-1].version if newest else 0,
        "over": progress.over(task),
        "best": None if best is None else asdict(best),
        "security": security(aggregator),
        "members": names,
        "unnamed": len(federation.members) - len(names),
        "curve": thin(curve(measured)),
        "grid": [round_of(row, names) for row in over],
        "log": [version_of(record, measured, best, when) for record in reversed(newest)],
        "saw": saw(over),
    }


def some(names: Sequence[str]) -> dict[str, Any]:
    return {"names": list(names[:CHIPS]), "count": len(names)}


def waiting(apart: Mapping[str, str]) -> dict[str, Any]:
    """Who waits for another cohort, and why."""
    named = [{"name": name, "why": why} for name, why in apart.items()]
    return {"named": named[:CHIPS], "count": len(named)}


def shut_out(kept: Mapping[str, Kept]) -> dict[str, Any]:
    """Who is kept out of all cohorts, since which round, and why."""
    named = [
        {"name": name, "round": one.round.hex()[:12], "reason": one.reason, "since": one.since}
        for name, one in kept.items()
    ]
    return {"named": named[:CHIPS], "count": len(named)}


def resting(kinds: Mapping[str, str | None]) -> dict[str, Any]:
    """Who says that it cannot send for now, by kind."""
    return {kind: some([name for name, said in kinds.items() if said == kind]) for kind in RESTING}


def cohort(
    live: LiveRound, awaited: Sequence[str], here: Mapping[str, str], apart: Mapping[str, str]
) -> dict[str, Any]:
    """An open round as stations: who is at which, and has it sent what the station wants."""
    machine, at = live.machine, live.at
    stations: dict[str, dict[str, Any]] = {}
    gone: set[str] = set()
    order = PHASES[: PHASES.index(at) + 1]
    for phase in order:
        sent = machine.received(phase)
        expected = [name for name in machine.expected(phase) if name not in gone]
        owing = [name for name in expected if name not in sent] if phase is not Phase.ADVERTISE else []
        station = stations.setdefault(STATION[phase], {})
        if phase is at:
            waited = [name for name in awaited if name not in sent]
            station["in"] = some(sent)
            station["awaited"] = some(waited if phase is not Phase.ADVERTISE else [])
            station["gone"] = some([name for name in owing if name not in waited])
        elif owing:
            station["gone"] = some([*station.get("gone", {}).get("names", ()), *owing])
        gone.update(owing)
    return {
        "round": live.id.hex()[:12],
        "base": live.base.version,
        "phase": at.value,
        "station": STATION[at],
        "deadline": round(live.deadline, 1),
        "needed": machine.needed,
        "size": len(machine.received(Phase.ADVERTISE)),
        "expected": len(machine.expected(at)) if at is not Phase.ADVERTISE else None,
        "sent": len(machine.received(at)),
        "waiting_for": some([name for name in awaited if here.get(name) != "never-seen"]),
        "stations": stations,
        "apart": waiting(apart),
    }
