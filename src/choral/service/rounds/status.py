"""`/v1/status`: where the federation is, as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from choral import __version__
from choral.federation.enrolment import Participant
from choral.protocol.rounds import PHASES

if TYPE_CHECKING:
    from choral.service.rounds.requests import Rounds


def status_of(rounds: Rounds, me: Participant) -> dict[str, Any]:
    """What everybody in the federation may know: never a vector, never a single member's figure."""
    head = rounds.training.head
    metrics = head.metrics
    lives = (*rounds.conductor.forming.values(), *rounds.conductor.running.values())
    return {
        "choral": __version__,
        "federation": me.federation.name,
        "task": me.task.digest.hex(),
        "version": head.version,
        "rounds": me.task.rounds,
        "over": rounds.training.over,
        "record": head.digest.hex(),
        "survivors": list(head.survivors),
        "accuracy_before": metrics.accuracy if metrics else None,
        "loss_before": metrics.mean_loss if metrics else None,
        "members": {
            name: {
                "connected": rounds.presence.state(name) == "connected",
                "seconds_since": rounds.presence.seconds_since(name),
                "resting": rounds.presence.resting(name),
            }
            for name in me.federation.members
        },
        "stuck": rounds.stuck or None,
        "kept_out": {
            name: {"round": kept.round.hex(), "reason": kept.reason, "since": kept.since}
            for name, kept in rounds.conductor.cohorts.kept_out.items()
        },
        "cohorts": [
            {
                "round": live.id.hex(),
                "base": live.base.version,
                "phase": live.machine.phase.value,
                "in": {phase.value: live.machine.received(phase) for phase in PHASES},
                "awaited": rounds.conductor.missing(live),
                "apart": dict(rounds.conductor.cohorts.kept_apart(live)),
                "needed": live.machine.needed,
                "seconds_left": rounded(rounds.conductor.seconds_left(live)),
                "bytes_in": live.bytes_in,
            }
            for live in lives
            if not live.over and live.machine.phase in PHASES
        ],
    }


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
