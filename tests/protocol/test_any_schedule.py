"""Whoever vanishes, repeats itself or comes late: the exact sum over the survivors, or a reason (§4)."""

from contextlib import suppress

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from choral.errors import OutOfPhase, RoundAborted
from choral.protocol.aggregator import Phase
from stage import Stage

OPEN = [Phase.ADVERTISE, Phase.SHARE, Phase.MASK, Phase.CONSISTENCY, Phase.UNMASK]
COHORT = st.integers(0, 6)


class AnySchedule(RuleBasedStateMachine):
    """Members answer when it pleases them; their messages arrive in any order, several times, or never.

    The model is who was heard in each phase, counted here again, and the plain sum in Python's integers.
    """

    @initialize(n=st.integers(3, 7), tolerated=st.sampled_from([None, 0, 1]), minimum=st.integers(3, 4))
    def open(self, n, tolerated, minimum):
        self.stage = Stage(n, tolerated=tolerated, minimum=minimum, seed=bytes([n]), d=3, a=2)
        self.heard = {phase: set() for phase in OPEN}
        self.underway = [
            (Phase.ADVERTISE, name, member.advertise) for name, member in self.stage.members.items()
        ]
        self.delivered = []
        self.gone = set()
        self.reason = None

    @property
    def aggregator(self):
        return self.stage.aggregator

    def question(self, name):
        """What an honest aggregator last answered to this member, if it has answered."""
        phase = self.aggregator.phase
        at = OPEN.index(phase) if phase in OPEN else 0
        if at == 0 or name not in self.heard[OPEN[at - 1]]:
            return None
        answers = {Phase.SHARE: self.aggregator.roster, Phase.MASK: lambda: self.aggregator.inbox(name)}
        answers |= {Phase.CONSISTENCY: self.aggregator.survivors}
        answers |= {Phase.UNMASK: self.aggregator.endorsements}
        return answers[phase]()

    @rule(who=COHORT)
    def a_member_answers(self, who):
        """A retry, when it has answered before: the answer is the same."""
        name = self.stage.names[who % len(self.stage.names)]
        question = None if name in self.gone else self.question(name)
        if question is not None:
            answer = self.stage.ask(name, question)
            self.underway.append((self.aggregator.phase, name, answer))

    @rule()
    def everybody_answers(self):
        for who in range(len(self.stage.names)):
            self.a_member_answers(who)

    @rule(who=COHORT)
    def a_member_vanishes(self, who):
        self.gone.add(self.stage.names[who % len(self.stage.names)])

    @precondition(lambda self: self.underway)
    @rule(data=st.data())
    def one_message_arrives(self, data):
        self.deliver(self.underway.pop(data.draw(st.integers(0, len(self.underway) - 1))))

    @rule(order=st.randoms(use_true_random=False))
    def all_messages_arrive(self, order):
        order.shuffle(self.underway)
        while self.underway:
            self.deliver(self.underway.pop())

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def a_message_arrives_again(self, data):
        phase, name, message = data.draw(st.sampled_from(self.delivered))
        before = [set(names) for names in self.heard.values()]
        if name in self.heard[phase]:
            self.stage.send(message)  # no error: a retry is normal
        else:
            self.deliver((phase, name, message))
        assert name not in self.heard[phase] or before == [set(names) for names in self.heard.values()]

    def deliver(self, entry):
        phase, name, message = entry
        now = self.aggregator.phase
        in_time = now is phase or (phase is Phase.CONSISTENCY and now is Phase.UNMASK)
        if in_time or name in self.heard[phase]:
            self.stage.send(message)
            self.heard[phase].add(name)
        else:
            with pytest.raises(OutOfPhase, match=f"sent its message for {phase.value}"):
                self.stage.send(message)
        self.delivered.append(entry)

    @rule()
    def the_phase_is_closed(self):
        phase = self.aggregator.phase
        if phase not in OPEN:
            with pytest.raises(OutOfPhase, match="round is over"):
                self.aggregator.close()
            return
        n = len(self.heard[Phase.ADVERTISE])
        enough = {Phase.ADVERTISE: lambda: self.stage.parameters.minimum}
        quorum = lambda: self.stage.parameters.quorum(n)  # noqa: E731
        enough |= {Phase.SHARE: quorum, Phase.MASK: quorum}
        needed = enough.get(phase, lambda: self.stage.parameters.threshold(n))()
        if len(self.heard[phase]) >= needed:
            self.aggregator.close()
            assert self.aggregator.phase is [*OPEN, Phase.DONE][OPEN.index(phase) + 1]
            return
        awaited = self.aggregator.awaited
        with pytest.raises(RoundAborted) as abort:
            self.aggregator.close()
        self.reason = abort.value.reason
        assert f"phase {phase.value} got {len(self.heard[phase])} of the {needed}" in self.reason
        assert list(abort.value.missing) == awaited
        assert set(awaited).isdisjoint(self.heard[phase])

    @rule(order=st.randoms(use_true_random=False))
    def a_phase_goes_well(self, order):
        self.everybody_answers()
        self.all_messages_arrive(order)
        self.the_phase_is_closed()

    @invariant()
    def the_books_agree(self):
        if not hasattr(self, "stage"):
            return
        for phase in OPEN:
            assert set(self.aggregator.received(phase)) == self.heard[phase]

    @invariant()
    def the_total_is_the_plain_sum_over_exactly_the_survivors(self):
        if not hasattr(self, "stage"):
            return
        if self.aggregator.phase is Phase.DONE:
            survivors = self.aggregator.total.survivors
            assert set(survivors) == self.heard[Phase.MASK]
            assert len(survivors) >= self.aggregator.threshold
            assert self.stage.total() == self.stage.expected(survivors)
            assert self.aggregator.total.culprits == ()
        else:
            assert self.aggregator.total is None
        assert (self.aggregator.phase is Phase.ABORTED) == (self.reason is not None)

    def teardown(self):
        """Play to the end, with whoever is left: a sum, or a reason."""
        if not hasattr(self, "stage"):
            return
        while self.aggregator.phase in OPEN:
            self.everybody_answers()
            while self.underway:
                self.deliver(self.underway.pop())
            with suppress(RoundAborted):
                self.the_phase_is_closed()
        self.the_total_is_the_plain_sum_over_exactly_the_survivors()
        event(f"the round ended {self.aggregator.phase.value}: {self.reason and self.reason[:16]}")


AnySchedule.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnySchedule = AnySchedule.TestCase


@pytest.mark.parametrize("phase", OPEN)
@pytest.mark.parametrize("who", "abcdefg")
def test_one_member_may_vanish_in_any_phase(phase, who):
    stage = Stage(7)
    here = set(stage.names)

    def present(now):
        if now is phase:
            here.discard(who)
        return sorted(here)

    stage.advertise(present(Phase.ADVERTISE))
    stage.share(present(Phase.SHARE))
    survivors = stage.mask(present(Phase.MASK)).members
    stage.agree(present(Phase.CONSISTENCY))
    stage.reveal(present(Phase.UNMASK))
    assert stage.total() == stage.expected(survivors)
    assert (who in survivors) == (phase in (Phase.CONSISTENCY, Phase.UNMASK))


@pytest.mark.parametrize("n", [3, 4, 5, 8, 12])
def test_as_many_as_the_threshold_allows_may_vanish_before_masking(n):
    stage = Stage(n)
    stage.to_inboxes()
    left = stage.names[n - stage.parameters.quorum(n) :]
    stage.mask(left)
    stage.agree(left)
    stage.reveal(left)
    assert stage.total() == stage.expected(left)


def test_a_federation_of_two_sums_two():
    stage = Stage(2, minimum=2)
    stage.to_endorsements()
    stage.reveal("ab")
    assert stage.total() == stage.expected("ab")
