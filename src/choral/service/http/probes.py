"""What machines ask: `/livez`, `/readyz` with reasons, `/metrics`. None of them needs a signature."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

from quart import Quart, Response, jsonify

from choral.federation.enrolment import Participant
from choral.primitives.identity import verify
from choral.service.http.certificate import ServerCertificate
from choral.service.http.guard import is_local
from choral.service.http.problems import Refused
from choral.service.metrics import CONTENT_TYPE
from choral.service.rounds.requests import Rounds
from choral.service.state.sqlite import Store

_FRESH = 1.0  # seconds for which a look at the disk is good


def add_probes(
    app: Quart,
    aggregator: Participant,
    rounds: Rounds,
    store: Store,
    *,
    metrics: bool,
    certificate: ServerCertificate | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Put the health checks on `app`, and `/metrics` if it is to be there."""
    looked, reasons = -_FRESH, [""]

    @app.get("/livez")
    async def livez() -> Response:
        return jsonify(status="alive")

    @app.get("/readyz")
    async def readyz() -> Response:
        nonlocal looked, reasons
        if clock() - looked > _FRESH:
            looked = clock()
            reasons = await asyncio.to_thread(lambda: [_key(aggregator), _storage(store)])
        wrong = [reason for reason in reasons if reason]
        if certificate is not None and certificate.seconds_left < 0:
            wrong.append("the server's certificate has expired")
        if rounds.stuck:
            wrong.append(rounds.stuck)
        if rounds.draining:
            wrong.append("the aggregator is stopping")
        answer = jsonify(
            status="not ready" if wrong else "ready", version=rounds.training.head.version, reasons=wrong
        )
        answer.status_code = 503 if wrong else 200
        return answer

    if metrics and rounds.settings.metrics != "off":

        @app.get("/metrics")
        async def figures() -> Response:
            if rounds.settings.metrics == "local" and not is_local():
                raise Refused(
                    403, "not-local", "the figures are given on the aggregator's own machine only",
                    'metrics = "open" gives them to whoever reaches the port',
                )  # fmt: skip
            return Response(rounds.metrics.text(), content_type=CONTENT_TYPE)


def _key(aggregator: Participant) -> str:
    """Whether the key that is loaded signs what the federation's members will accept."""
    signature = aggregator.identity.sign("choral/1 probe", b"")
    good = verify(aggregator.federation.aggregator_key, signature, "choral/1 probe", b"")
    return "" if good else "the key that is loaded is not the federation's"


def _storage(store: Store) -> str:
    try:
        store.writable()
    except (sqlite3.Error, OSError) as error:
        return f"nothing can be saved: {error}"
    return ""
