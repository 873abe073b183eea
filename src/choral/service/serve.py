"""Runs the aggregator until it is told to stop. SIGTERM lets the running round end first."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import structlog
import uvicorn
from quart import Quart

from choral.errors import ChoralError, ParameterError
from choral.federation.enrolment import Participant
from choral.service.app import create_app
from choral.service.certificate import ServerCertificate
from choral.service.probes import add_probes
from choral.service.problems import problem
from choral.service.rounds import Rounds
from choral.service.settings import Settings
from choral.service.store import Store
from choral.service.training import Training

log = structlog.get_logger("choral.serve")


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: it would close connections that a round still needs."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
    store = Store(settings.state)
    try:
        training = await asyncio.to_thread(Training, aggregator, store)
        if aborted := store.abort_open_rounds("the aggregator was restarted"):
            log.warning("rounds were open when the aggregator stopped", rounds=aborted)
        rounds = Rounds(aggregator, settings, training, store, witness=witness)
        certificate = _certificate(aggregator, settings)
        config = uvicorn.Config(
            create_app(aggregator, rounds, store, certificate=certificate),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            lifespan="off",
            ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        )
        server, listener = _Server(config), _listen(settings.host, settings.port)
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
        listener = _listen(settings.host, settings.metrics_port)
    except OSError as error:
        raise ParameterError(
            f"cannot listen on metrics_port {settings.metrics_port} ({error.strerror or error})"
        ) from error
    server = _Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1,
            lifespan="off",
        )
    )  # fmt: skip
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


def _listen(host: str, port: int) -> socket.socket:
    """The socket, made here: uvicorn would end the process without a word when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with the protocol named: only then asyncio turns Nagle's algorithm off, 40 ms a message
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def _stop_on_signals(server: uvicorn.Server, rounds: Rounds, settings: Settings) -> None:
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
