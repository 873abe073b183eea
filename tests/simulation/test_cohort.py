"""Members that vanish anywhere in a round: either the exact sum over the survivors, or a reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol import phases
from choral.protocol.aggregator import AggregatorRound, Phase
from choral.protocol.member import MemberRound
from choral.protocol.parameters import Parameters
from choral.simulation.cohort import PHASES, draw_drops, run_round

D, A = 17, 2
CTX = bytes(range(32))
MOST = 9
IDENTITIES = {f"m{i}": Identity.generate(seeded(f"m{i}".encode())) for i in range(MOST)}
PINNED = {name: identity.public for name, identity in IDENTITIES.items()}
RNG = np.random.default_rng(0)
VECTORS = {name: RNG.integers(0, 2**32, D, dtype=np.uint32) for name in IDENTITIES}
TOTALS = {name: RNG.integers(0, 2**64, A, dtype=np.uint64) for name in IDENTITIES}


def play(names, drops, *, minimum=3, tolerated=None, encoded=True, made=None):
    parameters = Parameters(MOST, D, A, minimum, tolerated)

    def member(name):
        if made is not None:
            made.append(name)
        me = phases.Member(name, IDENTITIES[name], PINNED, parameters, CTX)
        return MemberRound(me, VECTORS[name], TOTALS[name], seeded(b"round" + name.encode()))

    aggregator = AggregatorRound({name: PINNED[name] for name in names}, parameters, CTX)
    return parameters, run_round(names, member, aggregator, drops=drops, encoded=encoded)


def foretold(names, drops, parameters):
    """In which phase PROTOCOL §4 ends such a round, and who stays to the end of each phase until then."""
    stays, there = {}, list(names)
    for phase in PHASES:
        there = [name for name in there if drops.get(name) is not phase]
        stays[phase] = there
        n = len(stays[Phase.ADVERTISE])
        if phase is Phase.ADVERTISE:
            enough = parameters.minimum
        else:
            t = (n + parameters.colluders(n)) // 2 + 1
            enough = t if phase in (Phase.CONSISTENCY, Phase.UNMASK) else max(t, parameters.minimum)
        if len(there) < enough:
            return phase, stays
    return None, stays


@st.composite
def patterns(draw):
    names = list(IDENTITIES)[: draw(st.integers(2, MOST))]
    return names, draw(st.dictionaries(st.sampled_from(names), st.sampled_from(PHASES)))


@given(patterns(), st.sampled_from([(3, None), (3, 0), (3, 1), (5, 2), (2, 0)]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_whoever_vanishes_the_sum_is_exact_or_the_round_says_who_was_missing(pattern, floors, encoded):
    names, drops = pattern
    parameters, outcome = play(names, drops, minimum=floors[0], tolerated=floors[1], encoded=encoded)
    end, stays = foretold(names, drops, parameters)
    assert set(outcome.roster) == set(stays[Phase.ADVERTISE])
    reached = PHASES[: PHASES.index(end) + 1] if end else PHASES
    assert outcome.dropped == {name: phase for name, phase in drops.items() if phase in reached}
    if end:
        assert outcome.total is None
        assert f"phase {end.value} " in outcome.aborted.reason
        assert set(outcome.aborted.missing) == {name for name, phase in drops.items() if phase is end}
        return
    assert outcome.aborted is None
    assert set(outcome.total.survivors) == set(stays[Phase.MASK])
    main, totals = np.zeros(D, np.uint32), np.zeros(A, np.uint64)
    for name in outcome.total.survivors:
        main += VECTORS[name]
        totals += TOTALS[name]
    np.testing.assert_array_equal(outcome.total.main, main)
    np.testing.assert_array_equal(outcome.total.auxiliary, totals)
    assert outcome.total.culprits == ()


def test_who_is_gone_before_it_advertises_never_trains():
    names, made = list(IDENTITIES)[:5], []
    play(names, {"m1": Phase.ADVERTISE, "m3": Phase.SHARE}, made=made)
    assert made == ["m0", "m2", "m3", "m4"]


def test_bytes_are_those_of_the_encoded_messages():
    names = list(IDENTITIES)[:5]
    _, outcome = play(names, {"m1": Phase.MASK})
    assert list(outcome.traffic) == list(PHASES)
    assert outcome.traffic[Phase.ADVERTISE].down == 0
    vectors = 4 * (4 * D + 8 * A)
    assert vectors < outcome.traffic[Phase.MASK].up < vectors + 4 * 300
    # five members send four seals of 80 bytes each, and each gets back the four that are for it
    assert outcome.traffic[Phase.SHARE].up > 5 * 4 * 80
    assert outcome.traffic[Phase.MASK].down > 4 * 4 * 80
    assert play(names, {}, encoded=False)[1].traffic == {}


@pytest.mark.parametrize("encoded", [False, True])
def test_nobody_left_is_an_abort_like_any_other(encoded):
    names = list(IDENTITIES)[:4]
    _, outcome = play(names, dict.fromkeys(names, Phase.ADVERTISE), encoded=encoded)
    assert outcome.roster == ()
    assert set(outcome.aborted.missing) == set(names)


def test_drops_come_from_the_generator_and_reach_every_phase():
    names = [f"m{i}" for i in range(2000)]
    drops = draw_drops(names, 0.2, np.random.default_rng(5))
    assert drops == draw_drops(names, 0.2, np.random.default_rng(5))
    assert drops != draw_drops(names, 0.2, np.random.default_rng(6))
    assert len(drops) == pytest.approx(400, abs=60)
    for phase in PHASES:
        assert sum(when is phase for when in drops.values()) == pytest.approx(80, abs=35)
    assert draw_drops(names, 0.0, np.random.default_rng(5)) == {}
    assert draw_drops(names, 1.0, np.random.default_rng(5)).keys() == set(names)
