"""PROTOCOL §5 under any kills and aborts: no update is sent in two rounds, nor is in the model twice.

The member is the real loop with the real journal; the aggregator and the other members are the real
machines, played in memory behind `client.exchange`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from choral.client import member as client
from choral.client.journal import FILE, Journal
from choral.client.learner import Update
from choral.client.member import Member
from choral.errors import RoundAborted, ShuttingDown, Superseded, UnknownRound
from choral.federation import records
from choral.federation.enrolment import INITIAL, Participant
from choral.federation.records import Records
from choral.learning import Softmax, model_file
from choral.protocol import phases
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.member import MemberRound
from choral.protocol.messages import Advertise, Consistency, Reveal, Shares
from choral.protocol.transcript import sign
from choral.vectors.totals import Totals
from house import CLASSES, FEATURES, examples, make_folder

STEPS = ("rounds", "shares", "masked", "consistency", "unmask")


class Killed(BaseException):
    """The member's process is gone: nothing of it catches this."""


class Stage:
    """The aggregator and the others, for one member that is killed and aborted as `plan` says."""

    def __init__(self, root: Path, plan: list[tuple[str, str]]) -> None:
        self.folder = make_folder(root / "fed", 3, rounds=4)
        self.me = Participant.load(self.folder / "m1")
        self.others = [Participant.load(self.folder / f"m{i}") for i in (2, 3)]
        self.aggregator = Participant.load(self.folder / "aggregator")
        self.initial = (self.folder / "aggregator" / INITIAL).read_bytes()
        digest = model_file.digest(self.initial)
        self.log = [records.first(self.aggregator.identity, self.me.task.digest, digest, bytes(32))]
        self.plan = plan
        self.machine: AggregatorRound | None = None
        self.outcomes: dict[bytes, Any] = {}
        self.sent: list[bytes] = []  # round ids in which a masked vector of m1 left its process
        self.resting = False

    # ----- client.exchange.Aggregator -----------------------------------------------------------

    async def task(self) -> bytes:
        return self.me.task.encode()

    async def model(self, digest: bytes) -> bytes:
        return self.initial  # every version has the model of the first: only the log moves

    async def records(self, after: int, resting: str | None = None) -> Records:
        await asyncio.sleep(0)
        while self.resting is False:
            if self.log[-1].version > after:
                return Records(self.log[-1].version, tuple(self.log[after + 1 :]))
            await asyncio.sleep(0.001)
        raise Killed  # it waits for a changed model, and nobody else will ever make one

    async def outcome(self, round_id: bytes) -> Any:
        if round_id not in self.outcomes:
            raise UnknownRound("there was no such round")
        return self.outcomes[round_id]

    async def status(self) -> Any:
        return None

    async def complain(self, complaint: Any) -> None:
        return None

    async def join(self, advertise: Advertise, without: Any) -> Any:
        return await self._step("rounds", advertise)

    async def share(self, shares: Shares) -> Any:
        return await self._step("shares", shares)

    async def mask(self, vector: Any) -> Any:
        return await self._step("masked", vector)

    async def endorse(self, consistency: Consistency) -> Any:
        return await self._step("consistency", consistency)

    async def reveal(self, reveal: Reveal) -> Any:
        return await self._step("unmask", reveal)

    async def _step(self, step: str, message: Any) -> Any:
        await asyncio.sleep(0)
        what = self._next(step)
        if what == "killed before":
            raise Killed
        if what == "refused":
            self.machine = None
            raise RoundAborted("somebody was missing", missing=["m2"])
        answer = self._round(step, message)
        if what == "killed after":
            raise Killed
        if what == "lost":
            self.machine = None
            raise UnknownRound("the aggregator was restarted")
        return answer

    def _next(self, step: str) -> str:
        if self.plan and self.plan[0][0] == step:
            return self.plan.pop(0)[1]
        return ""

    # ----- one round ----------------------------------------------------------------------------

    def _round(self, step: str, message: Any) -> Any:
        if step == "rounds":
            base = self.log[-1]
            if base.version >= self.me.task.rounds or message.ctx != base.context:
                raise Superseded("the newest is another")
            self.machine = AggregatorRound(
                self.me.federation.pinned, self.aggregator.parameters, base.context
            )
            self.rest = [self._other(other, base) for other in self.others]
            for other in self.rest:
                self.machine.receive(other.advertise)
            return self._take(message, self.machine.roster)
        if self.machine is None:
            raise UnknownRound("no such round")
        if step == "shares":
            return self._take(message, lambda: self.machine.inbox("m1"))
        if step == "masked":
            self.sent.append(message.head.round_id)
            return self._take(message, self.machine.survivors)
        if step == "consistency":
            return self._take(message, self.machine.endorsements)
        self._take(message, lambda: None)
        return self._commit()

    def _other(self, other: Participant, base: Any) -> MemberRound:
        me = phases.Member(
            other.name, other.identity, self.me.federation.pinned, other.parameters, base.context
        )
        d = self.me.task.dimension
        return MemberRound(me, np.zeros(d, np.uint32), Totals(1).encode(), os.urandom)

    def _take(self, message: Any, answer: Any) -> Any:
        assert self.machine is not None
        self.machine.receive(message)
        self.machine.close()
        found = answer()
        if found is not None:
            for other in self.rest:
                own = self.machine.inbox(other.me.name) if type(found).__name__ == "Inbox" else found
                self.machine.receive(other.receive(own))
        return found

    def _commit(self) -> Any:
        assert self.machine is not None
        total, head = self.machine.total, self.log[-1]
        record = sign(
            self.aggregator.identity,
            replace(
                head, version=head.version + 1, previous=head.digest, base=head.digest,
                round_id=self.machine.round_id, survivors=total.survivors,
            ),
        )  # fmt: skip
        self.log.append(record)
        self.outcomes[record.round_id] = {
            "state": "done", "details": {"version": record.version, "survivors": ["m1", "m2", "m3"]},
        }  # fmt: skip
        self.machine = None
        return record


class Spy(MemberRound):
    """Remembers what was to be sent, before masks."""

    vectors: dict[bytes, bytes]
    digests: ClassVar[dict[bytes, bytes]] = {}  # as the journal names them

    def __init__(self, me: Any, vector: Any, auxiliary: Any, random: Any, **more: Any) -> None:
        super().__init__(me, vector, auxiliary, random, **more)
        self._plain = hashlib.sha256(vector.data).digest()
        self._digest = Update(vector.copy(), Totals(1)).digest

    def receive(self, message: Any) -> Any:
        answer = super().receive(message)
        if self.round_id is not None:
            Spy.vectors[self.round_id] = self._plain
            Spy.digests[self.round_id] = self._digest
        return answer


async def live_and_die(stage: Stage) -> bool:
    """One process of m1, from start to its end; whether the training was over."""
    journal = Journal(stage.me.folder / "state")
    stage.resting = False
    try:
        member = Member(
            stage.me, Softmax(FEATURES, CLASSES, batch=8), examples(1), stage, journal, random=os.urandom,
            tell=lambda event: setattr(stage, "resting", event.name == "resting"),
        )  # fmt: skip
        await asyncio.wait_for(member.run(), 10)
    except Killed:
        return False
    finally:
        journal.close()
    return True


def spent(stage: Stage) -> dict[bytes, bytes]:
    with sqlite3.connect(stage.me.folder / "state" / FILE) as db:
        return dict(db.execute("select round_id, digest from spent").fetchall())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(client, "_PAUSE", 0.0)
    monkeypatch.setattr(client, "_OUTCOME", 0.05)
    monkeypatch.setattr(client, "MemberRound", Spy)

    async def no_pause(self: Any, base: Any, seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Member, "_newer_or_pause", no_pause)


incident = st.tuples(
    st.sampled_from(STEPS), st.sampled_from(["killed before", "killed after", "refused", "lost"])
)


@settings(
    max_examples=15, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(plan=st.lists(incident, max_size=6))
def test_no_update_is_sent_in_two_rounds_whatever_happens(plan):
    root = Path(tempfile.mkdtemp(prefix="choral-spent-"))
    try:
        Spy.vectors = {}
        stage = Stage(root, list(plan))
        for _ in range(len(plan) + 2):
            if asyncio.run(live_and_die(stage)):
                break
            stage.machine = None
        sent = [Spy.vectors[round_id] for round_id in stage.sent]
        assert len(set(sent)) == len(sent), "one and the same update in two rounds"
        journal = spent(stage)
        for round_id in stage.sent:
            assert journal[round_id] == Spy.digests[round_id], "sent before it was on disk"
        assert len(stage.sent) <= stage.me.federation.sends_per_model  # every version has one model here
        rounds = [record.round_id for record in stage.log[1:]]
        assert len(set(rounds)) == len(rounds)
        assert len({Spy.vectors[round_id] for round_id in rounds}) == len(rounds), "in the model twice"
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("step", STEPS[2:])
def test_an_update_whose_answer_was_lost_is_asked_for_and_never_sent_again(tmp_path, step):
    Spy.vectors = {}
    stage = Stage(tmp_path, [(step, "killed after")])
    assert not asyncio.run(live_and_die(stage))
    assert len(stage.sent) == 1
    asyncio.run(live_and_die(stage))
    sent = [Spy.vectors[round_id] for round_id in stage.sent]
    assert len(set(sent)) == len(sent) > 1


def test_killed_between_spending_and_sending_the_update_counts_as_sent(tmp_path):
    Spy.vectors = {}
    stage = Stage(tmp_path, [("masked", "killed before")])
    assert not asyncio.run(live_and_die(stage))
    assert stage.sent == []
    (digest,) = spent(stage).values()
    asyncio.run(live_and_die(stage))
    assert digest not in [Spy.digests[round_id] for round_id in stage.sent]


def test_aborted_before_it_was_spent_the_same_update_goes_into_a_new_round_with_fresh_keys(tmp_path):
    Spy.vectors = {}
    stage = Stage(tmp_path, [("shares", "refused"), ("shares", "lost")])
    asyncio.run(live_and_die(stage))
    digests = list(Spy.vectors.values())
    assert digests[0] == digests[1] == digests[2]
    assert len(Spy.vectors) > 2  # under another round id each time


def test_no_more_is_sent_from_one_model_than_the_federation_allows(tmp_path):
    Spy.vectors = {}
    stage = Stage(tmp_path, [("consistency", "refused")] * 10)
    assert not asyncio.run(live_and_die(stage))  # it rests
    assert len(stage.sent) == stage.me.federation.sends_per_model == 4
    stage.plan.clear()
    assert not asyncio.run(live_and_die(stage))  # a restart is no way around it
    assert len(stage.sent) == 4
    assert len({Spy.vectors[round_id] for round_id in stage.sent}) == 4


def test_a_member_that_rests_is_no_member_that_is_turned_away():
    assert not issubclass(ShuttingDown, Superseded)
