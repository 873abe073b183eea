"""The member's side: `participate` runs one member of a federation to the end of the training."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from pathlib import Path

import httpx

from choral.client.journal import Journal
from choral.client.log import largest_answer
from choral.client.participant import Member
from choral.client.process import beat, stop_on_sigterm
from choral.client.transport import Report, Transport
from choral.data import load_shard
from choral.data.examples import Examples
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.learning.personal import FILE as PERSONAL
from choral.learning.personal import Personal
from choral.learning.softmax import built_in
from choral.learning.trainer import Trainer
from choral.primitives import entropy
from choral.protocol.access import Access

__all__ = ["Member", "participate"]


def participate(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str],
    trainer: Trainer | None = None,
    *,
    state: str | os.PathLike[str] | None = None,
    url: str | None = None,
    seed: int | None = None,
    patience: float | None = None,
    stay: bool = False,
    report: Report = lambda event, **details: None,
    witness: str | os.PathLike[str] | None = None,
    carrier: httpx.AsyncBaseTransport | None = None,
) -> Record:
    """Take part in a federation until training is over: its rounds are done, or its patience is.

    Args:
        folder: this member's folder, from `choral init`.
        data: its shard, a `.npy` file of `save_shard`.
        trainer: its model; by default the built-in one that the task names.
        state: where the journal is kept; by default `folder/state`.
        url: of the aggregator, if another than in the federation file.
        seed: for training.
        patience: seconds to go on while the aggregator cannot be reached; None is for ever.
        stay: do not return at the end, but wait to be stopped: for Deployments, which restart what ends.
        report: called as `report(event, **details)` with what happens.
        witness: folder to write updates to in the clear, for demonstrations only.
        carrier: what requests travel by instead of HTTP, for example that of `client.syft.carrier`.

    Returns:
        The newest model record.

    Raises:
        ChoralError: what keeps this member from taking part, with a hint.
    """
    me = Participant.load(Path(folder)).expect(aggregator=False)
    model = me.task.model
    if trainer is None:
        if model.name == "custom":
            raise ParameterError(
                "this federation trains a model of its own",
                hint="give it: `choral join … --model FILE.py:CLASS`, or participate(…, trainer=…)",
            )
        trainer = built_in(model.name, model.features, model.classes, model.options)
    shard = load_shard(data, features=model.features, classes=model.classes)
    home = Path(state) if state is not None else me.folder / "state"
    journal = Journal(home)
    if isinstance(trainer, Personal) and trainer.keep is None:
        trainer = trainer.kept_in(home / PERSONAL)
    access = Access(me.name, secrets.token_hex(8))
    if me.federation.warning:
        report("warning", reason=me.federation.warning)

    async def run() -> Record:
        stop_on_sigterm(report)
        beating = asyncio.create_task(beat(home))
        async with Transport(
            url or me.federation.aggregator.url,
            me.identity,
            access,
            patience=patience,
            jitter=random.SystemRandom().random,
            largest=largest_answer(me.task),
            report=report,
            authority=me.authority,
            carrier=carrier,
        ) as transport:
            member = Member(
                me,
                trainer,
                Examples(shard.images, shard.labels),
                transport,
                journal,
                random=entropy.system,
                seed=seed,
                report=report,
                witness=Path(witness) if witness is not None else None,
                threads=os.cpu_count() or 1,
            )
            try:
                record = await member.run()
                if stay:
                    await asyncio.Event().wait()
                return record
            finally:
                beating.cancel()

    try:
        return asyncio.run(run())
    finally:
        journal.close()
