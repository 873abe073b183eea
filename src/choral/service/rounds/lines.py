"""Lines of the log about rounds: one for each event that a person wants to read of."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from choral.errors import Ending
from choral.service.rounds.events import (
    CohortClosed,
    CohortEnded,
    Events,
    MemberLeft,
    RoundFailed,
    SharesDisputed,
    VersionMade,
)

log = structlog.get_logger("choral.rounds")


def write_lines(events: Events) -> None:
    """Into the log from now on."""
    events.subscribe(CohortClosed, _cohort_closed)
    events.subscribe(CohortEnded, _cohort_ended)
    events.subscribe(MemberLeft, _member_left)
    events.subscribe(VersionMade, _version_made)
    events.subscribe(RoundFailed, _round_failed)
    events.subscribe(SharesDisputed, _shares_disputed)


def few(names: Iterable[str], most: int = 32) -> list[str]:
    """Names as a line of the log has room for them."""
    found = list(names)
    return [*found[:most], *([f"and {len(found) - most} more"] if len(found) > most else [])]


def short(round_id: bytes) -> str:
    """The id as logs show it."""
    return round_id.hex()[:12]


def _cohort_closed(event: CohortClosed) -> None:
    log.info(
        "a cohort closed", round=short(event.round), base=event.base, members=few(event.members),
        threshold=event.threshold,
    )  # fmt: skip


def _cohort_ended(event: CohortEnded) -> None:
    if event.kind is not Ending.NO_ROOM:  # that has its own line, once
        log.info("an open cohort ended", base=event.base, reason=event.reason)


def _member_left(event: MemberLeft) -> None:
    log.warning(
        "a member left the round", round=short(event.round), member=event.member, reason=event.reason,
        accused=few(event.accused),
    )  # fmt: skip


def _version_made(event: VersionMade) -> None:
    log.info(
        "a new model version", round=short(event.round), version=event.version,
        survivors=few(event.survivors), culprits=few(event.culprits), seconds=round(event.seconds, 3),
    )  # fmt: skip


def _round_failed(event: RoundFailed) -> None:
    log.warning(
        "a round aborted", round=short(event.round), phase=event.phase, reason=event.reason,
        missing=few(event.missing), culprits=few(event.culprits),
    )  # fmt: skip


def _shares_disputed(event: SharesDisputed) -> None:
    pairs = [f"{dealer} dealt, {holder} revealed" for dealer, holder in event.pairs]
    more = event.count - len(pairs)
    log.warning(
        "wrong shares are in dispute", round=short(event.round),
        disputes=[*pairs, *([f"and {more} more"] if more else [])],
    )  # fmt: skip
