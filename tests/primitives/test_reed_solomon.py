"""Properties of the decoder (Gao 2003)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives import reed_solomon, shamir
from choral.primitives.entropy import seeded


def points(n, t, secret, seed=b""):
    shares = shamir.split(secret.to_bytes(32, "little"), n, t, seeded(seed))
    return {at: int.from_bytes(share, "little") for at, share in enumerate(shares, 1)}


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_up_to_half_the_redundancy_of_wrong_values_is_corrected(data):
    t = data.draw(st.integers(1, 12), "t")
    indices = data.draw(st.sets(st.integers(1, 40), min_size=t, max_size=30), "indices")
    secret = data.draw(st.sampled_from([0, 1, shamir.PRIME - 1]) | st.integers(0, shamir.PRIME - 1))
    good = points(40, t, secret, data.draw(st.binary(max_size=4)))
    held = {at: good[at] for at in data.draw(st.permutations(sorted(indices)))}
    wrong = data.draw(st.sets(st.sampled_from(list(held)), max_size=(len(held) - t) // 2))
    for at in wrong:
        held[at] = data.draw(st.integers(0, shamir.PRIME - 1))
    found = reed_solomon.decode(held, t)
    assert found is not None
    assert len(found) <= t
    assert reed_solomon.value(found, 0) == secret
    assert all(reed_solomon.value(found, at) == value for at, value in good.items())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.data())
def test_whatever_comes_out_lies_on_all_but_half_the_redundancy(t, spare, data):
    values = data.draw(st.lists(st.integers(0, 3), min_size=t + spare, max_size=t + spare))
    held = dict(enumerate(values, 1))
    found = reed_solomon.decode(held, t)
    if found is not None:
        off = [at for at, value in held.items() if reed_solomon.value(found, at) != value]
        assert len(off) <= spare // 2
        assert len(found) <= t


def test_what_is_on_no_polynomial_is_not_decoded():
    draw = seeded(b"noise")
    assert reed_solomon.decode({at: shamir.draw(draw) for at in range(1, 11)}, 4) is None


def test_fewer_points_than_the_threshold_give_nothing():
    assert reed_solomon.decode({1: 5, 2: 6}, 3) is None


@pytest.mark.parametrize("values", [{1: 0, 2: 0, 3: 0, 4: 0}, {1: 0, 2: 0, 3: 0, 4: 9}])
def test_the_zero_polynomial_is_a_polynomial(values):
    assert reed_solomon.decode(values, 2) == []
    assert reed_solomon.value([], 7) == 0
