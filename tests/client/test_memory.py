"""What a member holds while it works, counted in vectors of its model. `-s` prints the figures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tracemalloc
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from choral.binding.access import Access
from choral.client.journal import Journal
from choral.client.member import Member
from choral.client.transport import Transport
from choral.federation import records
from choral.federation.enrolment import Participant
from choral.federation.records import Records
from choral.federation.task import Model
from choral.founding.folders import provision
from choral.learning import Evaluation, model_file
from choral.learning.update import schema_of
from choral.protocol import phases
from choral.protocol.aggregator import AggregatorRound
from house import examples, make_task

D = 1_000_000
NAMES = ("m1", "m2", "m3")


class Large:
    """Training that needs the model that it gives back, and nothing else of that size."""

    def initial(self, rng: Any) -> dict[str, Any]:
        return {"weight": np.zeros(D - 10, np.float32), "bias": np.zeros(10, np.float32)}

    def train(self, parameters, X, y, rng):  # noqa: N803
        return {name: array + np.float32(0.01) for name, array in parameters.items()}

    def evaluate(self, parameters, X, y):  # noqa: N803
        return Evaluation(len(y), len(y), 0.0)


class Alone:
    """An aggregator for m1 up to its upload, which goes over real HTTP. The others have no vectors."""

    def __init__(self, folder: Any, blob: bytes) -> None:
        self.folder, self.blob = folder, blob
        me = Participant.load(folder / "aggregator")
        self.me = Participant.load(folder / "m1")
        digest = model_file.digest(blob)
        self.first = records.first(me.identity, me.task.digest, digest, bytes(32))
        self.machine = AggregatorRound(me.federation.pinned, me.parameters, self.first.context)
        self.peaks: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        tracemalloc.reset_peak()
        self.before = tracemalloc.get_traced_memory()[0]

    def mark(self, what: str) -> None:
        self.peaks[what] = round((tracemalloc.get_traced_memory()[1] - self.before) / (4 * D), 2)
        tracemalloc.reset_peak()

    async def task(self) -> bytes:
        return self.me.task.encode()

    async def records(self, after: int, resting: str | None = None) -> Records:
        if after == 0:
            await asyncio.sleep(3600)
        return Records(0, (self.first,))

    async def model(self, digest: bytes) -> bytes:
        self.begin()
        return bytes(bytearray(self.blob))  # its own, as from a transport

    async def status(self) -> None: ...

    async def join(self, advertise, without):
        self.mark("training")
        self.others = {}
        for name in NAMES[1:]:
            me = Participant.load(self.folder / name)
            known = phases.Member(name, me.identity, me.federation.pinned, me.parameters, self.first.context)
            self.others[name] = known, *phases.advertise(known, os.urandom)
            self.machine.receive(self.others[name][1])
        self.machine.receive(advertise)
        self.machine.close()
        return self.machine.roster()

    async def share(self, shares):
        roster = self.machine.roster()
        for known, advertise, secrets in self.others.values():
            cohort = phases.accept_roster(known, advertise, roster)
            self.machine.receive(phases.deal(known, cohort, secrets, os.urandom)[0])
        self.machine.receive(shares)
        self.machine.close()
        self.mark("sharing")
        return self.machine.inbox("m1")

    async def mask(self, vector):
        self.mark("masking")
        server = await asyncio.start_server(_forget, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        me = self.me
        access = Access("m1", "0" * 16)
        async with Transport(url, me.identity, access, patience=5.0, jitter=lambda: 0.0) as line:
            await line.send("PUT", "/v1/rounds/x/masked", me.sealing.encode_vector(vector))
        server.close()
        self.mark("upload")
        raise Uploaded


class AtOnce(ThreadPoolExecutor):
    """No thread: one that has given its result may hold on to its arguments for a moment."""

    def submit(self, fn, /, *args, **kwargs):
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class Uploaded(Exception):
    """All that was to be seen."""


async def _forget(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    left = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    while left:
        left -= len(await reader.read(1 << 16))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_a_member_holds_few_vectors_while_it_trains_and_one_while_it_goes_up(
    tmp_path,
):
    initial = Large().initial(None)
    blob = model_file.encode(initial)
    model = Model(
        name="custom", features=4, classes=3, arrays=dict(schema_of(initial)),
        initial=model_file.digest(blob).hex(), options={},
    )  # fmt: skip
    task, _ = make_task(3, model=model)
    provision(
        tmp_path / "fed", url="http://127.0.0.1:9", members=list(NAMES), task=task, initial=blob, minimum=3,
        tolerated="quarter", random=os.urandom,
    )  # fmt: skip
    del initial
    asyncio.get_running_loop().set_default_executor(AtOnce())
    tracemalloc.start()
    try:
        seat = Alone(tmp_path / "fed", blob)
        with contextlib.closing(Journal(tmp_path / "state")) as journal, contextlib.suppress(Uploaded):
            member = Member(seat.me, Large(), examples(1), seat, journal, random=os.urandom)
            await asyncio.wait_for(member.run(), 60)
    finally:
        tracemalloc.stop()
    print(seat.peaks)
    assert seat.peaks["training"] <= 4.1
    assert seat.peaks["sharing"] <= 1.2
    assert seat.peaks["masking"] <= 1.3  # and a block a thread
    assert seat.peaks["upload"] <= 2.0  # and pieces of a megabyte on their way, at any size of a model
