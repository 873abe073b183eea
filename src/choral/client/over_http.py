"""The exchange of a member over HTTP: paths, bodies, statuses (§7.3). What is asked is `client.exchange`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from choral.client.refusals import TooLarge, Unexplained
from choral.client.transport import Transport
from choral.errors import (
    AggregatorUnavailable,
    ChoralError,
    ClockError,
    IdentityError,
    PeerError,
    RoundAborted,
    ShuttingDown,
    Superseded,
    TlsError,
    UnknownRound,
    WireError,
)
from choral.federation.records import Record, Records
from choral.protocol import wire
from choral.protocol.messages import (
    Advertise,
    Complaint,
    Consistency,
    Endorsements,
    Inbox,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)
from choral.protocol.sealing import AES_GCM, Sealing

T = TypeVar("T")
Content = bytes | Sequence[bytes | memoryview]

_IN_ROUND = 60.0  # seconds after which a round whose answers explain nothing is given up
_ASIDE = 10.0  # the same for what a member can do without
_MEANT = (
    Superseded, ShuttingDown, RoundAborted, UnknownRound, PeerError, WireError, IdentityError, ClockError,
    TooLarge,
)  # fmt: skip


class OverHttp:
    """An `exchange.Aggregator` at the other end of a transport.

    An answer that does not decode is fetched once more before it counts: over plain HTTP a bit may flip.
    """

    def __init__(self, transport: Transport, sealing: Sealing = AES_GCM) -> None:
        self.transport = transport
        self._sealing = sealing

    async def task(self) -> bytes:
        return await self.transport.get("/v1/task")

    async def records(self, after: int, resting: str | None = None) -> Records:
        path = f"/v1/records?after={after}" + (f"&resting={resting}" if resting else "")
        return await self._twice(Records, "GET", path)

    async def model(self, digest: bytes) -> bytes:
        return await self.transport.get(f"/v1/models/{digest.hex()}")

    async def outcome(self, round_id: bytes) -> Any:
        return _json(await self.transport.send("GET", f"/v1/rounds/{round_id.hex()}", unexplained=_ASIDE))

    async def status(self) -> Any:
        return _json(await self.transport.send("GET", "/v1/status", unexplained=_ASIDE))

    # ----- a round ------------------------------------------------------------------------------

    async def join(self, advertise: Advertise, without: Sequence[str]) -> Roster:
        path = "/v1/rounds" + (f"?without={','.join(without)}" if without else "")
        return await self._question(Roster, "POST", path, wire.encode(advertise), open_end=True)

    async def share(self, shares: Shares) -> Inbox:
        return await self._question(Inbox, "POST", f"{_at(shares.round_id)}/shares", wire.encode(shares))

    async def mask(self, vector: MaskedVector) -> Survivors:
        path = f"{_at(vector.head.round_id)}/masked"
        body = self._sealing.encode_vector(vector)
        return await self._question(Survivors, "PUT", path, body, again=("GET", path))

    async def endorse(self, consistency: Consistency) -> Endorsements:
        path = f"{_at(consistency.round_id)}/consistency"
        return await self._question(Endorsements, "POST", path, wire.encode(consistency))

    async def reveal(self, reveal: Reveal) -> Record:
        return await self._question(Record, "POST", f"{_at(reveal.round_id)}/unmask", wire.encode(reveal))

    async def complain(self, complaint: Complaint) -> None:
        path = f"{_at(complaint.round_id)}/complaint"
        await self.transport.send("POST", path, wire.encode(complaint), unexplained=_ASIDE)

    # ----- one question -------------------------------------------------------------------------

    async def _question(
        self,
        kind: type[T],
        method: str,
        path: str,
        content: Content,
        *,
        again: tuple[str, str] | None = None,
        open_end: bool = False,
    ) -> T:
        """As `Exchange` says: a refusal that means nothing to a member in a round ends that round only."""
        unexplained = None if open_end else _IN_ROUND
        try:
            return await self._twice(kind, method, path, content, again=again, unexplained=unexplained)
        except (AggregatorUnavailable, TlsError) as error:
            if not isinstance(error, Unexplained) or isinstance(error, TooLarge):
                raise
            raise RoundAborted(error.reason, hint=error.hint) from error
        except _MEANT:
            raise
        except ChoralError as error:
            raise RoundAborted(error.reason, hint=error.hint) from error

    async def _twice(
        self,
        kind: type[T],
        method: str,
        path: str,
        content: Content = b"",
        *,
        again: tuple[str, str] | None = None,
        unexplained: float | None = None,
    ) -> T:
        """An answer, decoded; asked for once more if it is damaged."""
        ask = self.transport.send
        data = await ask(method, path, content, again=again, unexplained=unexplained)
        try:
            return wire.decode(kind, data)
        except WireError:
            if again is not None:
                with contextlib.suppress(PeerError):  # it has not got the body: whoever answered was not it
                    return wire.decode(kind, await ask(*again, unexplained=unexplained))
            return wire.decode(kind, await ask(method, path, content, again=again, unexplained=unexplained))


def _at(round_id: bytes) -> str:
    return f"/v1/rounds/{round_id.hex()}"


def _json(data: bytes) -> Any:
    """JSON of whatever shape; None for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
