"""What goes wrong in a federation, drawn from one number, and a federation that goes through it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from in_memory import Aggregator, Fate, Line

from choral.client.events import calling
from choral.client.journal import Journal
from choral.client.learner import Update
from choral.client.member import Member
from choral.client.over_http import OverHttp
from choral.errors import ChoralError
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.records import Record
from choral.founding.folders import provision
from choral.learning import Softmax
from choral.primitives.entropy import seeded
from choral.protocol.messages import Inbox, Shares
from choral.protocol.transcript import sign
from choral.service.rounds.events import SumMade
from choral.service.rounds.requests import Rounds
from house import CLASSES, FEATURES, examples, make_task
from virtual import Process, now

LONGEST = 6 * 3600.0  # seconds, virtual: a schedule that is not over by then hangs
_SETTINGS = {
    "join_seconds": 3.0, "phase_seconds": 3.0, "gone_seconds": 0.5, "startup_seconds": 1.0,
    "wait_seconds": 10.0,
}  # fmt: skip


@dataclass(frozen=True)
class Death:
    """Of one life of a process: before which step or after how many seconds, and how long it is away."""

    step: int | None
    seconds: float | None
    away: float


@dataclass(frozen=True)
class Lie:
    """Who lies, how (`commitment` or `seal`), and how often."""

    who: str
    how: str
    times: int


@dataclass(frozen=True)
class Schedule:
    """What happens to a federation. The same number, the same schedule."""

    number: int
    members: int
    rounds: int
    staleness: int
    deaths: dict[str, list[Death]]  # by who dies: one a life
    bad: float  # of that part of all requests something comes
    slow: float  # seconds that most messages take at most
    lie: Lie | None

    @classmethod
    def of(cls, number: int) -> Schedule:
        draw = random.Random(number)
        members, rounds = draw.choice([3, 3, 3, 4, 4, 4, 5, 6]), draw.choice([2, 2, 2, 3, 4])
        names = [f"m{i}" for i in range(1, members + 1)]
        deaths: dict[str, list[Death]] = {}
        for _ in range(draw.choice([0, 1, 1, 2, 2, 3, 4])):
            who = draw.choice([*names, AGGREGATOR])
            by_step = draw.random() < 0.7
            deaths.setdefault(who, []).append(
                Death(
                    draw.randint(1, 40 * rounds) if by_step else None,
                    None if by_step else draw.uniform(0, 0.3 * rounds),
                    draw.choice([0.0, 0.05, 0.4, 2.0, 8.0, 30.0]),
                )
            )
        lie = None
        if members > 3 and draw.random() < 0.25:
            lie = Lie(draw.choice(names), draw.choice(["commitment", "seal"]), draw.randint(1, 3))
        staleness = draw.choice([0, 0, 1])
        bad, slow = draw.choice([0.0, 0.02, 0.05, 0.1]), draw.choice([0.001, 0.01, 0.1])
        return cls(number, members, rounds, staleness, deaths, bad, slow, lie)

    def weather(self) -> Any:
        """What becomes of each request, in the order in which they are made."""
        draw = random.Random(f"{self.number} weather")

        def pause() -> float:
            return draw.uniform(0, self.slow) if draw.random() > self.bad / 4 else draw.uniform(0, 5)

        def next_() -> Fate:
            fate = Fate(pause(), pause())
            if draw.random() >= self.bad:
                return fate
            kind = draw.choice(["lost", "unanswered", "doubled", "hangs_up"])
            return replace(fate, **{kind: draw.uniform(0, 4 * self.slow) if kind == "hangs_up" else True})

        return next_


@cache
def _folders(root: Path, members: int, rounds: int, staleness: int) -> dict[str, Participant]:
    """Everybody's, made once: schedules differ in their states."""
    task, initial = make_task(members, rounds=rounds, max_staleness=staleness)
    names = [f"m{i}" for i in range(1, members + 1)]
    folder = root / f"{members}-{rounds}-{staleness}"
    provision(
        folder, url="http://127.0.0.1:1", members=names, task=task, initial=initial, minimum=3,
        tolerated="quarter", random=seeded(b"the folders"),
    )  # fmt: skip
    return {name: Participant.load(folder / name) for name in (*names, AGGREGATOR)}


@dataclass(frozen=True, eq=False)
class Sent:
    """What a member was about to send in a round, in the clear."""

    base: Record
    update: Update
    digest: bytes
    vector: np.ndarray[Any, Any]


@dataclass
class Seen:
    """What everybody did, by who is nobody's party."""

    sent: dict[tuple[bytes, str], Sent] = field(default_factory=dict)
    wire: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)  # (path, who): bodies
    too_early: list[str] = field(default_factory=list)
    sums: dict[bytes, np.ndarray[Any, Any]] = field(default_factory=dict)
    events: list[tuple[float, str, str, dict[str, Any]]] = field(default_factory=list)
    ended: dict[str, Record | ChoralError] = field(default_factory=dict)
    odd: list[dict[str, Any]] = field(default_factory=list)  # what a loop could not tell anybody
    lies: int = 0
    kills: int = 0


class Watched(Member):
    """The real member; what it spends is seen in the clear."""

    seen: Seen

    async def contribute(self, base: Record, update: Update) -> None:
        # the update is masked in place later on
        self._about = base, replace(update, vector=update.vector.copy()), update.digest
        await super().contribute(base, update)

    def _bear_witness(self, round_id: bytes, vector: Any) -> None:
        self.seen.sent[round_id, self._me.name] = Sent(*self._about, vector)


class Lying(OverHttp):
    """A member's seat that changes what its member deals, so many times."""

    def __init__(self, line: Any, me: Participant, lie: Lie, seen: Seen) -> None:
        super().__init__(line, me.sealing)
        self._me, self._lie, self._seen = me, lie, seen

    async def share(self, shares: Shares) -> Inbox:
        if self._seen.lies < self._lie.times:
            self._seen.lies += 1
            if self._lie.how == "commitment":  # to another seed; its own machine believes it
                false = sign(self._me.identity, replace(shares, commitment=hashlib.sha256(b"").digest()))
                for name in ("commitment", "signature"):
                    object.__setattr__(shares, name, getattr(false, name))
            else:
                at = next(i for i, sealed in enumerate(shares.seals) if sealed)
                broken = (*shares.seals[:at], bytes(len(shares.seals[at])), *shares.seals[at + 1 :])
                object.__setattr__(shares, "seals", broken)
        return await super().share(shares)


class Play:
    """One schedule, from the first process to the last one's end."""

    def __init__(self, schedule: Schedule, root: Path, state: Path, **settings: Any) -> None:
        self.schedule = schedule
        self.folders = _folders(root, schedule.members, schedule.rounds, schedule.staleness)
        self.state = state
        self.seen = Seen()
        self.weather = schedule.weather()
        self._draw = random.Random(f"{schedule.number} threads")
        self.aggregator = Aggregator(self.folders[AGGREGATOR], state / AGGREGATOR, **(_SETTINGS | settings))
        self.aggregator.opened = self._opened

    @property
    def members(self) -> list[str]:
        return [name for name in self.folders if name != AGGREGATOR]

    async def run(self) -> None:
        """Until every member has ended."""
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.seen.odd.append(context))
        serving = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout(LONGEST):
                await asyncio.gather(*(self._live(name) for name in self.members))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            if process := self.aggregator.running:
                process.kill()
            for _ in range(5):  # those that were killed are gone
                await asyncio.sleep(0)

    def _process(self, name: str, death: Death | None) -> Process:
        process = Process(
            name, dies_at=death.step if death else None,
            pause=lambda: self._draw.choice([0.0, 0.0, 0.0, 0.001, self.schedule.slow]),
        )  # fmt: skip
        if death and death.seconds is not None:
            asyncio.get_running_loop().call_later(death.seconds, process.kill)
        return process

    def _lives(self, name: str) -> list[Death | None]:
        return [*self.schedule.deaths.get(name, ()), None]

    async def _serve(self) -> None:
        for death in self._lives(AGGREGATOR):
            process = self._process(AGGREGATOR, death)
            self.aggregator.open(process)
            await process.died.wait()
            self._killed(AGGREGATOR)
            await asyncio.sleep(death.away if death else math.inf)

    def _opened(self, rounds: Rounds) -> None:
        def keep(event: SumMade) -> None:  # it is lent
            self.seen.sums[event.round] = event.vector.copy()

        rounds.events.subscribe(SumMade, keep)

    async def _live(self, name: str) -> None:
        for life, death in enumerate(self._lives(name)):
            process = self._process(name, death)
            work = process.start(self._take_part(name, life, process))
            await asyncio.wait([work])
            if not process.dead:
                self.seen.ended[name] = work.result()
                return
            self._killed(name)
            assert death is not None
            await asyncio.sleep(death.away)

    def _killed(self, name: str) -> None:
        self.seen.kills += 1
        self._tell(name, "killed")

    def _tell(self, name: str, event: str, **details: Any) -> None:
        self.seen.events.append((now(), name, event, details))

    async def _take_part(self, name: str, life: int, process: Process) -> Record | ChoralError:
        me, seed = self.folders[name], f"{self.schedule.number} {name} {life}"
        journal = Journal(self.state / name)
        process.close = journal.close
        session = hashlib.sha256(seed.encode()).hexdigest()[:16]
        line: Any = Line(
            self.aggregator, name, session, self.weather, process=process,
            sent=lambda method, path, body: self._on_the_wire(name, method, path, body),
        )  # fmt: skip
        lie = self.schedule.lie
        lies = lie is not None and lie.who == name
        member = Watched(
            me, Softmax(FEATURES, CLASSES, epochs=1, batch=8), examples(int(name[1:]), 15),
            Lying(line, me, lie, self.seen) if lies else OverHttp(line, me.sealing),
            journal, random=seeded(seed.encode()), witness=self.state,
            tell=calling(lambda event, **details: self._tell(name, event, **details)),
        )  # fmt: skip
        member.seen = self.seen
        try:
            return await member.run()
        except ChoralError as error:
            return error
        finally:
            journal.close()

    def _on_the_wire(self, name: str, method: str, path: str, body: bytes) -> None:
        if method == "PUT":
            self.seen.wire.setdefault((path, name), set()).add(body)
            if (bytes.fromhex(path.split("/")[3]), name) not in self.seen.sent:
                self.seen.too_early.append(f"{name} sent {path} before it was marked as sent")
