"""PROTOCOL §5.1: what a member sends is bounded, and whatever happens there is a way on.

Real members with real journals against a real `AggregatorRound`, in virtual time.
"""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from socketless import Federation, Seat, now, run

from choral.client.budget import Budget
from choral.client.events import silent
from choral.client.journal import FILE, NOTHING, Journal
from choral.client.learner import Learner
from choral.errors import RecordError, RoundAborted
from choral.federation.enrolment import Federation as Enrolled
from choral.federation.enrolment import Participant
from choral.federation.records import NONE, Record
from choral.learning import Evaluation, Softmax, model_file
from choral.protocol.aggregator import Phase
from house import CLASSES, FEATURES, examples

NAMES = ("m1", "m2", "m3")
BASE = Record(0, bytes(32), b"\x01" * 32, bytes(32), NONE, NONE, NONE, (), (), bytes(64))


def rows(federation: Federation, name: str) -> list[tuple[bytes, bytes]]:
    """(model, digest) of everything that a member has marked as sent."""
    with sqlite3.connect(federation.folder / name / "state" / FILE) as db:
        return db.execute("select parameters, digest from spent order by rowid").fetchall()


def bounded(federation: Federation) -> None:
    """What §5.1 promises of a whole run, whatever was scripted."""
    for name in NAMES:
        me = Participant.load(federation.folder / name)
        sent = rows(federation, name)
        assert len(sent) <= me.task.rounds + me.federation.spare_sends
        telling = [row for row in sent if row[1] != NOTHING]
        assert len(set(telling)) == len(telling), "one update twice from one model"


late = st.sampled_from([Phase.CONSISTENCY, Phase.UNMASK])


@settings(
    max_examples=10, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(when=st.lists(late, min_size=4, max_size=12), after=st.integers(0, 3))
def test_rounds_that_fail_after_the_vectors_were_sent_stop_no_member(tmp_path_factory, when, after):
    async def play() -> Federation:
        federation = Federation(tmp_path_factory.mktemp("late"), 3, rounds=4)
        script = dict(enumerate(when, start=1 + after))
        federation.fails = lambda number, phase: (
            RoundAborted("the disk is full") if script.get(number) is phase else None
        )
        assert {record.version for record in await federation.train()} == {4}
        return federation

    federation = run(play())
    bounded(federation)
    assert len(federation.vectors) == 3 * (4 + len(when))


def test_the_wait_before_one_more_vector_from_one_model_grows_from_a_minute_to_an_hour(tmp_path):
    async def play() -> list[float]:
        federation = Federation(tmp_path, 3, rounds=1)
        federation.fails = lambda number, phase: (
            RoundAborted("no") if phase is Phase.UNMASK and number <= 12 else None
        )
        await federation.train()
        bounded(federation)
        waits = [round(told["seconds"]) for told in federation.told("m1", "resting")]
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        return [told["at"] for told in federation.told("m1", "trained")]

    trained = run(play())
    gaps = np.diff(trained)
    assert len(trained) == 13
    assert max(gaps[:4]) < 60  # four go out as they fail
    waits = gaps[4:]
    assert all(60.0 * 2**k <= wait < 60.0 * 2**k + 60 for k, wait in enumerate(waits[:6]))
    assert all(3600.0 <= wait < 3660 for wait in waits[6:])


def test_a_changed_model_ends_the_wait(tmp_path):
    async def play() -> None:
        federation = Federation(tmp_path, 4, rounds=2)
        waiting = Participant.load(federation.folder / "m1")
        journal = Journal(federation.folder / "m1" / "state")
        for i in range(8):  # sent in rounds that came to nothing: the next wait is 16 minutes
            journal.spend(bytes([i]) * 32, federation.head, bytes([i]) * 32)
        journal.close()
        assert {record.version for record in await federation.train()} == {2}
        assert federation.told("m1", "resting")[0]["seconds"] == 960.0
        assert now() < 60
        assert ("m1", 1) in federation.vectors
        assert waiting.federation.sends_per_model == 4

    run(play())


def one_value(sign: float) -> Softmax:
    """Every coordinate of its updates is clipped to one and the same value."""

    class Far(Softmax):
        def train(self, parameters, X, y, rng):  # noqa: N803
            return {name: array + np.float32(sign * 1e6) for name, array in parameters.items()}

    return Far(FEATURES, CLASSES)


def test_three_members_with_all_coordinates_clipped_to_one_value_go_through_all_versions(tmp_path):
    async def play() -> Federation:
        federation = Federation(tmp_path, 3, rounds=20, weight_cap=10)
        trainers = {name: {"trainer": one_value(1.0)} for name in NAMES}
        assert {record.version for record in await federation.train(**trainers)} == {20}
        return federation

    federation = run(play())
    for name in NAMES:
        sent = rows(federation, name)
        assert len(sent) == 20
        assert len({digest for _, digest in sent}) == 1  # equal every time, and each time from another model
        assert NOTHING not in {digest for _, digest in sent}


class Converged(Softmax):
    """Has nothing to add to any model."""

    def train(self, parameters, X, y, rng):  # noqa: N803
        return {name: array.copy() for name, array in parameters.items()}


def test_a_model_that_has_converged_goes_on_to_the_end_and_nothing_is_said_twice(tmp_path):
    async def play() -> Federation:
        federation = Federation(tmp_path, 3, rounds=30)
        same = {name: {"trainer": Converged(FEATURES, CLASSES)} for name in NAMES}
        assert {record.version for record in await federation.train(**same)} == {30}
        assert now() < 60
        return federation

    federation = run(play())
    assert len(federation.models) == 1
    bounded(federation)
    first, *others = federation.sums
    # the first says what it was trained on, and how good the model is; all others nothing at all
    assert first.weight == 3 * 32
    assert first.examples > 0
    part = [total for total in others if total.weight != 3]
    assert len(part) <= 1  # nine tenths may weigh less than all, and are then another update
    for total in others:
        assert (total.examples, total.correct, total.loss) == (0, 0, 0)
    assert federation.told("m1", "nothing to add")


def test_a_member_that_has_sent_all_it_may_says_so_and_follows_the_log_to_the_end(tmp_path):
    async def play() -> None:
        federation = Federation(tmp_path, 4, rounds=3)
        path = federation.folder / "m1" / "federation.toml"
        Enrolled.load(path).model_copy(update={"spare_sends": 0}).save(path)
        journal = Journal(federation.folder / "m1" / "state")
        for i in range(3):
            journal.spend(bytes([i]) * 32, BASE, bytes([i]) * 32)
        journal.close()
        said = []
        commit = federation._commit

        def watched(live):
            said.append(federation.resting.get("m1"))
            return commit(live)

        federation._commit = watched
        assert {record.version for record in await federation.train()} == {3}
        assert "m1" not in {name for name, _ in federation.vectors}
        assert len(federation.told("m1", "spent")) == 1
        assert said[-1] == "spent"

    run(play())


def test_the_budget_is_counted_over_restarts_and_over_models(tmp_path):
    time = [0.0]
    for i in range(6):
        journal = Journal(tmp_path)
        budget = Budget(journal, total=6, per_model=2, clock=lambda: time[0])
        assert not budget.spent
        base = BASE if i < 4 else Record(**{**vars(BASE), "parameters": b"\x02" * 32})
        assert budget.wait(base) == (60.0 * 2 ** (i - 2) if i in (2, 3) else 0.0)
        time[0] += 59.0
        assert budget.wait(base) == (60.0 * 2 ** (i - 2) - 59 if i in (2, 3) else 0.0)
        journal.spend(bytes([i]) * 32, base, bytes([i]) * 32)
        journal.close()
    journal = Journal(tmp_path)
    assert Budget(journal, total=6, per_model=2, clock=lambda: 0.0).spent
    journal.close()


def test_a_vector_that_says_nothing_costs_no_wait_but_is_counted(tmp_path):
    journal = Journal(tmp_path)
    for i in range(5):
        journal.spend(bytes([i]) * 32, BASE, NOTHING)
    budget = Budget(journal, total=5, per_model=2, clock=lambda: 0.0)
    assert budget.wait(BASE) == 0
    assert budget.spent
    assert journal.attempts(BASE) == 5
    journal.close()


# ----- what an attempt is made of -----------------------------------------------------------------


def test_every_attempt_after_the_first_trains_on_nine_tenths_of_its_own_and_measures_nothing(tmp_path):
    federation = run(_made(tmp_path))
    seen: list[bytes] = []

    class Watching(Softmax):
        def train(self, parameters, X, y, rng):  # noqa: N803
            seen.append(X.tobytes())
            return super().train(parameters, X, y, rng)

    me = Participant.load(federation.folder / "m1")
    learner = Learner(me, Watching(FEATURES, CLASSES), examples(1, 200), None, silent)
    model = model_file.decode(federation.models[federation.head.parameters])
    tries = [(0, 0)] + [(attempt, again) for attempt in range(1, 8) for again in range(4)]
    updates = [learner.train(model, federation.head, *one) for one in tries]
    assert len(set(seen)) == len(seen)
    whole, *parts = seen
    assert {len(part) * 10 // len(whole) for part in parts} == {9}
    assert updates[0].totals.examples > 0
    assert {(u.totals.examples, u.totals.correct, u.totals.loss) for u in updates[1:]} == {(0, 0, 0)}
    # the same model under another version is the same model
    later = Record(**{**vars(federation.head), "version": 9})
    again = learner.train(model, later, 3, 1)
    assert again.digest == updates[tries.index((3, 1))].digest


async def _made(root) -> Federation:
    return Federation(root)


@pytest.mark.parametrize("how", ["metadata", "spaces", "order"])
def test_a_model_under_another_encoding_is_refused(tmp_path, how):
    async def play() -> None:
        federation = Federation(tmp_path)
        data = federation.models[federation.head.parameters]
        length = int.from_bytes(data[:8], "little")
        head, body = data[8 : 8 + length], data[8 + length :]
        if how == "metadata":
            head = b'{"__metadata__":{"n":"1"},' + head.rstrip()[1:]
        elif how == "order":
            split = head.rstrip()[1:-1].index(b',"weight"')
            head = b"{" + head.rstrip()[1:-1][split + 1 :] + b"," + head[1 : split + 1] + b"}"
        head += b" " * (-len(head) % 8 + (8 if how == "spaces" else 0))
        other = len(head).to_bytes(8, "little") + head + body
        assert model_file.decode(other).keys() == model_file.decode(data).keys()

        class Lying(Seat):
            async def model(self, digest):
                return other

        federation.log[0] = forged(federation, model_file.digest(other))
        lied_to = federation.member("m1", seat=Lying(federation, "m1"))
        with lied_to as member, pytest.raises(RecordError, match="not the one encoding"):
            await member.run()
        assert not federation.vectors

    run(play())


def forged(federation: Federation, digest: bytes) -> Record:
    from choral.federation import records  # noqa: PLC0415

    return records.first(federation.me.identity, federation.me.task.digest, digest, bytes(32))


# ----- figures that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_loss_that_no_vector_can_carry_ends_nobody(tmp_path, loss):
    class Odd(Softmax):
        def evaluate(self, parameters, X, y):  # noqa: N803
            return Evaluation(len(y), 0, loss)

    async def play() -> Federation:
        federation = Federation(tmp_path, 3, rounds=2)
        odd = {"m1": {"trainer": Odd(FEATURES, CLASSES)}}
        assert {record.version for record in await federation.train(**odd)} == {2}
        return federation

    federation = run(play())
    for total in federation.sums:
        if loss == 1e300:
            assert total.examples == 24
            assert 2.0**35 - 1 < total.loss < 2.0**35 + 100  # one member's bound, and what the others say
        else:
            assert total.examples == 16  # not measured here
            assert 0 < total.loss < 100
    assert bool(federation.told("m1", "not measured")) == (loss != 1e300)
