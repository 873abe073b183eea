"""Who is proven to have lied is kept out, and can be let back in; who cannot send for now says so (§4.6)."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from dataclasses import replace

import httpx
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from choral.cli import cli
from choral.errors import KeptOut, ParameterError, RoundAborted
from choral.protocol.aggregator import AggregatorRound, Phase
from choral.protocol.transcript import sign
from choral.service.rounds.presence import Presence
from choral.service.state import sqlite as stores
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import FILE, Kept, Store
from direct import Direct
from house import house, make_folder, until

KEPT = Kept(b"r" * 32, "its shares do not fit what it signed", 1e9)


@pytest.fixture
def proving(monkeypatch):
    """Rounds whose sum cannot be had because m2 is proven to have dealt wrong shares."""
    close = AggregatorRound.close
    found = {"times": 1}

    def proven(self):
        if self.phase is Phase.UNMASK and found["times"]:
            found["times"] -= 1
            self.abort()
            raise RoundAborted(KEPT.reason, culprits=["m2"], proven=["m2", "stranger"])
        close(self)

    monkeypatch.setattr(AggregatorRound, "close", proven)
    return found


async def test_a_dealer_that_is_proven_wrong_is_kept_out_and_the_others_go_on(tmp_path, proving):
    async with Direct(tmp_path, 4) as home, asyncio.timeout(60):
        told = await asyncio.gather(
            *(home.play(home.machine(name)) for name in home.names), return_exceptions=True
        )
        assert all(isinstance(error, RoundAborted) for error in told)
        (row,) = home.store.rounds()
        found = home.rounds.status()["kept_out"]
        assert found == {"m2": {"round": row.id.hex(), "reason": KEPT.reason, "since": 1e9}}
        says = f"m2 is kept out of cohorts since round {row.id.hex()[:12]}: its"
        with pytest.raises(KeptOut, match=says) as error:
            await home.join(home.machine("m2"))
        assert error.value.hint.endswith("choral readmit FOLDER m2")
        record, *_ = await asyncio.gather(*(home.play(home.machine(name)) for name in ("m1", "m3", "m4")))
        assert "m2" not in record.survivors
        assert home.rounds.metrics.registry.get_sample_value("choral_members_kept_out") == 1


async def play_with_wrong_shares(home, only=None):
    """A whole round of all; the first of the roster reveals wrong shares, first. Who that is, the roster."""
    machines = {name: home.machine(name) for name in home.names}
    rosters = await asyncio.gather(*(home.join(machine) for machine in machines.values()))
    roster = [entry.member for entry in rosters[0].members]
    liar = roster[0]
    (live,) = home.conductor.running.values()

    async def one(name):
        machine = machines[name]
        survivors = await home.mask(machine, await home.share(machine, rosters[0]))
        message = machine.receive(await home.endorse(machine, survivors))
        if name == liar:
            shares = list(message.self_shares)
            for at in range(len(shares)) if only is None else only:
                shares[at] = hashlib.sha256(bytes([at])).digest()
            message = sign(home.identity(name), replace(message, self_shares=tuple(shares)))
        else:  # the first t to come are read, and more of them only if those do not fit
            await until(lambda: liar in live.machine.received(Phase.UNMASK))
        return await home.reveal_again(message)

    records = await asyncio.gather(*map(one, machines))
    assert {record.version for record in records} == {1}  # all the same
    return liar, roster


async def test_who_is_proven_to_have_lied_in_a_round_that_has_its_sum_is_kept_out_all_the_same(tmp_path):
    async with Direct(tmp_path, 7) as home, asyncio.timeout(60):
        liar, _ = await play_with_wrong_shares(home)
        (row,) = home.store.rounds()
        assert (row.state, row.facts.culprits) == ("done", (liar,))
        assert row.facts.disputes == ()
        says = "shares that it dealt or revealed are proven wrong by those of the others"
        kept = {"round": row.id.hex(), "reason": says, "since": 1e9}
        assert home.rounds.status()["kept_out"] == {liar: kept}
        with pytest.raises(KeptOut, match=says):
            await home.join(home.machine(liar))
        others = [name for name in home.names if name != liar]
        record, *_ = await asyncio.gather(*(home.play(home.machine(name)) for name in others))
        assert (record.version, set(record.survivors)) == (2, set(others))


async def test_who_is_in_dispute_is_written_down_and_goes_on(tmp_path):
    async with Direct(tmp_path, 7) as home, asyncio.timeout(60):
        with capture_logs() as lines:
            liar, roster = await play_with_wrong_shares(home, only=[3])
        (row,) = home.store.rounds()
        assert row.facts.culprits == ()
        assert row.facts.disputes == ((roster[3], liar),)
        (line,) = [line for line in lines if line["event"] == "wrong shares are in dispute"]
        assert line["disputes"] == [f"{roster[3]} dealt, {liar} revealed"]
        assert not home.rounds.status()["kept_out"]
        await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))


async def test_however_many_are_in_dispute_a_row_and_a_line_stay_short(tmp_path, monkeypatch):
    close = AggregatorRound.close

    def disputed(self):
        close(self)
        if self.total is not None:
            found = tuple((f"d{i}", f"h{i}") for i in range(1000))
            self.total = replace(self.total, disputes=found)

    monkeypatch.setattr(AggregatorRound, "close", disputed)
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        with capture_logs() as lines:
            await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        (row,) = home.store.rounds()
        assert len(row.facts.disputes) == 32
        (line,) = [line for line in lines if line["event"] == "wrong shares are in dispute"]
        assert len(line["disputes"]) == 33
        assert line["disputes"][-1] == "and 968 more"


async def test_a_member_is_let_back_in_while_the_aggregator_runs(tmp_path, proving):
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        await asyncio.gather(*(home.play(home.machine(name)) for name in home.names), return_exceptions=True)
        assert home.rounds.stuck == "2 of 3 members can send, a cohort needs 3 (kept out: m2)"
        done = CliRunner().invoke(cli, ["readmit", str(home.root / "aggregator"), "m2"])
        assert (done.exit_code, done.output.splitlines()[0]) == (0, "m2 is let back in")
        home.now += 1  # status and readiness look once a second
        assert not home.rounds.stuck
        records = await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        assert "m2" in records[0].survivors


async def test_who_is_kept_out_is_so_after_a_restart_and_readiness_says_what_that_means(tmp_path):
    async with house(tmp_path, 3) as home:
        home.store.keep_out("m3", KEPT)
        await home.close()
        await home.open()
        async with httpx.AsyncClient(base_url=home.url) as http:
            ready = await http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["2 of 3 members can send, a cohort needs 3 (kept out: m3)"]
        player = home.player(3)
        with pytest.raises(KeptOut, match="its shares do not fit"):
            await player.advertise(player.machine(home.head))
        await player.leave()


async def test_a_member_that_is_kept_out_waits_and_goes_on_when_it_is_let_back_in(tmp_path, monkeypatch):
    monkeypatch.setattr("choral.client.member._KEPT_OUT", 0.02)
    async with house(tmp_path, 3, rounds=2) as home, asyncio.timeout(60):
        home.store.keep_out("m3", KEPT)
        members = [asyncio.create_task(home.member(i)) for i in (1, 2, 3)]
        joins = [("POST", "/v1/rounds")] * 6
        await until(lambda: home.told(3, "kept out") and [a for a in home.asked if a in joins][5:])
        assert CliRunner().invoke(cli, ["readmit", str(home.root / "aggregator"), "m3"]).exit_code == 0
        assert {record.version for record in await asyncio.gather(*members)} == {2}
        (said,) = home.told(3, "kept out")  # once, however often it asked
        assert KEPT.reason in said["reason"]
        assert "choral readmit FOLDER m3" in said["hint"]
        (back,) = home.told(3, "let back in")
        assert back["refusals"] >= 2
        assert not home.told(3, "refused")
        assert "m3" in home.head.survivors


@pytest.mark.parametrize(
    ("name", "says"),
    [("m1", "m1 is not kept out"), ("nobody", "'nobody' is no member of"), ("\x1b[2J", "is no member of")],
)
def test_only_a_member_that_is_kept_out_can_be_let_back_in(tmp_path, name, says):
    root = make_folder(tmp_path / "fed", 3)
    Store(root / "aggregator/state").close()
    done = CliRunner().invoke(cli, ["readmit", str(root / "aggregator"), name])
    assert says in str(done.exception)
    assert "\x1b" not in str(done.exception)


def test_a_state_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "fed", 3)
    store = Store(root / "aggregator/state")
    store.keep_out("m2", KEPT)
    store.close()

    def refuse(self, name):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(Store, "readmit", refuse)
    done = CliRunner().invoke(cli, ["readmit", str(root / "aggregator"), "m2"])
    assert isinstance(done.exception, ParameterError)
    assert "cannot be changed (attempt to write a readonly database)" in done.exception.reason


def test_a_member_has_nobody_to_let_back_in(tmp_path):
    root = make_folder(tmp_path / "fed", 3)
    done = CliRunner().invoke(cli, ["readmit", str(root / "m1"), "m2"])
    assert "is the folder of m1" in str(done.exception)


# ----- the store ------------------------------------------------------------------------------


def old(folder):
    """A file as the first layout had it, with a round in it."""
    folder.mkdir()
    with sqlite3.connect(folder / FILE) as db:
        for statement in stores._SCHEMA.split(";"):
            db.execute(statement)
        db.execute("insert into rounds values (?, 0, 1.0, 'done', 2.0, '{}')", (b"r" * 32,))
        db.execute("insert into blobs values (?, ?)", (b"d" * 32, b"a model"))
        db.execute("pragma user_version = 1")
    db.close()


def test_a_file_of_the_first_layout_is_brought_up_with_all_that_is_in_it(tmp_path):
    old(tmp_path / "state")
    reader = Store(tmp_path / "state", read_only=True)
    assert reader.kept_out() == reader.about() == {}
    assert reader.blob(b"d" * 32) == b"a model"
    assert reader.blob(b"e" * 32) is None
    reader.close()
    store = Store(tmp_path / "state")
    assert store.rounds() == [RoundRow(b"r" * 32, 0, 1.0, "done", 2.0)]
    assert store.blob(b"d" * 32) == b"a model"
    store.keep_out("m2", KEPT)
    store.keep_out("m2", Kept(b"s" * 32, "another", 2e9))
    assert store.kept_out() == {"m2": KEPT}  # the first reason stays
    store.close()
    store = Store(tmp_path / "state", beside=True)
    assert store.readmit("m2")
    assert not store.readmit("m2")
    store.close()


def test_a_layout_is_brought_up_whole_or_not_at_all(tmp_path, monkeypatch):
    old(tmp_path / "state")
    monkeypatch.setattr(stores, "_LAYOUTS", (stores._SCHEMA, "create table good (x); create tabel bad"))
    with pytest.raises(Exception, match="cannot be opened"):
        Store(tmp_path / "state")
    with sqlite3.connect(tmp_path / "state" / FILE) as db:
        assert db.execute("pragma user_version").fetchone() == (1,)
        assert "good" not in {name for (name,) in db.execute("select name from sqlite_master")}
    db.close()
    monkeypatch.undo()
    Store(tmp_path / "state").close()


def test_beside_a_running_aggregator_nothing_is_made_and_nothing_is_locked(tmp_path):
    with pytest.raises(Exception, match="no such file"):
        Store(tmp_path / "state", beside=True)
    running = Store(tmp_path / "state")
    beside = Store(tmp_path / "state", beside=True)
    running.keep_out("m1", KEPT)
    assert beside.readmit("m1")
    beside.close()
    assert running.kept_out() == {}
    running.close()


# ----- members that cannot send for now -------------------------------------------------------


def test_what_a_member_says_of_itself_holds_while_it_is_there():
    now, told = [0.0], []
    presence = Presence(
        ["a", "b"], lambda: now[0], gone_seconds=3, startup_seconds=0, changed=lambda: told.append(1)
    )
    with presence.connection("a", "s"):
        presence.rest("a", "spent")
        count = len(told)
        presence.rest("a", "spent")
        assert len(told) == count  # no news
        assert (presence.resting("a"), presence.resting("b")) == ("spent", None)
        presence.rest("a", "\x1b[2Jtired")
        assert presence.resting("a") is None
        presence.rest("a", "pause")
    now[0] = 2.9
    assert presence.resting("a") == "pause"
    now[0] = 3.1
    assert presence.resting("a") is None


async def test_a_member_that_rests_says_so_in_its_poll_and_is_not_waited_for(tmp_path):
    async with house(tmp_path, 4, settings={"join_seconds": 60.0}) as home, home.players(1, 2, 3) as players:
        me = home.player(4)
        polling = asyncio.create_task(me.transport.get("/v1/records?after=0&resting=spent"))
        await until(lambda: home.rounds.presence.resting("m4") == "spent")
        status = home.status()["members"]
        assert [status[f"m{i}"]["resting"] for i in (1, 2, 3, 4)] == [None, None, None, "spent"]
        figure = home.rounds.metrics.registry.get_sample_value
        assert figure("choral_members_resting", {"kind": "spent"}) == 1
        assert figure("choral_members_resting", {"kind": "pause"}) == 0
        async with asyncio.timeout(5):  # and not the minute that a cohort stays open for m4
            await asyncio.gather(*(player.play(home.head) for player in players))
        await polling
        await me.leave()
        assert not home.rounds.stuck


async def test_when_too_few_are_left_that_can_send_readiness_says_so_until_one_joins(tmp_path):
    async with Direct(tmp_path, 3) as home:
        presence = home.rounds.presence
        presence.rest("m1", "spent")
        presence.rest("m2", "pause")  # it comes back by itself
        assert home.rounds.stuck == (
            "2 of 3 members can send, a cohort needs 3 (have used up what they may send: m1)"
        )
        assert home.rounds.metrics.registry.get_sample_value("choral_stuck") == 1
        joining = asyncio.create_task(home.join(home.machine("m1")))
        await until(lambda: not home.rounds.stuck)
        joining.cancel()


async def test_a_phase_that_should_have_ended_long_ago_is_no_readiness(tmp_path):
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        await asyncio.gather(*(home.join(home.machine(name)) for name in home.names))
        (live,) = home.conductor.running.values()
        assert not home.rounds.stuck
        home.now = live.deadline + 61
        assert home.rounds.stuck == f"phase share of round {live.short} should have ended 61 s ago"
