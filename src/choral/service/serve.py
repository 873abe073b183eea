"""Runs the aggregator until it is told to stop. SIGTERM lets the running round end first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog
from quart import Quart

from choral.errors import ChoralError, ParameterError
from choral.federation.enrolment import Participant
from choral.service.http import line
from choral.service.http.app import create_app
from choral.service.http.certificate import ServerCertificate
from choral.service.http.listener import Listener, raise_file_limit, room_for
from choral.service.http.probes import add_probes
from choral.service.http.problems import problem
from choral.service.rounds.requests import Rounds
from choral.service.settings import Settings
from choral.service.state.sqlite import Store
from choral.service.training import Training

log = structlog.get_logger("choral.serve")


async def serve(
    aggregator: Participant,
    settings: Settings,
    *,
    witness: Path | None = None,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM or SIGINT; a second signal stops at once.

    Raises:
        ParameterError, RecordError: a folder or a store that cannot be served.
        OSError: the address cannot be listened on.
    """
    os.umask(0o077)  # what is kept is nobody else's to read
    store = Store(settings.state)
    try:
        training = await asyncio.to_thread(take_up, aggregator, store)
        rounds = Rounds(aggregator, settings, training, store, witness=witness)
        certificate = _certificate(aggregator, settings)
        server = line.server(
            create_app(aggregator, rounds, store, certificate=certificate),
            refused=rounds.metrics.refused,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        )
        listener = listen(settings, tls=certificate is not None)
        listener.refused = rounds.metrics.refused
        _stop_on_signals(server, rounds, settings)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        if server.started:
            host, port = listener.getsockname()[:2]
            scheme = "https" if certificate else "http"
            started(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
        watching = asyncio.create_task(certificate.watch()) if certificate else None
        async with _figures(aggregator, rounds, store, certificate):
            await running
        if watching:
            watching.cancel()
        await rounds.drain(0)
    finally:
        store.close()


def take_up(aggregator: Participant, store: Store) -> Training:
    """The model log as it was left; rounds that were open are over.

    Raises:
        ParameterError: a file that SQLite cannot read.
    """
    try:
        training = Training(aggregator, store)
        if aborted := store.abort_open_rounds("the aggregator was restarted"):
            log.warning("rounds were open when the aggregator stopped", rounds=aborted)
        store.rounds()
    except sqlite3.Error as error:
        raise ParameterError(
            f"{store.path}: cannot be read ({error})",
            hint="a damaged file or disk: keep a copy of the file, and bring back the newest backup"
            " (docs/operating.md, State and backup); `sqlite3 FILE .recover` may save what is newer",
        ) from error
    return training


@contextlib.asynccontextmanager
async def _figures(
    aggregator: Participant, rounds: Rounds, store: Store, certificate: ServerCertificate | None
) -> AsyncIterator[None]:
    """Health checks and figures on a port of their own, in plain HTTP, if there is to be one.

    Raises:
        ParameterError: the port cannot be listened on.
    """
    settings = rounds.settings
    if settings.metrics_port is None:
        yield
        return
    app = Quart("choral.figures", static_folder=None)
    add_probes(app, aggregator, rounds, store, metrics=True, certificate=certificate)
    app.register_error_handler(ChoralError, problem)
    try:
        listener = Listener(settings.host, settings.metrics_port, most=32, per_address=16)
    except OSError as error:
        raise ParameterError(
            f"cannot listen on metrics_port {settings.metrics_port} ({error.strerror or error})"
        ) from error
    server = line.server(app, timeout_graceful_shutdown=1)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    log.info("figures", port=listener.getsockname()[1])
    try:
        yield
    finally:
        server.should_exit = True
        await running


def _certificate(aggregator: Participant, settings: Settings) -> ServerCertificate | None:
    """What to serve TLS with.

    Raises:
        ParameterError: one file without the other, or files that cannot be used.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate and key:
        return ServerCertificate(certificate, key)
    if certificate or key:
        raise ParameterError(
            "tls_certificate and tls_key go together, found only one of them",
            hint="settings.toml, or CHORAL_TLS_CERTIFICATE and CHORAL_TLS_KEY",
        )
    if aggregator.federation.aggregator.url.startswith("https:"):
        log.warning(
            "members are told an https address, and this process speaks HTTP",
            hint="fine behind a proxy that ends TLS; otherwise set tls_certificate and tls_key",
        )
    return None


def listen(settings: Settings, *, tls: bool) -> Listener:
    """The socket, made here: uvicorn would end the process without a word when it cannot.

    Raises:
        OSError: the address cannot be listened on.
    """
    most, per_address = room_for(raise_file_limit(), settings.connections, settings.connections_per_address)
    return Listener(settings.host, settings.port, most=most, per_address=per_address, tls=tls)


def _stop_on_signals(server: line.Server, rounds: Rounds, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def drain() -> None:
        await rounds.drain(settings.phase_seconds)
        server.should_exit = True

    def stop() -> None:
        if tasks:
            server.should_exit = server.force_exit = True
            return
        log.info("stopping")
        tasks.add(loop.create_task(drain()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
