"""The log from its first record on, for whoever wants to look at all of it and keeps nothing."""

from __future__ import annotations

from choral.client.transport import Transport
from choral.errors import RecordError
from choral.federation.enrolment import Participant
from choral.federation.records import Record, Records, follow
from choral.learning import model_file
from choral.protocol import wire


async def whole_log(transport: Transport, me: Participant) -> list[Record]:
    """Every record that there is, page by page, each checked as it comes: a log has an end.

    Raises:
        RecordError: a record that breaks a rule, more than the task has rounds, or fewer than were named.
        ChoralError: there is no answer, or none that can be read.
    """
    found: list[Record] = []
    most = me.task.rounds
    while True:
        stretch = wire.decode(Records, await transport.get(f"/v1/records?after={len(found) - 1}"))
        last = max(stretch.newest, len(found) + len(stretch.records) - 1)
        if last > most:
            raise RecordError(
                f"the aggregator's log goes on to version {last}, the task has {most} rounds",
                hint="do not go on with it: no honest aggregator makes more",
            )
        for record in stretch.records:
            head = found[-1] if found else None
            follow(head, record, aggregator=me.federation.aggregator_key, task=me.task.digest)
            found.append(record)
        if len(found) > stretch.newest:
            return found
        if not stretch.records:
            raise RecordError(
                f"the aggregator names version {stretch.newest} as its newest, but no record after"
                f" {len(found) - 1}"
            )


async def model_of(transport: Transport, record: Record) -> bytes:
    """The model file of a version. Raises `RecordError` for other bytes than its record names."""
    data = await transport.get(f"/v1/models/{record.parameters.hex()}")
    return model_file.named(data, record.parameters, record.version)
