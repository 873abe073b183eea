"""What is remembered of a round: typed here, the same JSON in the store and in answers as ever (§7.3)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace

import httpx
import pytest

from choral.errors import Ending
from choral.service.page import view
from choral.service.state.facts import Facts, RoundRow, Saw, born, made
from choral.service.state.sqlite import FILE, Store
from house import house

BINS = [1, 2, 3]
# as 0.1.0 wrote it, which kept nobody apart
DONE_0_1_0 = {
    "roster": ["m1", "m2", "m3", "m4"], "survivors": ["m1", "m2", "m3"], "dropped": {"m4": "mask"},
    "late": [], "stale": {"m2": 1}, "seconds": {"advertise": 0.5, "sum": 0.0123},
    "bytes_in": 30, "bytes_out": 12, "bytes": {"in": {"advertise": 10, "mask": 20}, "out": {"advertise": 12}},
    "saw": {"masked": BINS, "sum": BINS, "close_up": BINS}, "version": 7, "culprits": [],
}  # fmt: skip
OLD = {
    "0.1.0, done": DONE_0_1_0,
    "0.1.0, aborted": {
        "roster": ["m1", "m2", "m3"], "survivors": [], "dropped": {"m3": "share", "m2": "mask"},
        "late": ["m4"], "stale": {}, "seconds": {"advertise": 0.5}, "bytes_in": 10, "bytes_out": 12,
        "bytes": {"in": {"advertise": 10}, "out": {"advertise": 12}}, "saw": {"masked": []},
        "reason": "phase mask got 1 of the 3 messages that it needs", "missing": ["m2", "m3"],
        "culprits": ["m2"], "phase": "mask",
    },
    "0.1.0, restarted": {"reason": "the aggregator was restarted"},
    "before there were types, done": {**DONE_0_1_0, "apart": ["m5"]},
    "before there were types, open": {
        "roster": ["m1", "m2", "m3"], "survivors": [], "dropped": {"m1": "share"}, "late": [], "apart": [],
        "stale": {}, "seconds": {"advertise": 0.5}, "bytes_in": 10, "bytes_out": 0,
        "bytes": {"in": {"advertise": 10}, "out": {}}, "saw": {},
    },
}  # fmt: skip


def written(root, details: object) -> Store:
    """A store with one round that somebody else wrote."""
    store = Store(root)
    store.put_round(RoundRow(b"r" * 32, 6, 100.0, "done", 2.5))
    with sqlite3.connect(root / FILE) as db:
        db.execute("update rounds set details = ?", [json.dumps(details)])
    db.close()
    return store


@pytest.mark.parametrize("details", OLD.values(), ids=OLD)
def test_a_row_of_an_older_version_is_told_as_it_was_written(tmp_path, details):
    store = written(tmp_path, details)
    (row,) = store.rounds()
    told = row.told()["details"]
    assert {name: told[name] for name in details} == details
    assert all(not told[name] for name in told.keys() - details.keys() if name != "bytes")
    assert row.facts.kind is None  # it was not said, and is not guessed from a sentence
    assert json.loads(json.dumps(view.round_of(row, ["m1"])))["reason"] == details.get("reason")
    store.count_sent(row.id, {"unmask": 5})
    told_then = store.round(row.id).told()["details"]
    assert told_then == told | {"bytes_out": 5, "bytes": told["bytes"] | {"out": {"unmask": 5}}}
    store.close()


def test_a_row_of_0_1_0_has_its_facts_under_their_names(tmp_path):
    store = written(tmp_path, DONE_0_1_0)
    (row,) = store.rounds()
    bins = tuple(BINS)
    assert row.facts == Facts(
        roster=("m1", "m2", "m3", "m4"), survivors=("m1", "m2", "m3"), dropped={"m4": "mask"},
        stale={"m2": 1}, seconds={"advertise": 0.5, "sum": 0.0123}, received={"advertise": 10, "mask": 20},
        sent={"advertise": 12}, saw=Saw(bins, bins, bins), version=7,
    )  # fmt: skip
    assert made([row]) == {7: 102.5}
    assert (born([row], 7), born([row], 8)) == (102.5, None)
    store.close()


@pytest.mark.parametrize("kind", Ending)
def test_what_is_told_is_read_as_it_was_also_by_another_machine(kind):
    facts = replace(Facts.read(DONE_0_1_0), kind=kind, reason="x", phase="mask", missing=("m4",))
    row = RoundRow(b"r" * 32, 6, 100.0, "aborted", None, facts)
    assert RoundRow.read(json.loads(json.dumps(row.told()))) == row


def test_what_a_newer_version_adds_is_passed_over():
    found = Facts.read({"roster": ["m1"], "weather": {"rain": True}, "kind": "flooded"})
    assert found == Facts(roster=("m1",), kind=Ending.OTHER)


@pytest.mark.parametrize(
    "details",
    [{"roster": 3}, {"dropped": ["m1"]}, {"seconds": {"mask": "long"}}, {"saw": [1]}, {"version": "seven"}],
)
def test_what_is_no_row_is_a_value_error_and_not_a_surprise_later(details):
    with pytest.raises(ValueError, match=next(iter(details))):
        Facts.read(details)


async def test_answers_about_rounds_have_the_names_that_they_had(tmp_path):
    async with house(tmp_path, 3) as home, httpx.AsyncClient(base_url=home.url) as http:
        async with home.players(1, 2, 3) as players:
            await asyncio.gather(*(player.play(home.head) for player in players))
        (row,) = (await http.get("/v1/rounds")).json()
    assert set(row) == {"id", "base", "opened", "state", "seconds", "details"}
    names = set(OLD["before there were types, done"])
    assert set(row["details"]) == names | {"missing", "disputes"}
    assert row["details"]["saw"].keys() == {"masked", "sum", "close_up"}
    assert row["details"]["bytes_in"] == sum(row["details"]["bytes"]["in"].values()) > 0
