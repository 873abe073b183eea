"""Figures for Prometheus: counters and states of the service, never a vector and never a member's figure.

Labels are phases, outcomes and kinds of errors; no label holds a name, so their number is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from choral import __version__
from choral.protocol.rounds import LABELS
from choral.service.rounds.events import (
    AnswerOut,
    Events,
    MemberLeft,
    MessageIn,
    PhaseOver,
    RoundFailed,
    VersionMade,
)
from choral.service.rounds.presence import RESTING

if TYPE_CHECKING:
    from choral.service.rounds.requests import Rounds

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside every counter
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RATES = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
Reading = Callable[[], float | None]
STATES = ("connected", "away", "never-seen")


class Metrics:
    """What one aggregator counts since it was started."""

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._readings: dict[str, tuple[str, Reading]] = {}
        self._rounds = self._counter("rounds", "Rounds that ended, by outcome.", "outcome")
        self._aborts = self._counter("round_aborts", "Aborted rounds by reason and phase.", "reason", "phase")
        self._received = self._counter("received_bytes", "Bytes of members' messages.", "message")
        self._sent = self._counter("sent_bytes", "Bytes of answers' bodies.", "answer")
        self._refused = self._counter(
            "refusals", "Requests that were refused, by the name of the problem.", "problem"
        )
        self._complaints = self._counter("complaints", "Members that left a round and said why.")
        self._phase = self._histogram("phase_seconds", "How long phases took.", _SECONDS, "phase")
        self._round = self._histogram("round_seconds", "From a round's first member to its sum.", _SECONDS)
        self._upload = self._histogram(
            "upload_bytes_per_second", "Rate at which a masked vector came in.", _RATES
        )
        for outcome in ("done", "aborted"):
            self._rounds.labels(outcome)
        for phase in LABELS:
            self._phase.labels(phase)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"choral_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"choral_{name}", text, labels, registry=self.registry, buckets=buckets)

    # ----- what happens -----------------------------------------------------------------------

    def follow(self, events: Events) -> None:
        """Count what happens in rounds from now on."""
        events.subscribe(PhaseOver, lambda event: self._phase.labels(event.phase).observe(event.seconds))
        events.subscribe(VersionMade, self._version_made)
        events.subscribe(RoundFailed, self._round_failed)
        events.subscribe(MessageIn, lambda event: self._received.labels(event.kind).inc(event.size))
        events.subscribe(AnswerOut, lambda event: self.sent(event.phase, event.size))
        events.subscribe(MemberLeft, lambda event: self._complaints.inc())

    def _version_made(self, event: VersionMade) -> None:
        self._rounds.labels("done").inc()
        self._round.observe(event.seconds)

    def _round_failed(self, event: RoundFailed) -> None:
        self._rounds.labels("aborted").inc()
        self._aborts.labels(event.kind.value, event.phase).inc()

    def sent(self, answer: str, size: int) -> None:
        self._sent.labels(answer).inc(size)

    def uploaded(self, size: int, seconds: float) -> None:
        self._upload.observe(size / max(seconds, 1e-6))

    def refused(self, problem: str) -> None:
        self._refused.labels(problem).inc()

    # ----- what is ----------------------------------------------------------------------------

    def reads(self, name: str, text: str, value: Reading) -> None:
        """A state of something else, read when somebody asks; again under the same name, instead of it."""
        self._readings[name] = (text, value)

    def readings(self) -> Iterator[tuple[str, str, float | None]]:
        """Name, text and value of each; None of one that cannot be read now."""
        for name, (text, value) in self._readings.items():
            try:
                yield name, text, value()
            except OSError:  # the disk itself is gone: the other figures are wanted all the more
                yield name, text, None

    def watch(self, rounds: Rounds) -> None:
        """States of `rounds` are read when somebody asks."""
        self.registry.register(_States(self, rounds, self._wall))

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _States(Collector):
    def __init__(self, metrics: Metrics, rounds: Rounds, wall: Callable[[], float]) -> None:
        self._metrics = metrics
        self._rounds = rounds
        self._wall = wall

    def describe(self) -> Iterable[Metric]:
        return ()  # asked for at registration, when nothing is there to be read yet

    def collect(self) -> Iterable[Metric]:
        rounds = self._rounds
        head = rounds.training.head
        members = GaugeMetricFamily("choral_members", "Enrolled members by state.", labels=["state"])
        states = rounds.presence.states()
        for state in STATES:
            members.add_metric([state], states.count(state))
        yield members
        resting = GaugeMetricFamily(
            "choral_members_resting", "Connected members that cannot send for now, by kind.", labels=["kind"]
        )
        kinds = [rounds.presence.resting(name) for name in rounds.presence.members]
        for kind in RESTING:
            resting.add_metric([kind], kinds.count(kind))
        yield resting
        cohorts = GaugeMetricFamily(
            "choral_open_rounds", "Rounds that are going on, by phase.", labels=["phase"]
        )
        open_ = [live.at.value for live in rounds.conductor.lives()]
        for phase in LABELS:
            cohorts.add_metric([phase], open_.count(phase))
        yield cohorts
        born = rounds.conductor.version_born
        metrics = head.metrics
        singles: list[tuple[str, str, float | None]] = [
            ("model_version", "Newest model version.", head.version),
            ("model_version_age_seconds", "Since the newest version was made.", self._wall() - born),
            ("members_needed", "Fewest with which a cohort closes.", rounds.members_needed),
            ("members_kept_out", "Proven to have lied.", len(rounds.conductor.cohorts.kept_out)),
            ("stuck", "1 when no version can come before somebody does something.", int(bool(rounds.stuck))),
            ("task_rounds", "Versions that the task asks for.", rounds.rounds_wanted),
            ("training_over", "1 when training is over.", int(rounds.training.over)),
            (
                "heldout_accuracy",
                "Of the last version that was measured.",
                metrics.accuracy if metrics else None,
            ),
            (
                "heldout_loss",
                "Of the last version that was measured.",
                metrics.mean_loss if metrics else None,
            ),
            ("next_version_bytes", "What the next version takes on it.", rounds.training.next_bytes),
            *self._metrics.readings(),
        ]
        for name, text, value in singles:
            if value is not None:
                yield GaugeMetricFamily(f"choral_{name}", text, value=value)
        build = GaugeMetricFamily("choral_build_info", "Version of Choral.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
