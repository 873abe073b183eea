"""Routes: bytes in, bytes out (§7). What a request means is decided elsewhere."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import structlog
from quart import Quart, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from choral.binding.access import Access, verify_access
from choral.binding.sizes import largest_message
from choral.errors import ChoralError, ClockError, IdentityError, PeerError, UnknownRound, WireError
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.records import PAGE, Records
from choral.protocol import wire
from choral.protocol.messages import Advertise, Complaint, Consistency, Reveal, Shares
from choral.service.http.bodies import read_body, read_vector, well_formed
from choral.service.http.certificate import ServerCertificate
from choral.service.http.exchange import Asked, Exchange, at_end
from choral.service.http.guard import is_local
from choral.service.http.line import HANG_UP
from choral.service.http.probes import add_probes
from choral.service.http.problems import Refused, problem
from choral.service.http.turns import Lending, Uploads, Visits
from choral.service.page.page import add_page
from choral.service.rounds.live import LiveRound, StillWaiting
from choral.service.rounds.requests import Rounds
from choral.service.state.sqlite import Store

T = TypeVar("T")
CBOR = "application/cbor"
_AT_ONCE = 1 << 12  # bytes of a message that are decoded in the event loop
log = structlog.get_logger("choral.app")


def create_app(  # noqa: PLR0915  (one route after the other)
    aggregator: Participant,
    rounds: Rounds,
    store: Store,
    *,
    certificate: ServerCertificate | None = None,
    wall: Callable[[], float] = time.time,
) -> Quart:
    """The aggregator's web application; `certificate` is what it is served with, to say when it expires."""
    app = Quart(__name__, static_folder=None)
    app.asgi_http_class, app.request_class = Exchange, Asked
    # sizes are checked here, against what the task needs; slow readers of a large model are no error
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    federation, task, settings = aggregator.federation, aggregator.task, rounds.settings
    keys = {**federation.pinned, AGGREGATOR: federation.aggregator_key}
    auxiliary = aggregator.parameters.auxiliary
    vector_limit = aggregator.sealing.vector_bytes(task.dimension, auxiliary)
    message_limit = largest_message(task.largest_cohort)
    visits, uploads, models = Visits(), Uploads(vector_limit), Lending[bytes]()
    app.extensions.update(visits=visits, uploads=uploads, models=models)

    def who(*, members_only: bool = True) -> Access:
        """The member whose signed header the request carries (§7).

        Raises:
            IdentityError: none, of somebody who is not enrolled, too old, or not signed by its key.
        """
        access = verify_access(
            request.headers.get("Authorization"),
            request.method,
            request.full_path.rstrip("?"),
            keys=federation.pinned if members_only else keys,
            now=wall(),
            skew=settings.clock_skew_seconds,
        )
        g.member = access.member
        at_end(visits.enter(access.member, request.headers["Authorization"], _hang_up()))
        return access

    async def message(kind: type[T], access: Access) -> tuple[T, int]:
        data = await read_body(message_limit, settings.phase_seconds)
        found = await _decode(kind, data)
        _same_member(access, found)
        return found, len(data)

    def connection(access: Access) -> AbstractContextManager[None]:
        if access.member == AGGREGATOR:  # whoever runs it may look, and is nobody to wait for
            return nullcontext()
        return rounds.presence.connection(access.member, access.session)

    async def answer(access: Access, waiting: Awaitable[bytes]) -> Response:
        """What `waiting` gives, or 202 when it takes too long."""
        with connection(access):
            try:
                data = await waiting
            except StillWaiting:
                return Response(b"", 202, {"Retry-After": "0"})
        return Response(data, 200, content_type=CBOR)

    @app.before_request
    async def check() -> None:
        well_formed()

    if certificate is not None:
        rounds.metrics.reads(
            "certificate_expiry_timestamp_seconds", "When the server's certificate ends, since 1970.",
            lambda: certificate.expires.timestamp(),  # noqa: PLW0108  (another one may be loaded)
        )  # fmt: skip
    add_probes(app, aggregator, rounds, store, metrics=settings.metrics_port is None, certificate=certificate)
    feed = add_page(app, aggregator, rounds, store, models)

    @app.get("/v1/status")
    async def status() -> Response:
        if not is_local():
            who(members_only=False)
        return jsonify({**rounds.status(), "tls": certificate.status() if certificate else None})

    @app.get("/v1/snapshot")
    async def snapshot() -> Response:
        if not is_local():
            who(members_only=False)
        return Response(await feed.snapshot(), content_type="application/json")

    @app.get("/v1/rounds")
    async def history() -> Response:
        if not is_local():
            who(members_only=False)
        rows = await asyncio.to_thread(store.rounds)
        return jsonify([row.told() for row in rows])

    @app.get("/v1/task")
    async def get_task() -> Response:
        who(members_only=False)
        return Response(task.encode(), 200, {"ETag": f'"{task.digest.hex()}"'}, content_type=CBOR)

    @app.get("/v1/records")
    async def get_records() -> Response:
        access = who(members_only=False)
        after = max(-1, request.args.get("after", -1, int))
        if access.member != AGGREGATOR:
            rounds.presence.rest(access.member, request.args.get("resting"))

        async def stretch() -> bytes:
            await rounds.newer_than(after)
            newest = rounds.training.head.version
            found = await asyncio.to_thread(store.records, after, PAGE) if after < newest else ()
            return wire.encode(Records(newest, tuple(found)))

        answered = await answer(access, stretch())
        rounds.metrics.sent("records", answered.content_length or 0)
        return answered

    @app.get("/v1/models/<digest>")
    async def get_model(digest: str) -> Response:
        who(members_only=False)
        name = _hex(digest)
        data = await models.lend(name, lambda: rounds.training.blob(name), at_end)
        rounds.metrics.sent("model", len(data))
        headers = {"ETag": f'"{digest}"', "Cache-Control": "private, immutable, max-age=31536000"}
        return Response(data, 200, headers, content_type="application/vnd.safetensors")

    @app.post("/v1/rounds")
    async def join() -> Response:
        access = who()
        found, size = await message(Advertise, access)
        without = [name for name in request.args.get("without", "").split(",") if name]
        return await answer(access, rounds.join(found, access.session, size, without))

    @app.post("/v1/rounds/<round_id>/shares")
    async def shares(round_id: str) -> Response:
        access = who()
        found, size = await message(Shares, access)
        _same_round(round_id, found)
        return await answer(access, rounds.share(found, size))

    async def hand_in(round_id: str, access: Access) -> LiveRound:
        """The round that took the vector in the request's body; it is let go of before the phase is over."""
        clock = asyncio.get_running_loop().time
        until = clock() + settings.phase_seconds
        async with uploads.turn(access.member, _hang_up(), until):
            began = clock()
            data = await read_vector(vector_limit, until - began, lambda: uploads.waiting > 0)
            rounds.metrics.uploaded(len(data), clock() - began)
            found = await asyncio.to_thread(aggregator.sealing.decode_vector, data, task.dimension, auxiliary)
            _same_member(access, found.head)
            _same_round(round_id, found.head)
            return await rounds.mask(found, len(data))

    @app.put("/v1/rounds/<round_id>/masked")
    async def put_masked(round_id: str) -> Response:
        access = who()
        rounds.in_roster(_hex(round_id), access.member)
        with connection(access):
            live = await hand_in(round_id, access)
        return await answer(access, rounds.survivors(live))

    @app.get("/v1/rounds/<round_id>/masked")
    async def get_masked(round_id: str) -> Response:
        access = who()
        return await answer(access, rounds.survivors(rounds.has_masked(_hex(round_id), access.member)))

    @app.post("/v1/rounds/<round_id>/consistency")
    async def consistency(round_id: str) -> Response:
        access = who()
        found, size = await message(Consistency, access)
        _same_round(round_id, found)
        return await answer(access, rounds.endorse(found, size))

    @app.post("/v1/rounds/<round_id>/unmask")
    async def unmask(round_id: str) -> Response:
        access = who()
        found, size = await message(Reveal, access)
        _same_round(round_id, found)
        return await answer(access, rounds.reveal(found, size))

    @app.post("/v1/rounds/<round_id>/complaint")
    async def complaint(round_id: str) -> Response:
        access = who()
        found, size = await message(Complaint, access)
        _same_round(round_id, found)
        await rounds.complain(found, size)
        return Response(b"", 204)

    @app.get("/v1/rounds/<round_id>")
    async def outcome(round_id: str) -> Response:
        who(members_only=False)
        found = await rounds.outcome(_hex(round_id))
        if isinstance(found, LiveRound):
            return jsonify(id=round_id, state="open", phase=found.machine.phase.value)
        return jsonify(found.told())

    @app.errorhandler(ChoralError)
    async def refuse(error: ChoralError) -> Response:
        rounds.metrics.refused(error.slug)
        if isinstance(error, PeerError | IdentityError | ClockError | WireError):
            log.info("a request was refused", problem=error.slug, reason=error.reason, **_about())
        return problem(error)

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        answered = problem(Refused(status, "http", error.description or error.name))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            answered.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return answered

    @app.errorhandler(sqlite3.Error)
    async def storage(error: sqlite3.Error) -> Response:
        log.error(
            "the store failed", path=request.path, reason=f"{type(error).__name__}: {error}", **_about()
        )
        return problem(
            Refused(
                503, "storage", f"the aggregator's store cannot be read or written ({error})",
                "whoever runs the aggregator looks at its log, and at docs/operating.md, State and backup",
            )
        )  # fmt: skip

    @app.errorhandler(Exception)
    async def internal(error: Exception) -> Response:
        log.exception("a request failed", path=request.path, **_about())
        return problem(Refused(500, "internal", f"the aggregator failed: {type(error).__name__}"))

    return app


async def _decode(kind: type[T], data: bytes) -> T:
    """The message in `data`; large ones are taken apart beside the event loop."""
    if len(data) <= _AT_ONCE:
        return wire.decode(kind, data)
    return await asyncio.to_thread(wire.decode, kind, data)


def _hang_up() -> Callable[[], None]:
    """What ends the request from outside, as if its client had hung up."""
    task: Any = asyncio.current_task()
    connection = request.scope["state"].get(HANG_UP)  # none where requests come as files

    def hang_up() -> None:
        if connection:
            connection()
        task.cancel()

    return hang_up


def _hex(text: str) -> bytes:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise UnknownRound(f"found {text[:80]!r} in the address, expected 64 hexadecimal digits")
    return bytes.fromhex(text)


def _same_round(round_id: str, found: Any) -> None:
    if _hex(round_id) != found.round_id:
        raise WireError("the round in the address is not the one in the message")


def _same_member(access: Access, found: Any) -> None:
    if access.member != found.member:
        raise IdentityError(f"{access.member} sent a message in the name of {found.member}")


def _about() -> dict[str, str]:
    """Round and member of the request, as far as it has them, for the log."""
    found = {"member": g.get("member", ""), "round": (request.view_args or {}).get("round_id", "")[:12]}
    return {name: value for name, value in found.items() if value}
