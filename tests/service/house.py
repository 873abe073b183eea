"""A small federation in a temporary folder, its aggregator serving real HTTP in this very event loop.

A `Player` is a member whose messages a test sends one by one, with the real machine and transport;
`House.member` is the real loop of the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from choral.binding.access import Access, header
from choral.binding.sizes import largest_answer
from choral.client.events import calling
from choral.client.journal import Journal
from choral.client.member import Member
from choral.client.over_http import OverHttp
from choral.client.transport import Transport
from choral.data.examples import Examples
from choral.errors import ChoralError
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.federation.task import Model, Task
from choral.founding.folders import provision
from choral.learning import Softmax, model_file
from choral.learning.update import schema_of
from choral.protocol import phases, wire
from choral.protocol.member import MemberRound
from choral.protocol.messages import Endorsements, Inbox, MaskedVector, Roster, Survivors
from choral.service.http import line
from choral.service.http.app import create_app
from choral.service.rounds.requests import Rounds
from choral.service.serve import listen
from choral.service.settings import Settings
from choral.service.state.sqlite import Store
from choral.service.training import Training
from choral.vectors.fixed_point import encode
from choral.vectors.totals import Totals

FEATURES, CLASSES = 4, 3
PHASES = ("advertise", "share", "mask", "consistency", "unmask")
QUICK = {
    "join_seconds": 5.0,
    "phase_seconds": 5.0,
    "gone_seconds": 0.3,
    "startup_seconds": 0.0,
    "wait_seconds": 2.0,
    "threads": 1,
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_task(n: int, *, initial: bytes | None = None, **changes: Any) -> tuple[Task, bytes]:
    trainer = Softmax(FEATURES, CLASSES, epochs=1, batch=8)
    parameters = trainer.initial(np.random.default_rng(0))
    initial = model_file.encode(parameters)
    values = {
        "name": "house",
        "model": Model(
            name="softmax",
            features=FEATURES,
            classes=CLASSES,
            arrays=dict(schema_of(parameters)),
            initial=model_file.digest(initial).hex(),
            options={"epochs": 1},
        ),
        "rounds": 3,
        "largest_cohort": n,
        "weight_cap": 100,
    }
    return Task(**(values | changes)), initial


def make_folder(root: Path, n: int = 3, *, port: int = 0, minimum: int | None = None, **changes: Any) -> Path:
    """What `choral init` makes, for members m1 to mn."""
    task, initial = make_task(n, **changes)
    provision(
        root,
        url=f"http://127.0.0.1:{port or free_port()}",
        members=[f"m{i}" for i in range(1, n + 1)],
        task=task,
        initial=initial,
        minimum=min(3, n) if minimum is None else minimum,
        tolerated="quarter",
        random=os.urandom,
    )
    return root


def examples(seed: int, n: int = 40) -> Examples:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    X = rng.normal(size=(n, FEATURES)).astype(np.float32) + y[:, None].astype(np.float32)  # noqa: N806
    return Examples(X, y)


class Player:
    """One member, moved by hand. Its update is a constant of its own, so that sums can be told."""

    def __init__(self, folder: Path, url: str, *, patience: float | None = 5.0, value: float = 0.0) -> None:
        self.me = Participant.load(folder)
        self.name = self.me.name
        self.access = Access(self.name, secrets.token_hex(8))
        self.url = url
        self.transport = Transport(
            url, self.me.identity, self.access, patience=patience, jitter=lambda: 0.5,
            largest=largest_answer(self.me.task), verify=False,
        )  # fmt: skip
        delta = np.full(self.me.task.dimension, value or 0.01 * int(self.name[1:]), np.float32)
        self.vector = encode(delta, 10, self.me.task.plan).vector
        self._watching: asyncio.Task[None] | None = None

    def machine(self, base: Record) -> MemberRound:
        known = phases.Member(
            self.name, self.me.identity, self.me.federation.pinned, self.me.parameters, base.context,
            self.me.sealing,
        )  # fmt: skip
        return MemberRound(known, self.vector, Totals(10, 2, 1, 1.0).encode(), os.urandom)

    async def send(self, method: str, path: str, message: Any, kind: type | None = None) -> Any:
        content = message if isinstance(message, bytes | list) else wire.encode(message)
        data = await self.transport.send(method, path, content)
        return wire.decode(kind, data) if kind else data

    async def advertise(self, machine: MemberRound) -> Roster:
        return await self.send("POST", "/v1/rounds", machine.advertise, Roster)

    async def share(self, machine: MemberRound, roster: Roster) -> Inbox:
        shares = machine.receive(roster)
        return await self.send("POST", f"{self.at(machine)}/shares", shares, Inbox)

    async def mask(self, machine: MemberRound, inbox: Inbox) -> Survivors:
        vector = machine.receive(inbox)
        assert isinstance(vector, MaskedVector)
        body = self.me.sealing.encode_vector(vector)
        return await self.send("PUT", f"{self.at(machine)}/masked", body, Survivors)

    async def endorse(self, machine: MemberRound, survivors: Survivors) -> Endorsements:
        return await self.send(
            "POST", f"{self.at(machine)}/consistency", machine.receive(survivors), Endorsements
        )

    async def reveal(self, machine: MemberRound, endorsements: Endorsements) -> Record:
        return await self.send("POST", f"{self.at(machine)}/unmask", machine.receive(endorsements), Record)

    @staticmethod
    def at(machine: MemberRound) -> str:
        assert machine.round_id is not None
        return f"/v1/rounds/{machine.round_id.hex()}"

    async def play(self, base: Record, *, until: str | None = None) -> Any:
        """A whole round, or up to and without the message of phase `until`: (machine, what came before)."""
        machine = self.machine(base)
        came: Any = None
        steps: list[Callable[..., Any]] = [self.share, self.mask, self.endorse, self.reveal]
        for phase, step in zip(PHASES, (None, *steps), strict=True):
            if phase == until:
                return machine, came
            came = await (self.advertise(machine) if step is None else step(machine, came))
        return came

    async def __aenter__(self) -> Player:
        self._watching = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def _watch(self) -> None:
        """As the client does: an open request says that this member is there."""
        while True:
            with contextlib.suppress(ChoralError):
                await self.transport.get("/v1/records?after=-1")
                version = 0
                while True:
                    await self.transport.get(f"/v1/records?after={version}")
                    version += 1
            await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """As if its process were killed: every connection breaks."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self.transport.__aexit__()

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    def header(self, method: str, path: str, now: float) -> str:
        return header(self.me.identity, self.access, method, path, now)


@dataclass
class Told:
    """A scripted answer; pieces without an end are sent for as long as somebody reads."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Lie = Callable[[str, str], Told | None]


async def _tell(told: Told, receive: Any, send: Any) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in told.headers.items()]
    await send({"type": "http.response.start", "status": told.status, "headers": headers})

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.create_task(hung_up())
    for piece in [told.body] if isinstance(told.body, bytes) else told.body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)
        if gone.done():
            return
    gone.cancel()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class House:
    """The aggregator of a folder in this event loop."""

    def __init__(self, root: Path, *, limits: line.Limits | None = None, **settings: Any) -> None:
        self.root = root
        self.limits = limits
        self.settings = Settings(
            host="127.0.0.1", port=0, state=root / "aggregator/state", **(QUICK | settings)
        )
        self.aggregator = Participant.load(root / "aggregator")
        self.events: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.lies: list[Lie] = []
        self.asked: list[tuple[str, str]] = []

    async def open(self) -> None:
        self.store = Store(self.settings.state)
        self.training = Training(self.aggregator, self.store)
        self.store.abort_open_rounds("the aggregator was restarted")
        self.rounds = Rounds(self.aggregator, self.settings, self.training, self.store)
        self.app = create_app(self.aggregator, self.rounds, self.store)
        listener = self.listener = listen(self.settings, tls=False)
        listener.refused = self.rounds.metrics.refused
        self.port = int(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = line.server(
            self._serve, self.limits, refused=self.rounds.metrics.refused, interface="asgi3",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._running = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            await asyncio.sleep(0.002)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """The real application, unless one of `lies` wants to answer."""
        path = scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        self.asked.append((scope["method"], path))
        for lie in self.lies:
            told = lie(scope["method"], path)
            if told is not None:
                await _tell(told, receive, send)
                return
        await self.app(scope, receive, send)

    async def close(self) -> None:
        await self.rounds.drain(0)
        for server in self._server.servers:  # uvicorn's own way out takes a tick of 0.1 s
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await asyncio.gather(*list(self._server.server_state.tasks), return_exceptions=True)
        self.store.close()

    @property
    def head(self) -> Record:
        return self.training.head

    def player(self, i: int, **more: Any) -> Player:
        return Player(self.root / f"m{i}", self.url, **more)

    @contextlib.asynccontextmanager
    async def players(self, *who: int) -> AsyncIterator[list[Player]]:
        async with contextlib.AsyncExitStack() as stack:
            found = [await stack.enter_async_context(self.player(i)) for i in who]
            await until(lambda: all(self.rounds.presence.connected(player.name) for player in found))
            yield found

    async def member(self, i: int, *, url: str | None = None, trainer: Any = None, **more: Any) -> Record:
        """The real loop of a member, to its end. What it reports is in `events`."""
        return await run_member(
            self.root / f"m{i}", url or self.url, self.events.setdefault(f"m{i}", []), trainer, **more
        )

    def told(self, i: int, event: str) -> list[dict[str, Any]]:
        return [details for kind, details in self.events.get(f"m{i}", []) if kind == event]

    def status(self) -> dict[str, Any]:
        return self.rounds.status()


async def run_member(
    folder: Path, url: str, events: list[Any], trainer: Any = None, *, patience: float | None = None
) -> Record:
    me = Participant.load(folder)
    journal = Journal(folder / "state")
    try:
        async with Transport(
            url, me.identity, Access(me.name, secrets.token_hex(8)), patience=patience,
            jitter=lambda: 0.5, largest=largest_answer(me.task), verify=False,
        ) as transport:  # fmt: skip
            member = Member(
                me, trainer or Softmax(FEATURES, CLASSES, epochs=1, batch=8),
                examples(int(me.name[1:])), OverHttp(transport, me.sealing), journal, random=os.urandom,
                tell=calling(lambda event, **details: events.append((event, details))),
            )  # fmt: skip
            return await member.run()
    finally:
        journal.close()


@contextlib.asynccontextmanager
async def house(
    root: Path,
    n: int = 3,
    *,
    settings: dict[str, Any] | None = None,
    limits: line.Limits | None = None,
    **task: Any,
) -> AsyncIterator[House]:
    """A new federation of n in `root`, with its aggregator running."""
    found = House(make_folder(root / "fed", n, **task), limits=limits, **(settings or {}))
    await found.open()
    try:
        yield found
    finally:
        await found.close()


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def raw(
    port: int, data: bytes, *, seconds: float = 5.0, close: bool = False
) -> tuple[int, dict[str, str], bytes]:
    """Bytes as they are to the aggregator; status, headers and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        if close:
            writer.write_eof()
        async with asyncio.timeout(seconds):
            return await answer(reader)
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = (
        await reader.readexactly(int(headers["content-length"]))
        if "content-length" in headers
        else await reader.read()
    )
    return int(head[0].split()[1]), headers, body


def problem(found: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """The problem+json of an answer."""
    status, headers, body = found
    assert headers["content-type"] == "application/problem+json", (status, body)
    details: dict[str, Any] = json.loads(body)
    assert details["status"] == status
    assert details["type"].startswith("urn:choral:problem:")
    assert details["detail"]
    return details


class Proxy:
    """A way to the aggregator that can be cut and healed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pairs: set[asyncio.StreamWriter] = set()
        self._cut = False

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        self._cut = True
        for writer in self._pairs:
            writer.transport.abort()
        self._pairs.clear()

    def heal(self) -> None:
        self._cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._pairs |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()
