"""What must hold of a schedule once everybody has ended, whatever happened."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
from schedules import Play

from choral.client.journal import FILE, NOTHING
from choral.client.learner import discounted
from choral.federation.enrolment import AGGREGATOR
from choral.federation.records import Record, follow
from choral.learning import model_file, rules
from choral.learning.step import next_model
from choral.learning.update import flatten, unflatten
from choral.service.state.sqlite import Store
from choral.vectors.fixed_point import decode

# why a round may come to nothing, or be refused, where nobody lies
_MAY_PASS = (
    "is not going on", "messages that it needs", "the round is in phase", "the cohort closed without",
    "came first", "went away", "another process has joined with the key of",
)  # fmt: skip
_OVER_A_LIAR = ("revealed do not give its secret back", "does not open", "is kept out of cohorts since round")


def check(play: Play) -> None:
    """Raises AssertionError."""
    store = Store(play.state / AGGREGATOR, read_only=True)
    try:
        records = _log(play, store)
        _everybody_ended(play, records[-1])
        _every_version_is_the_sum(play, records, store)
        kept = set(store.kept_out())
    finally:
        store.close()
    _nothing_twice(play, records)
    lie = play.schedule.lie
    assert kept <= ({lie.who} if lie else set()), f"kept out: {kept}"
    _nothing_else_went_wrong(play, _MAY_PASS + (_OVER_A_LIAR if lie else ()))
    assert not play.aggregator.failed, play.aggregator.failed
    assert not play.seen.odd, play.seen.odd


def _nothing_else_went_wrong(play: Play, known: tuple[str, ...]) -> None:
    """A sum that is wrong may also end a round, and so be in no version."""
    for _, name, event, details in play.seen.events:
        if event in ("aborted", "refused"):
            assert any(why in details["reason"] for why in known), f"{name}: {details['reason']}"


def _log(play: Play, store: Store) -> list[Record]:
    me, head, records = play.folders[AGGREGATOR], None, store.records(-1)
    for record in records:
        head = follow(head, record, aggregator=me.identity.public, task=me.task.digest)
    assert [record.version for record in records] == list(range(play.schedule.rounds + 1))
    return records


def _everybody_ended(play: Play, newest: Record) -> None:
    assert set(play.seen.ended) == set(play.members)
    for name, end in play.seen.ended.items():
        assert isinstance(end, Record), f"{name} ended by {end!r}"
        assert end == newest, f"{name} ended at version {end.version}"


def _every_version_is_the_sum(play: Play, records: list[Record], store: Store) -> None:
    """Bit for bit, from the updates in the clear to the model."""
    task = play.folders[AGGREGATOR].task
    versions = {record.digest: record.version for record in records}
    model = flatten(_model(store, records[0]), task.arrays)
    state: rules.State = {}
    for record in records[1:]:
        sent = [play.seen.sent[record.round_id, name] for name in record.survivors]
        anchor = versions[record.base]
        offered = [discounted(one.update, anchor - one.base.version) for one in sent]
        for one, expected in zip(sent, offered, strict=True):
            assert np.array_equal(one.vector, expected.vector)
        total = np.sum([one.vector for one in offered], axis=0, dtype=np.uint32)
        assert np.array_equal(total, play.seen.sums[record.round_id])
        words = np.sum([one.totals.encode() for one in offered], axis=0, dtype=np.uint64)
        assert tuple(map(int, words)) == record.totals
        mean = decode(total, sum(one.totals.weight for one in offered), task.plan)
        rule = rules.rule(task.rule.name, task.rule.options)
        model, state = next_model(rule, model, state, mean, staleness=record.version - 1 - anchor)
        assert model_file.digest(model_file.encode(unflatten(model, task.arrays))) == record.parameters
        _model(store, record)


def _model(store: Store, record: Record) -> dict[str, np.ndarray]:
    data = store.blob(record.parameters)
    assert data is not None
    assert model_file.digest(data) == record.parameters
    return model_file.decode(data)


def _nothing_twice(play: Play, records: list[Record]) -> None:
    seen = play.seen
    assert not seen.too_early, seen.too_early
    for (path, name), bodies in seen.wire.items():
        assert len(bodies) == 1, f"{name} sent {len(bodies)} vectors to {path}"
    # an update: whose, from which model, which words
    update = {
        (round_id, name): (name, one.base.parameters, one.update.vector.tobytes())
        for (round_id, name), one in seen.sent.items()
        if one.digest != NOTHING
    }
    twice = [key for key, times in Counter(update.values()).items() if times > 1]
    assert not twice, f"{[key[0] for key in twice]} marked one update of one model as sent twice"
    rounds = {record.round_id for record in records[1:]}
    assert len(rounds) == len(records) - 1
    for name in play.members:
        spent = _journal(play.state / name)
        assert len(set(spent)) == len(spent)
        mine = {bytes.fromhex(path.split("/")[3]) for path, who in seen.wire if who == name}
        assert mine <= set(spent), f"{name} sent what its journal does not know"
        assert set(spent) == {round_id for round_id, who in seen.sent if who == name}
        federation = play.folders[name].federation
        assert len(spent) <= play.schedule.rounds + federation.spare_sends


def _journal(folder: Path) -> list[bytes]:
    db = sqlite3.connect(folder / FILE)
    try:
        return [row[0] for row in db.execute("select round_id from spent")]
    finally:
        db.close()
