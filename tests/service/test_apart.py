"""Members that ask not to be in a cohort together are not, and nobody can shut others out that way (§4.6)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choral.service.rounds.apart import keep_apart

NAMES = tuple("abcdefgh")


def apart(cohort, without, *, c=1, least=3, turns=None):
    return keep_apart(cohort, without, colluders=c, least=least, turns=turns or {})


def pairs(cohort, without):
    return [(a, b) for a in cohort for b in without.get(a, ()) if b in cohort and a != b]


@st.composite
def cohorts(draw):
    n = draw(st.integers(2, 8))
    cohort = NAMES[:n]
    without = {a: draw(st.sets(st.sampled_from(NAMES), max_size=4)) for a in cohort if draw(st.booleans())}
    turns = draw(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)))
    return cohort, without, turns


@given(cohorts(), st.integers(0, 2), st.integers(2, 5))
def test_no_pair_is_left_and_the_minimum_is_kept_wherever_that_can_be(case, c, least):
    cohort, without, turns = case
    out = apart(cohort, without, c=c, least=least, turns=turns)
    kept = [name for name in cohort if name not in out]
    assert not pairs(kept, without)
    assert all(out.values())
    possible = any(
        not pairs(some, without) for size in range(least, len(cohort) + 1)
        for some in itertools.combinations(cohort, size)
    )  # fmt: skip
    assert (len(kept) >= least) == possible


@given(cohorts())
def test_it_depends_on_nothing_else(case):
    cohort, without, turns = case
    first = apart(cohort, without, turns=turns)
    again = {name: set(named) for name, named in reversed(without.items())}
    assert apart(cohort, again, turns=dict(reversed(turns.items()))) == first


def test_nobody_asked_nobody_goes():
    assert apart(NAMES, {"a": ["z"], "y": ["a"], "b": []}) == {}


def test_of_two_whose_words_stand_against_each_other_each_waits_every_other_time():
    turns, waited = {}, []
    for number in range(6):
        (out,) = apart("abcde", {"a": ["b"]}, turns=turns)
        turns[out] = number
        waited.append(out)
    assert waited == ["b", "a", "b", "a", "b", "a"]


def test_who_is_named_by_more_than_can_be_lying_waits_every_time():
    turns = {}
    for number in range(4):
        out = apart("abcde", {"a": ["e"], "b": ["e"]}, turns=turns)
        assert list(out) == ["e"]
        assert out["e"] == "a, b asked for cohorts without it"
        turns["e"] = number


def test_who_names_everybody_waits_and_takes_nobody_along():
    for number in range(3):
        assert list(apart("abcde", {"c": "abde"}, turns={"c": number})) == ["c"]
    both = apart("abcde", {"c": "abde", "a": ["b"]}, turns={"b": 7, "a": 6, "c": 9})
    assert set(both) == {"c", "a"}


def test_a_liar_that_names_two_of_four_does_not_bring_the_others_below_their_minimum():
    assert list(apart("abcd", {"d": "ab"}, c=0)) == ["d"]


def test_where_it_cannot_be_helped_the_cohort_is_too_small_and_stays_open():
    assert len(apart("abc", {"a": ["b"]})) == 1


@pytest.mark.parametrize("n", [8, 256])
def test_names_are_many_and_a_reason_is_short(n):
    cohort = [f"m{i:03}" for i in range(n)]
    out = apart(cohort, dict.fromkeys(cohort, cohort[:1]), c=2)
    assert list(out) == ["m000"]
    assert len(out["m000"]) < 120


def test_the_worst_that_256_members_can_ask_for_is_settled_quickly():
    cohort = [f"m{i:03}" for i in range(256)]
    without = {name: cohort[(i + 1) % 256 :][:16] for i, name in enumerate(cohort)}
    out = apart(cohort, without, c=63, least=250)  # impossible: the search must end all the same
    assert not pairs([name for name in cohort if name not in out], without)
