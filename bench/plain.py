"""The peer of a secure round: the same service, client, store and model, but updates summed in the clear.

A cohort is formed (everybody joins, and learns when it is closed), updates go up, everybody gets the
outcome: what is left of a round when masks, shares, signatures and the reveal are taken out.

    plain.py serve FOLDER …         plain.py join FOLDER --data FILE …

This switch lives here only. Product code has no way to turn secure aggregation off.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, cast

import numpy as np
from quart import Quart, Response, request

from choral import client
from choral.binding.access import verify_access
from choral.cli import main
from choral.client.learner import Update
from choral.client.member import Member
from choral.client.over_http import OverHttp
from choral.federation.records import Record
from choral.protocol import wire
from choral.protocol.aggregator import Total
from choral.service import serve as service
from choral.service.http.bodies import read_vector
from choral.service.state.facts import Facts, RoundRow

_create_app = service.create_app


def create_app(aggregator: Any, rounds: Any, store: Any, **more: Any) -> Quart:
    app = _create_app(aggregator, rounds, store, **more)
    task, pinned = aggregator.task, aggregator.federation.pinned
    d, a = task.dimension, aggregator.parameters.auxiliary
    state: dict[str, Any] = {}

    def begin() -> None:
        state.update(
            main=np.zeros(d, np.uint32), auxiliary=np.zeros(a, np.uint64), members=[], joined=set(),
            done=asyncio.get_running_loop().create_future(), lock=asyncio.Lock(), closed=asyncio.Event(),
        )  # fmt: skip

    def who() -> Any:
        return verify_access(
            request.headers.get("Authorization"), request.method, request.path,
            keys=pinned, now=time.time(), skew=300,
        )  # fmt: skip

    @app.post("/bench/join")
    async def form_cohort() -> Response:
        access = who()
        with rounds.presence.connection(access.member, access.session):
            if not state:
                begin()
            closed = state["closed"]
            state["joined"].add(access.member)
            if len(state["joined"]) == len(pinned):
                closed.set()
            await closed.wait()
        return Response(b"")

    @app.put("/bench/plain")
    async def plain() -> Response:
        access = who()
        with rounds.presence.connection(access.member, access.session):
            body = await read_vector(4 + 4 * d + 8 * a, 60)
            done = state["done"]
            async with state["lock"]:
                await asyncio.to_thread(_add, state, body, d, a)
                state["members"].append(access.member)
                if len(state["members"]) == len(pinned):
                    total = Total(state["main"], state["auxiliary"], tuple(state["members"]), ())
                    round_id = os.urandom(32)
                    facts = Facts(roster=(access.member,), received={"mask": len(body)})
                    row = RoundRow(round_id, 0, 0.0, "done", 0.0, facts)
                    base = rounds.training.head
                    record = await asyncio.to_thread(
                        rounds.training.apply, total, base, round_id, lambda record: row
                    )
                    state.clear()
                    async with rounds.progress:
                        rounds.progress.notify_all()
                    done.set_result(record)
            return Response(wire.encode(await done), 200, content_type="application/cbor")

    return app


def _add(state: dict[str, Any], body: memoryview, d: int, a: int) -> None:
    state["main"] += np.frombuffer(body, "<u4", d, 4)
    state["auxiliary"] += np.frombuffer(body, "<u8", a, 4 + 4 * d)


class Plain(Member):
    """A member that joins, and sends its update as it is."""

    async def contribute(self, base: Record, update: Update) -> None:
        transport = cast(OverHttp, self.aggregator).transport
        await transport.send("POST", "/bench/join")
        pieces = [b"\0\0\0\0", update.vector.data.cast("B"), update.totals.encode().data.cast("B")]
        record = wire.decode(Record, await transport.send("PUT", "/bench/plain", pieces))
        await self.log.newer_than(record.version - 1)


if __name__ == "__main__":
    service.create_app = create_app
    client.Member = Plain  # type: ignore[misc]
    main()
