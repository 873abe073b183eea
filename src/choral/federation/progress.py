"""How training goes, by the signed log alone: which version is the best, and whether to stop (§5.2).

A pure function of the records, so that the aggregator, every member and whoever reads the log later
come to the same answer without asking each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from choral.federation.records import Record
from choral.federation.task import Task

GROUPS = 64  # sets of members that are remembered
BASES = 101  # records that a new one can stand on: the largest staleness of a task is 100
FEW = 10  # versions that a group may always be silent for


@dataclass(frozen=True)
class Measurement:
    """What a record says of the version that its cohort stood on.

    Attributes:
        version: the version that was measured.
        members: how many are in the sum that measured it.
        examples: held-out examples of theirs that it was measured on.
        accuracy: part of them that it got right; None if it does not classify.
        loss: mean loss of one.
    """

    version: int
    members: int
    examples: float
    accuracy: float | None
    loss: float


@dataclass(frozen=True)
class Group:
    """The versions that the same members measured on the same number of examples: these compare.

    Attributes:
        survivors: the members.
        best: of their measurements the one with the smallest loss; of equal ones the first.
        last: the newest version that they measured.
        heard: the version whose record said so.
        count: how many versions they measured.
        since: how many of them came after the best one.
    """

    survivors: tuple[str, ...]
    best: Measurement
    last: int
    heard: int
    count: int = 1
    since: int = 0

    def plus(self, measurement: Measurement, heard: int) -> Group:
        """Once they have measured another version."""
        better = measurement.loss < self.best.loss
        return replace(
            self,
            best=measurement if better else self.best,
            last=measurement.version,
            heard=heard,
            count=self.count + 1,
            since=0 if better else self.since + 1,
        )


@dataclass(frozen=True)
class Progress:
    """What a log up to some version says.

    Members measure the model that they start from, so a record tells how good the version is that its
    cohort stood on: the newest version is never measured yet. A sum tells nothing of one member, so what
    different members measured does not compare: whose data is easy would decide, not which model is good.

    Attributes:
        newest: the newest version; -1 before the first record.
        latest: what the newest record measured; None if nothing.
        groups: the sets of members that measured lately, in the order of their last measurements.
        bases: digests of the newest records, oldest first.
    """

    newest: int = -1
    latest: Measurement | None = None
    groups: tuple[Group, ...] = ()
    bases: tuple[bytes, ...] = field(default=(), repr=False)

    def after(self, record: Record) -> Progress:
        """The progress once `record`, the next one, is in the log."""
        latest = self._measured(record)
        groups = tuple(g for g in self.groups if record.version - g.heard <= max(FEW, record.version // 2))
        if latest is not None:
            groups = _with(groups, latest, record)
        return Progress(record.version, latest, groups, (*self.bases, record.digest)[-BASES:])

    @property
    def chosen(self) -> Group | None:
        """Who decides what is best: of those that measured two versions, those with the most examples.

        Of equal ones those who measured last. None if no two versions compare.
        """
        compared = [group for group in reversed(self.groups) if group.count > 1]
        return max(compared, key=lambda group: group.best.examples, default=None)

    @property
    def best(self) -> Measurement | None:
        """The version with the smallest loss of those that `chosen` measured."""
        return self.chosen.best if self.chosen else None

    def over(self, task: Task) -> bool:
        """Whether training ends here: the rounds are done, or patience is.

        With `task.patience = p`, p versions after the best one that the same members measured and found
        no better end it.
        """
        if self.newest >= task.rounds:
            return True
        return task.patience > 0 and self.chosen is not None and self.chosen.since >= task.patience

    def _measured(self, record: Record) -> Measurement | None:
        metrics = record.metrics
        if record.base not in self.bases or metrics is None:
            return None
        if metrics.mean_loss is None:
            return None
        version = self.newest - len(self.bases) + 1 + self.bases.index(record.base)
        return Measurement(
            version, len(record.survivors), metrics.examples, metrics.accuracy, metrics.mean_loss
        )


def _with(groups: tuple[Group, ...], latest: Measurement, record: Record) -> tuple[Group, ...]:
    """The groups once the survivors of `record` have measured."""
    group = next((g for g in groups if g.survivors == record.survivors), None)
    others = tuple(g for g in groups if g is not group)
    if group is None or group.best.examples < latest.examples:
        # on fewer examples than now: some had left their figures out, and nobody knows who
        group = Group(record.survivors, latest, latest.version, record.version)
    elif group.best.examples == latest.examples and group.last < latest.version:
        group = group.plus(latest, record.version)
    else:
        return groups
    return (*others, group)[-GROUPS:]


def progress_of(records: Iterable[Record]) -> Progress:
    """The progress of a whole log, oldest record first."""
    progress = Progress()
    for record in records:
        progress = progress.after(record)
    return progress


def measured(records: Iterable[Record]) -> dict[int, Measurement]:
    """By version, what a whole log says of it; of several measurements the one on the most examples."""
    found: dict[int, Measurement] = {}
    progress = Progress()
    for record in records:
        progress = progress.after(record)
        note(found, progress.latest)
    return found


def note(found: dict[int, Measurement], latest: Measurement | None) -> None:
    """Keep a measurement under its version, unless there is one on as many examples."""
    if latest is not None and (
        latest.version not in found or found[latest.version].examples < latest.examples
    ):
        found[latest.version] = latest
