"""Who takes no part for now, and why: the same sentences for `choral status` and `choral watch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NAMED = 12  # of one kind


@dataclass(frozen=True)
class Standing:
    """What the aggregator says of those that are in no cohort now, or cannot be (§4.6, §5.1).

    Attributes:
        stuck: why no version can come before somebody does something; empty while one can.
        kept_out: name, round, reason.
        apart: name and why, of those that wait for another cohort.
        spent, pause: who cannot send any more, and who cannot for a while.
    """

    stuck: str
    kept_out: Sequence[tuple[str, str, str]]
    apart: Sequence[tuple[str, str]]
    spent: Sequence[str]
    pause: Sequence[str]


def left_out(standing: Standing) -> Iterator[tuple[str, str]]:
    """A style and a line each. The lines are text, not markup: others wrote the names and the reasons."""
    if standing.stuck:
        yield "bold red", f"stuck: {standing.stuck}"
    for name, round_id, reason in standing.kept_out[:_NAMED]:
        yield (
            "red",
            (
                f"kept out: {name}, since round {round_id[:12]}: {reason}; find out why, then let it back in:"
                f" choral readmit FOLDER {name}, with the aggregator's folder"
            ),
        )
    for name, why in standing.apart[:_NAMED]:
        yield "yellow", f"kept apart: {name} waits for another cohort: {why}"
    for kind, named in (("kept out", standing.kept_out), ("kept apart", standing.apart)):
        if len(named) > _NAMED:
            yield "dim", f"{kind}: {len(named) - _NAMED} more"
    if standing.spent:
        yield "dim", f"resting: {_some(standing.spent)}: all that may be sent in this task is sent"
    if standing.pause:
        yield (
            "dim",
            (
                f"resting: {_some(standing.pause)}: waiting for a changed model, or for the time to send from"
                " this one again"
            ),
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
