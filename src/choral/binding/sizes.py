"""How large a message and an answer can honestly be (§7.3): what is longer is not read."""

from __future__ import annotations

from choral.federation.records import PAGE
from choral.federation.task import Task

MESSAGE = 1 << 20


def largest_message(members: int) -> int:
    """Most bytes of a message other than a vector: a cohort's envelopes take 4.4 kB each."""
    return max(MESSAGE, (1 << 16) + (1 << 13) * members)


def largest_answer(task: Task) -> int:
    """Bytes that no honest answer for this task exceeds: a model, a page of records, a cohort's messages."""
    model = 4 * task.dimension + 4096 + sum(512 + 6 * len(name) for name in task.model.arrays)
    records = PAGE * (1024 + 72 * task.largest_cohort)
    messages = (1 << 16) + (1 << 13) * task.largest_cohort
    return max(model, records, messages)
