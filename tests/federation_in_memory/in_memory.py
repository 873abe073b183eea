"""A whole federation in one event loop: the client's members, the service's rounds, and no socket between.

`Line` stands where a member's `Transport` stands: it takes the same requests, hands what is in them to the
aggregator's `Rounds`, and answers with the same bytes and the same refusals. `client.over_http.OverHttp` on
top of it is an `exchange.Aggregator`. What happens on the way (delays, losses, duplicates) is a `Weather`'s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from choral.binding import problems
from choral.client.over_http import OverHttp
from choral.client.refusals import Unexplained, refusal
from choral.errors import ChoralError, IdentityError
from choral.federation.enrolment import Participant
from choral.federation.records import PAGE, Records
from choral.protocol import wire
from choral.protocol.messages import Advertise, Complaint, Consistency, Reveal, Shares
from choral.service.rounds.live import LiveRound, StillWaiting
from choral.service.rounds.requests import Rounds
from choral.service.serve import take_up
from choral.service.settings import Settings
from choral.service.state.sqlite import Store
from virtual import Process, now

_KINDS = {"shares": Shares, "consistency": Consistency, "unmask": Reveal, "complaint": Complaint}
_PASSING = 503  # as a broken connection (§7.5)
Content = bytes | Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Fate:
    """What becomes of one request: seconds there and back; lost, doubled, hung up on while it is served."""

    there: float = 0.0
    back: float = 0.0
    lost: bool = False
    unanswered: bool = False
    doubled: bool = False
    hangs_up: float | None = None


Weather = Callable[[], Fate]


class Aggregator:
    """The service of one folder, from its store up. It can be killed, and opened again."""

    def __init__(self, me: Participant, state: Path, **settings: Any) -> None:
        self.me = me
        self.settings = Settings(host="127.0.0.1", port=0, state=state, threads=1, **settings)
        self.process: Process | None = None
        self.failed: list[BaseException] = []  # what no request may end in
        self.opened: Callable[[Rounds], None] = lambda rounds: None

    def open(self, process: Process) -> None:
        """As `service.serve` does."""
        self.store = Store(self.settings.state)
        process.close = self.store.close
        process.start(self._open()).add_done_callback(self._looked)
        self.process = process

    async def _open(self) -> None:
        training = take_up(self.me, self.store)
        self.rounds = Rounds(
            self.me, self.settings, training, self.store, clock=now, wall=lambda: 1e9 + now()
        )
        self.opened(self.rounds)

    def _looked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.failed.append(error)

    @property
    def running(self) -> Process | None:
        return self.process if self.process and not self.process.dead else None

    # ----- requests, as `service.http.app` answers them -----------------------------------------

    async def answer(self, who: str, session: str, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        process = self.process
        try:
            return await self._routed(who, session, method, path, body)
        except StillWaiting:
            return 202, b""
        except ChoralError as error:
            status = problems.status_of(error)
            return status, json.dumps(problems.problem(error, status)).encode()
        except Exception as error:
            if process is not None and not process.dead:
                self.failed.append(error)
            return 500, b""

    async def _routed(  # noqa: PLR0911  (one route after the other)
        self, who: str, session: str, method: str, path: str, body: bytes
    ) -> tuple[int, bytes]:
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        rounds, found = self.rounds, None

        def here(waiting: Awaitable[Any]) -> Awaitable[Any]:
            return self._here(who, session, waiting)

        match method, *url.path.removeprefix("/v1/").split("/"):
            case "GET", "task":
                return 200, self.me.task.encode()
            case "GET", "records":
                rounds.presence.rest(who, query.get("resting"))
                return 200, await here(self._stretch(int(query["after"])))
            case "GET", "models", digest:
                return 200, rounds.training.blob(bytes.fromhex(digest))
            case "GET", "status":
                return 200, json.dumps(rounds.status()).encode()
            case "POST", "rounds":
                found = self._of(who, wire.decode(Advertise, body))
                without = [name for name in query.get("without", "").split(",") if name]
                return 200, await here(rounds.join(found, session, len(body), without))
            case "GET", "rounds", name:
                told = await rounds.outcome(bytes.fromhex(name))
                if isinstance(told, LiveRound):
                    return 200, json.dumps({"id": name, "state": "open"}).encode()
                return 200, json.dumps({**asdict(told), "id": name}).encode()
            case "PUT", "rounds", name, "masked":
                rounds.in_roster(bytes.fromhex(name), who)
                live = await here(self._masked(who, body))
                return 200, await here(rounds.survivors(live))
            case "GET", "rounds", name, "masked":
                live = rounds.has_masked(bytes.fromhex(name), who)
                return 200, await here(rounds.survivors(live))
            case "POST", "rounds", _, step:
                found = self._of(who, wire.decode(_KINDS[step], body))
                if step == "complaint":
                    await rounds.complain(found, len(body))
                    return 204, b""
                take = {"shares": rounds.share, "consistency": rounds.endorse, "unmask": rounds.reveal}[step]
                return 200, await here(take(found, len(body)))
        raise AssertionError(f"no such route: {method} {path}")

    async def _here(self, who: str, session: str, waiting: Awaitable[Any]) -> Any:
        with self.rounds.presence.connection(who, session):
            return await waiting

    async def _masked(self, who: str, body: bytes) -> LiveRound:
        task, auxiliary = self.me.task, self.me.parameters.auxiliary
        found = await asyncio.to_thread(self.me.sealing.decode_vector, body, task.dimension, auxiliary)
        self._of(who, found.head)
        return await self.rounds.mask(found, len(body))

    async def _stretch(self, after: int) -> bytes:
        await self.rounds.newer_than(after)
        newest = self.rounds.training.head.version
        found = await asyncio.to_thread(self.store.records, after, PAGE) if after < newest else ()
        return wire.encode(Records(newest, tuple(found)))

    @staticmethod
    def _of(who: str, found: Any) -> Any:
        if found.member != who:
            raise IdentityError(f"{who} sent a message in the name of {found.member}")
        return found


class Line:
    """One member's way to the aggregator, as its `Transport`: tries again what may pass."""

    def __init__(
        self,
        aggregator: Aggregator,
        name: str,
        session: str,
        weather: Weather = Fate,
        *,
        process: Process | None = None,
        sent: Callable[[str, str, bytes], None] = lambda method, path, body: None,
    ) -> None:
        self._aggregator = aggregator
        self._name, self._session = name, session
        self._weather = weather
        self._process = process
        self._sent = sent

    async def get(self, path: str) -> bytes:
        return await self.send("GET", path)

    async def send(
        self,
        method: str,
        path: str,
        content: Content = b"",
        *,
        again: tuple[str, str] | None = None,
        unexplained: float | None = None,
    ) -> bytes:
        """As `Transport.send`."""
        body = content if isinstance(content, bytes) else b"".join(content)
        failures, since = 0, now()
        while True:
            if self._process is not None:
                self._process.step()
            told = await self._once(method, path, body)
            if self._process is not None:
                self._process.step()
            if told is not None:
                status, data = told
                if status == 202:
                    (method, path), body = again or (method, path), b"" if again else body
                    failures, since = 0, now()
                    continue
                if status < 300:
                    return data
                error = refusal(status, data, len(body))
                lasting = isinstance(error, Unexplained) and (
                    unexplained is None or now() - since < unexplained
                )
                if status != _PASSING and not lasting:
                    raise error
            await asyncio.sleep(min(5.0, 0.1 * 2**failures))
            failures = min(failures + 1, 10)

    async def _once(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        """An answer, or None: the connection broke."""
        fate = self._weather()
        await asyncio.sleep(fate.there)
        if fate.lost or (process := self._aggregator.running) is None:
            return None
        self._sent(method, path, body)
        ask = (self._name, self._session, method, path, body)
        serving = process.start(self._aggregator.answer(*ask))
        if fate.doubled:
            process.start(self._aggregator.answer(*ask))
        try:
            async with asyncio.timeout(fate.hangs_up):
                told = await asyncio.shield(serving)
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            if process.dead and not (self._process and self._process.dead):
                return None
            raise
        finally:
            serving.cancel()
        await asyncio.sleep(fate.back)
        return None if fate.unanswered else told


def seat(aggregator: Aggregator, me: Participant, session: str, **line: Any) -> OverHttp:
    """An `exchange.Aggregator` for one member in this process."""
    way: Any = Line(aggregator, me.name, session, **line)
    return OverHttp(way, me.sealing)
