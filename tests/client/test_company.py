"""One member cannot end the others: they go on, and without whoever they had to refuse twice (§7.4)."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing, nullcontext
from dataclasses import replace

import numpy as np
import pytest
from socketless import Federation, Seat, now, run

from choral.binding.access import Access
from choral.client.company import MOST, Company
from choral.client.exchange import Repeats, play
from choral.client.journal import Journal
from choral.client.member import Member
from choral.client.over_http import OverHttp
from choral.client.transport import Transport
from choral.errors import WireError
from choral.federation.enrolment import Participant
from choral.learning import Softmax
from choral.protocol import phases
from choral.protocol.member import MemberRound
from choral.protocol.messages import Advertise
from choral.vectors.totals import Totals
from house import CLASSES, FEATURES, examples, house


class BadSeals(Seat):
    """Its shares open for nobody."""

    async def share(self, shares):
        return await super().share(replace(shares, seals=tuple(seal and bytes(80) for seal in shares.seals)))


def test_one_bad_seal_a_round_ends_nobody_and_costs_two_rounds(tmp_path):
    async def play_(root) -> None:
        federation = Federation(root, 5, rounds=4)
        running = {
            name: asyncio.create_task(one(federation, name)) for name in federation.me.federation.members
        }
        others = [task for name, task in running.items() if name != "m2"]
        assert {record.version for record in await asyncio.gather(*others)} == {4}
        assert all("m2" not in record.survivors for record in federation.log)
        for name in ("m1", "m3", "m4", "m5"):
            refused = federation.told(name, "refused")
            assert len(refused) == 2
            assert refused[1]["avoided"] == ["m2"]
            assert federation.apart[name] == {"m2"}
        assert now() < 120
        running["m2"].cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)

    async def one(federation, name):
        with federation.member(name, seat=BadSeals(federation, name) if name == "m2" else None) as member:
            return await member.run()

    run(play_(tmp_path))


def test_a_roster_with_somebody_it_asked_to_be_without_is_left_and_is_no_refusal(tmp_path):
    class Deaf(Seat):
        async def join(self, advertise, without):
            asked.append(tuple(without))
            return await super().join(advertise, () if len(asked) < 4 else without)

    asked: list[tuple[str, ...]] = []

    async def play_() -> None:
        federation = Federation(tmp_path, 4, rounds=2)

        async def one(name):
            with federation.member(name, seat=Deaf(federation, name) if name == "m1" else None) as member:
                if name == "m1":
                    for _ in range(2):
                        member.company.refused(["m2"])
                return await member.run()

        await asyncio.gather(*(one(name) for name in federation.me.federation.members))
        assert set(asked) == {("m2",)}
        left = [told["reason"] for told in federation.told("m1", "waiting")]
        assert any("m2 was offered" in reason for reason in left)
        assert not federation.told("m1", "refused")
        assert federation.log[1].survivors
        for record in federation.log:
            assert not {"m1", "m2"} <= set(record.survivors)

    run(play_())


ADVERTISE = Advertise("m3", bytes(32), 0, bytes(32), bytes(32), bytes(32), bytes(64))
NAMES = [f"m{i}" for i in range(1, 30)]


def test_once_is_an_accident_twice_is_not_and_no_accusation_lasts_for_ever():
    time = [0.0]
    company = Company(NAMES, 3, lambda: time[0])
    assert company.refused(["m1", "stranger"]) == []
    assert company.without == ()
    assert company.refused(["m1"]) == ["m1"]
    assert company.without == ("m1",)
    time[0] = 599.0
    assert company.without == ("m1",)
    time[0] = 601.0
    assert company.without == ()
    assert company.refused(["m1"]) == ["m1"]  # once more is enough, and then for twice as long
    time[0] += 1199
    assert company.without == ("m1",)
    time[0] += 2
    assert company.without == ()


def test_never_so_many_are_avoided_that_no_cohort_is_left():
    company = Company(["m2", "m3", "m4"], 3, lambda: 0.0)
    for name in ("m2", "m3", "m4") * 3:
        company.refused([name])
    assert len(company.without) == 1
    alone = Company(["m2", "m3"], 3, lambda: 0.0)
    for _ in range(9):
        assert alone.refused(["m2"]) == []
    assert alone.without == ()
    assert alone.pause == 60.0
    many = Company([f"m{i}" for i in range(200)], 3, lambda: 0.0)
    for i in range(100):
        many.refused([f"m{i}"])
        many.refused([f"m{i}"])
    assert len(many.without) == MOST


def test_refusals_that_name_nobody_wait_longer_and_longer_until_one_goes_well():
    company = Company(NAMES, 3, lambda: 0.0)
    pauses = []
    for _ in range(9):
        company.refused([])
        pauses.append(company.pause)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    company.well()
    assert company.pause == 0


async def test_the_wish_travels_as_the_specification_says():
    asked = []

    class Line:
        async def send(self, method, path, content=b"", **_):
            asked.append((method, path))
            raise WireError("no")

    with pytest.raises(WireError):
        await OverHttp(Line()).join(ADVERTISE, ("m1", "m-2.x"))
    assert asked == [("POST", "/v1/rounds?without=m1,m-2.x")]


async def test_the_signature_of_a_request_covers_the_wish(tmp_path):
    async with house(tmp_path, 4) as home, home.player(1) as player:
        machine = player.machine(home.head)
        joining = asyncio.create_task(OverHttp(player.transport).join(machine.advertise, ("m2", "m3")))
        async with asyncio.timeout(5):
            while not home.status()["cohorts"]:  # refused, if it were not signed as it was sent
                assert not joining.done(), joining.exception()
                await asyncio.sleep(0.01)
        joining.cancel()
    assert ("POST", "/v1/rounds?without=m2,m3") in home.asked


async def test_one_bad_seal_a_round_ends_nobody_over_real_http(tmp_path):
    """0.1.0: five refusals ended a process, so all others in 13.5 s."""

    class Bad(OverHttp):
        async def share(self, shares):
            return await super().share(
                replace(shares, seals=tuple(seal and bytes(80) for seal in shares.seals))
            )

    async with house(tmp_path, 5, rounds=2, settings={"join_seconds": 0.5}) as home:
        me = Participant.load(home.root / "m2")
        with closing(Journal(home.root / "m2/state")) as journal:
            async with Transport(
                home.url, me.identity, Access("m2", "0" * 16), patience=None, jitter=lambda: 0.5, verify=False
            ) as line:
                trainer = Softmax(FEATURES, CLASSES)
                bad = Member(me, trainer, examples(2), Bad(line), journal, random=os.urandom)
                running = asyncio.create_task(bad.run())
                records = await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (1, 3, 4, 5))), 40)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        assert {record.version for record in records} == {2}
        avoided = [told["avoided"] for i in (1, 3, 4, 5) for told in home.told(i, "refused")]
        assert ["m2"] in avoided
        assert {name for names in avoided for name in names} == {"m2"}


def test_a_repeated_answer_accuses_nobody_and_is_called_a_repeat(tmp_path):
    """Over plain HTTP somebody on the way may give the answer of an earlier round."""

    class Stuck(Seat):
        first = None

        async def join(self, advertise, without):
            found = await super().join(advertise, without)
            self.first = self.first or found
            return self.first

    async def play_() -> None:
        federation = Federation(tmp_path, 4, rounds=2)
        running = [asyncio.create_task(one(federation, name)) for name in federation.me.federation.members]
        await asyncio.gather(*running[1:])
        (told, *_) = federation.told("m1", "refused")
        assert "it is a repeat: this very answer came before" in told["reason"]
        assert told["culprits"] == []
        running[0].cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def one(federation, name):
        with federation.member(name, seat=Stuck(federation, name) if name == "m1" else None) as member:
            return await member.run()

    run(play_())


# ----- a round over the interface alone ---------------------------------------------------------------


def test_a_whole_round_over_five_questions_without_a_socket(tmp_path):
    async def play_() -> None:
        federation = Federation(tmp_path, 4, rounds=1)
        base = federation.head
        asked: dict[str, list[str]] = {}

        async def one(name: str):
            me = Participant.load(federation.folder / name)
            known = phases.Member(name, me.identity, me.federation.pinned, me.parameters, base.context)
            vector = np.full(me.task.dimension, int(name[1:]), np.uint32)
            machine = MemberRound(known, vector, Totals(int(name[1:])).encode(), os.urandom)
            spent: list[bytes] = []
            record = await play(
                federation.seat(name), machine, spend=spent.append, check=lambda record: None,
                waiting=nullcontext(), repeats=Repeats(),
                tell=lambda event: asked.setdefault(name, []).append(event.got),
            )  # fmt: skip
            assert spent == [machine.round_id]
            return record

        found = await asyncio.gather(*(one(name) for name in federation.me.federation.members))
        assert {record.digest for record in found} == {federation.head.digest}
        assert federation.sums[0].weight == 1 + 2 + 3 + 4
        assert set(map(tuple, asked.values())) == {("roster", "inbox", "survivors", "endorsements")}

    run(play_())


@pytest.mark.parametrize(
    "change",
    [
        {"survivors": ("m1",)}, {"round_id": bytes(32)}, {"version": 2**60}, {"version": 0},
        {"base": bytes(32)}, {"task": bytes(32)}, {"signature": bytes(64)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("lies", [1, 2])
def test_a_record_that_cannot_be_is_fetched_once_more_and_then_refused(tmp_path, change, lies):
    """A version of 2^60 would be waited for until the end of time."""
    left = [None] * lies

    class Lying(Seat):
        async def reveal(self, reveal):
            record = await super().reveal(reveal)
            return replace(record, **change) if left and not left.pop() else record

    async def play_() -> None:
        federation = Federation(tmp_path, 4, rounds=1)
        records = await federation.train(m1={"seat": Lying(federation, "m1")})
        assert {record.version for record in records} == {1}
        reasons = [told["reason"] for told in federation.told("m1", "refused")]
        said = "the aggregator's outcome is not that of the round that this member signed"
        assert reasons == [said] * (lies - 1)

    run(play_())
