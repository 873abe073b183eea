"""A rule's state is in the log, and a restarted aggregator goes on as if nothing had been."""

import hashlib
import os
import tracemalloc

import numpy as np
import pytest

from choral.errors import RecordError, RoundAborted
from choral.federation.enrolment import Participant
from choral.federation.task import Model, Rule, Task
from choral.founding.folders import provision
from choral.learning import MLP, model_file, rules
from choral.learning.update import schema_of
from choral.protocol.aggregator import Total
from choral.service.state.facts import RoundRow
from choral.service.state.sqlite import Store
from choral.service.training import Training
from choral.vectors.fixed_point import encode
from choral.vectors.totals import Totals

RULES = ("fedavg", "fedavgm", "fedadagrad", "fedyogi", "fedadam")
ROUNDS = 6


def a_federation(folder, rule, patience=0, features=5, hidden=4):
    model = MLP(features, hidden, 3)
    initial = model.initial(np.random.default_rng(0))
    data = model_file.encode(initial)
    task = Task(
        name="t",
        model=Model(
            name="mlp",
            features=features,
            classes=3,
            arrays=dict(schema_of(initial)),
            initial=model_file.digest(data).hex(),
            options={"hidden": hidden},
        ),
        rule=Rule(name=rule),
        rounds=ROUNDS,
        patience=patience,
        largest_cohort=3,
        weight_cap=10,
    )
    provision(
        folder,
        url="http://127.0.0.1:1",
        members=["a", "b", "c"],
        task=task,
        initial=data,
        minimum=3,
        tolerated="quarter",
        random=os.urandom,
    )
    return Participant.load(folder / "aggregator")


def a_sum(task, number):
    rng = np.random.default_rng([9, number])
    main = np.zeros(task.dimension, np.uint32)
    auxiliary = np.zeros(Totals.WORDS, np.uint64)
    for weight in (3, 10, 7):
        main += encode(rng.standard_normal(task.dimension).astype(np.float32), weight, task.plan).vector
        auxiliary += Totals(weight, 4, 2, 1.5 + number).encode()
    return Total(main, auxiliary, ("a", "b", "c"), ())


def play(me, folder, restart_after=()):
    """The last record, and the digests of every version's model and state."""
    store = Store(folder)
    training = Training(me, store)
    for number in range(ROUNDS):
        if number in restart_after:
            store.close()
            store = Store(folder)
            training = Training(me, store)
        round_id = hashlib.sha256(bytes([number])).digest()
        training.apply(
            a_sum(me.task, number),
            training.head,
            round_id,
            lambda record, id=round_id: RoundRow(id, record.version - 1, 0.0, "done"),
        )
    assert training.over
    records = store.records(-1)
    store.close()
    return records


@pytest.mark.parametrize("rule", RULES)
def test_a_restarted_aggregator_goes_on_bit_for_bit(tmp_path, rule):
    me = a_federation(tmp_path / "fed", rule)
    whole = play(me, tmp_path / "whole")
    broken = play(me, tmp_path / "broken", restart_after=(1, 2, 5))
    assert [record.digest for record in whole] == [record.digest for record in broken]
    assert len({record.parameters for record in whole}) == ROUNDS + 1


@pytest.mark.parametrize("rule", RULES[1:])
def test_every_record_names_the_state_after_it(tmp_path, rule):
    me = a_federation(tmp_path / "fed", rule)
    records = play(me, tmp_path / "state")
    assert records[0].rule_state == rules.state_digest({})
    assert len({record.rule_state for record in records}) == ROUNDS + 1


def test_a_stored_state_that_is_not_the_one_in_the_log_is_refused(tmp_path):
    me = a_federation(tmp_path / "fed", "fedadam")
    play(me, tmp_path / "state")
    store = Store(tmp_path / "state")
    head = store.head()
    d = me.task.dimension
    other = model_file.encode({"m": np.ones(d, np.float32), "v": np.ones(d, np.float32)})
    with store._write() as db:
        db.execute("update pieces set data = ? where digest = ?", (other, head.rule_state))
    with pytest.raises(RecordError, match="state of the rule"):
        Training(me, store)
    store.close()


def test_an_aggregator_whose_patience_is_over_stays_so_over_restarts(tmp_path):
    """`a_sum` reports a loss that rises from version to version: version 0 stays the best."""
    me = a_federation(tmp_path / "fed", "fedavg", patience=2)
    store = Store(tmp_path / "state")
    for number in range(ROUNDS):
        training = Training(me, store)
        if training.over:
            break
        training.apply(a_sum(me.task, number), training.head, bytes([number + 1] * 32), lambda record: None)
    assert training.head.version == 3
    with pytest.raises(RoundAborted):
        training.apply(a_sum(me.task, 9), training.head, bytes([99] * 32), lambda record: None)
    store.close()


# the model before, the sum that becomes the mean, the model after; the rule's state before and after
@pytest.mark.parametrize(("rule", "most"), [("fedavg", 3.1), ("fedavgm", 5.1)])
def test_a_sum_becomes_a_version_in_the_memory_of_few_vectors(tmp_path, rule, most):
    me = a_federation(tmp_path / "fed", rule, features=1000, hidden=1000)
    store = Store(tmp_path / "state")
    tracemalloc.start()
    try:
        training = Training(me, store)
        for number in (1, 2):  # the rule has a state the second time
            given = [a_sum(me.task, number)]
            tracemalloc.reset_peak()
            row = RoundRow(bytes([number]) * 32, number - 1, 0.0, "done")
            training.apply(given.pop(), training.head, row.id, lambda record, row=row: row)
        vectors = tracemalloc.get_traced_memory()[1] / (4 * me.task.dimension)
    finally:
        tracemalloc.stop()
        store.close()
    print(f"{rule}: {vectors:.2f} vectors")
    assert vectors < most
