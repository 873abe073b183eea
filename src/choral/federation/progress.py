"""How training goes, by the signed log alone: which version is the best, and whether it is time to stop.

A pure function of the records, so that the aggregator, every member and whoever reads the log later
come to the same answer without asking each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from choral.federation.records import Record
from choral.federation.task import Task


@dataclass(frozen=True)
class Progress:
    """What a log up to some version says.

    Members measure the model that they start from, so the record of version v + 1 tells how good
    version v is: the newest version is never measured yet.

    Attributes:
        newest: the newest version; -1 before the first record.
        best: the version with the smallest loss per held-out example; of equal ones the first. None
            if no version was measured.
        loss: its loss.
        accuracy: its accuracy.
    """

    newest: int = -1
    best: int | None = None
    loss: float = math.inf
    accuracy: float = math.nan

    def after(self, record: Record) -> Progress:
        """The progress once `record`, the next one, is in the log."""
        metrics = record.metrics
        now = replace(self, newest=record.version)
        if metrics is None or metrics.mean_loss is None or metrics.accuracy is None:
            return now
        if not metrics.mean_loss < self.loss:
            return now
        return Progress(record.version, record.version - 1, metrics.mean_loss, metrics.accuracy)

    def over(self, task: Task) -> bool:
        """Whether training ends here: the rounds are done, or patience is.

        With `task.patience = p`, p versions in a row that were no better than the best one end it.
        """
        if self.newest >= task.rounds:
            return True
        return task.patience > 0 and self.best is not None and self.newest - 1 - self.best >= task.patience


def progress_of(records: Iterable[Record]) -> Progress:
    """The progress of a whole log, oldest record first."""
    progress = Progress()
    for record in records:
        progress = progress.after(record)
    return progress
