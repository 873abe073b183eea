"""`choral serve --via pysyft`: the aggregator's side of requests that are files in synchronised folders.

Each request goes into the same application as one over HTTP, in this process and without a port. A request
whose file its member takes away is like one whose connection breaks, so presence works as ever (§7).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import structlog
from quart import Quart

from choral.binding.sizes import largest_message
from choral.errors import ChoralError
from choral.federation.enrolment import Participant
from choral.integrations.syft.folders import (
    ANSWER,
    OVERHEAD,
    REQUEST,
    Account,
    Answer,
    File,
    Folders,
    Request,
    connect,
    envelopes_of,
    name_of,
)
from choral.protocol import wire
from choral.service.http.app import create_app
from choral.service.rounds.requests import Rounds
from choral.service.serve import take_up
from choral.service.settings import Settings
from choral.service.state.sqlite import Store

log = structlog.get_logger("choral.syft")

_OPEN_REQUESTS = 8  # of one member at once, as many as its connections over HTTP
_METHODS = ("GET", "POST", "PUT")
# how many looks into a folder each of these lasts at least: files are slower than connections
_LOOKS = {"gone_seconds": 10, "startup_seconds": 15, "join_seconds": 30, "phase_seconds": 60}


async def serve(
    aggregator: Participant,
    settings: Settings,
    *,
    witness: Path | None = None,
    started: Callable[[str], None] = lambda url: None,
    connection: Any = None,
) -> None:
    """Serve until SIGTERM or SIGINT, which let the running round end; a second signal stops at once.

    Args:
        connection: PySyft's connection, if another than the account's own.

    Raises:
        ParameterError, RecordError: a folder, a store or an account that cannot be served.
    """
    account = Account.load(aggregator, set(aggregator.federation.members))
    folders = Folders(connection or connect(aggregator, account))
    settings = patient(settings, account.poll_seconds)
    os.umask(0o077)  # as over HTTP
    store = Store(settings.state)
    try:
        training = await asyncio.to_thread(take_up, aggregator, store)
        rounds = Rounds(aggregator, settings, training, store, witness=witness)
        desk = Desk(aggregator, account, folders, create_app(aggregator, rounds, store))
        started(f"{account.email}, through PySyft")
        await _until_stopped(desk, rounds, settings)
    finally:
        store.close()
        folders.close()


def patient(settings: Settings, poll_seconds: float) -> Settings:
    """Settings whose deadlines leave files the time to travel."""
    least = {name: looks * poll_seconds for name, looks in _LOOKS.items()}
    return settings.model_copy(
        update={name: max(getattr(settings, name), seconds) for name, seconds in least.items()}
    )


async def _until_stopped(desk: Desk, rounds: Rounds, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    signals: list[int] = []
    told = asyncio.Event()

    def stop() -> None:
        signals.append(1)
        told.set()
        if len(signals) > 1:
            working.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    working = asyncio.create_task(desk.run())
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    if told.is_set():
        log.info("stopping")
        with contextlib.suppress(asyncio.CancelledError):
            await rounds.drain(settings.phase_seconds)
            await desk.close()
    waiting.cancel()
    working.cancel()
    await asyncio.gather(working, waiting, return_exceptions=True)
    await rounds.drain(0)


@dataclass
class _Open:
    """A request that is being answered or was: its task, and the file of its answer."""

    gone: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    answer: str | None = None


@dataclass
class _Place:
    """One member's folders, and what is going on in them."""

    inbox: str
    outbox: str
    open: dict[str, _Open] = field(default_factory=dict)


class Desk:
    """Takes requests out of the members' inboxes and puts answers into their outboxes.

    Args:
        app: the aggregator's application; every request goes through its checks, as over HTTP.
    """

    def __init__(self, aggregator: Participant, account: Account, folders: Folders, app: Quart) -> None:
        self._members = aggregator.federation.members
        self._account = account
        self._folders = folders
        self._envelopes = envelopes_of(aggregator)
        task = aggregator.task
        vector = aggregator.sealing.vector_bytes(task.dimension, aggregator.parameters.auxiliary)
        self._largest = max(vector, largest_message(task.largest_cohort)) + OVERHEAD
        self._app: Any = app
        self._places: dict[str, _Place] = {}

    async def run(self) -> None:
        """Look into every member's folder, again and again."""
        while True:
            for member in self._members:
                try:
                    await self._look(member)
                except Exception as error:  # a folder that cannot be read now may be readable later
                    log.warning("a folder cannot be read", member=member, reason=f"{error!s:.200}")
            await asyncio.sleep(self._account.poll_seconds)

    async def close(self) -> None:
        """Let what is being answered be answered, then remove every answer that was read."""
        tasks = [entry.task for place in self._places.values() for entry in place.open.values() if entry.task]
        if tasks:
            await asyncio.wait(tasks, timeout=5 * self._account.poll_seconds)
        await asyncio.sleep(2 * self._account.poll_seconds)
        for place in self._places.values():
            with contextlib.suppress(Exception):
                await self._tidy(place, await self._folders.list(place.inbox))

    async def _look(self, member: str) -> None:
        place = self._places.get(member)
        if place is None:
            found = await self._folders.shared_by(self._account.people[member])
            if found is None:
                return
            place = self._places[member] = _Place(*found)
            for file in (await self._folders.list(place.outbox)).values():  # of an earlier process
                await self._folders.delete(file.id)
            log.info("a member's folders are there", member=member)
        files = await self._folders.list(place.inbox)
        await self._tidy(place, files)
        for name, file in files.items():
            if name.endswith(REQUEST) and name not in place.open and self._busy(place) < _OPEN_REQUESTS:
                entry = place.open[name] = _Open()
                entry.task = asyncio.create_task(self._serve(member, place, name, file))

    @staticmethod
    def _busy(place: _Place) -> int:
        return sum(1 for entry in place.open.values() if entry.task and not entry.task.done())

    async def _tidy(self, place: _Place, files: dict[str, File]) -> None:
        """What its member has taken away is over: stop working on it, remove the answer."""
        for name in [name for name in place.open if name not in files]:
            entry = place.open.pop(name, _Open())
            entry.gone.set()
            if entry.task:
                await asyncio.wait([entry.task])
            if entry.answer:
                await self._folders.delete(entry.answer)

    async def _serve(self, member: str, place: _Place, name: str, file: File) -> None:
        entry = place.open[name]
        try:
            letter = await self._read(member, file)
            answer = await self._ask(letter, entry.gone)
            if entry.gone.is_set():
                return
            sealed = await asyncio.to_thread(self._envelopes.seal, member, wire.encode(answer))
            entry.answer = await self._folders.put(place.outbox, name_of(letter.nonce, ANSWER), sealed)
        except ChoralError as error:
            log.warning("a file that is no request", member=member, reason=error.reason)
        except Exception as error:
            log.warning("a request could not be answered", member=member, reason=f"{error!s:.200}")
            if not entry.gone.is_set():  # and is taken up again at the next look
                place.open.pop(name, None)

    async def _read(self, member: str, file: File) -> Request:
        """The request in a file.

        Raises:
            PeerError, WireError: not one that `member` has sealed, whatever the folder says.
        """
        if file.size > self._largest:
            raise ChoralError(f"a file of {file.size} bytes, at most {self._largest} are taken")
        sealed = await self._folders.get(file.id)
        content = await asyncio.to_thread(self._envelopes.open, member, sealed)
        letter = wire.decode(Request, content)
        if letter.method not in _METHODS or not letter.path.startswith("/v1/"):
            raise ChoralError(f"found {letter.method} {letter.path!r:.100}, expected a request of §7.3")
        return letter

    async def _ask(self, letter: Request, gone: asyncio.Event) -> Answer:
        """What the application answers; `gone` is to it what a broken connection is."""
        path, _, query = letter.path.partition("?")
        # the address is nobody's: what a loopback address may see without a signature, nobody sees here
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": letter.method, "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "", "client": ("0.0.0.0", 0),  # noqa: S104
            "server": ("aggregator", 80), "extensions": {},
            "headers": [
                (b"host", b"aggregator"),
                (b"content-length", str(len(letter.body)).encode()),
                (b"authorization", letter.authorization.encode()),
            ],
        }  # fmt: skip
        status, body = 500, bytearray()
        unread = [{"type": "http.request", "body": letter.body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            body.extend(message.get("body", b""))

        await self._app(scope, receive, send)
        return Answer(letter.nonce, status, bytes(body))
