"""The member's side: `participate` runs one member of a federation to the end of the training.

`take_part` is the same to `await`, for notebooks and other event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from pathlib import Path

import httpx

from choral.binding.access import Access
from choral.binding.sizes import largest_answer
from choral.client.events import Event, Report, Tell, Warned, calling, silent
from choral.client.journal import Journal
from choral.client.member import Member
from choral.client.over_http import OverHttp
from choral.client.process import beat, stop_on_sigterm
from choral.client.transport import Transport
from choral.data import load_shard
from choral.data.examples import Examples
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.learning.personal import FILE as PERSONAL
from choral.learning.personal import Personal
from choral.learning.softmax import built_in
from choral.learning.trainer import Trainer

__all__ = ["Member", "participate", "take_part"]

Place = str | os.PathLike[str]


def participate(
    folder: Place,
    data: Place,
    trainer: Trainer | None = None,
    *,
    state: Place | None = None,
    url: str | None = None,
    seed: int | None = None,
    patience: float | None = None,
    stay: bool = False,
    report: Report | None = None,
    tell: Tell = silent,
    witness: Place | None = None,
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
        report: called as `report(event, **details)` with what happens: a name, and what belongs to it.
        tell: called with what happens as it is typed in `choral.client.events`, before `report`.
        witness: folder to write updates to in the clear, for demonstrations only.
        carrier: what requests travel by instead of HTTP, for example that of `integrations.syft.member`.

    Returns:
        The newest model record.

    Raises:
        ChoralError: what keeps this member from taking part, with a hint.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ParameterError(
            "participate() was called where an event loop is running already, as in a notebook",
            hint="there, write `await choral.client.take_part(…)`, with the same arguments",
        )
    taking_part = take_part(
        folder, data, trainer, state=state, url=url, seed=seed, patience=patience, stay=stay,
        tell=_both(tell, report), witness=witness, carrier=carrier,
    )  # fmt: skip

    async def run() -> Record:
        stop_on_sigterm(_both(tell, report))
        return await taking_part

    return asyncio.run(run())


async def take_part(
    folder: Place,
    data: Place,
    trainer: Trainer | None = None,
    *,
    state: Place | None = None,
    url: str | None = None,
    seed: int | None = None,
    patience: float | None = None,
    stay: bool = False,
    report: Report | None = None,
    tell: Tell = silent,
    witness: Place | None = None,
    carrier: httpx.AsyncBaseTransport | None = None,
) -> Record:
    """`participate` for an event loop that is running already, a notebook's for example: `await` it.

    Arguments, result and errors are those of `participate`. SIGTERM is left to whoever runs the loop.
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
    tell = _both(tell, report)
    with contextlib.closing(Journal(home)) as journal:
        if isinstance(trainer, Personal) and trainer.keep is None:
            trainer = trainer.kept_in(home / PERSONAL)
        if me.federation.warning:
            tell(Warned(me.federation.warning))
        beating = asyncio.create_task(beat(home))
        try:
            async with Transport(
                url or me.federation.aggregator.url,
                me.identity,
                Access(me.name, secrets.token_hex(8)),
                patience=patience,
                jitter=random.SystemRandom().random,
                largest=largest_answer(me.task),
                tell=tell,
                authority=me.authority,
                carrier=carrier,
            ) as transport:
                member = Member(
                    me,
                    trainer,
                    Examples(shard.images, shard.labels),
                    OverHttp(transport, me.sealing),
                    journal,
                    random=os.urandom,
                    seed=seed,
                    tell=tell,
                    witness=Path(witness) if witness is not None else None,
                    threads=os.cpu_count() or 1,
                )
                record = await member.run()
                if stay:
                    await asyncio.Event().wait()
                return record
        finally:
            beating.cancel()


def _both(tell: Tell, report: Report | None) -> Tell:
    """`tell`, and `report` if there is one."""
    if report is None:
        return tell
    call = calling(report)

    def both(event: Event) -> None:
        tell(event)
        call(event)

    return both
