"""Properties of the secret sharing (PROTOCOL §3.6)."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.errors import ParameterError
from choral.primitives import shamir
from choral.primitives.entropy import seeded

secrets = st.one_of(
    st.integers(0, shamir.PRIME - 1), st.sampled_from([0, 1, shamir.PRIME - 1, 2**255, 2**256 - 190])
).map(lambda value: value.to_bytes(32, "little"))


@st.composite
def splits(draw):
    n = draw(st.integers(1, 12))
    t = draw(st.integers(1, n))
    secret = draw(secrets)
    shares = shamir.split(secret, n, t, seeded(draw(st.binary(max_size=8))))
    return secret, n, t, shares


@settings(max_examples=80, deadline=None)
@given(splits(), st.randoms(use_true_random=False))
def test_any_t_of_n_shares_give_the_secret_back_in_any_order(split, order):
    secret, n, t, shares = split
    holders = order.sample(range(1, n + 1), t)
    assert shamir.combine({index: shares[index - 1] for index in holders}) == secret


@settings(max_examples=60, deadline=None)
@given(splits(), secrets, st.randoms(use_true_random=False))
def test_with_one_share_too_few_every_secret_is_equally_possible(split, other, order):
    """For any other secret there is a last share that, with the t - 1 seen ones, gives just that."""
    _, n, t, shares = split
    seen = order.sample(range(1, n + 1), t - 1)
    points = {0: int.from_bytes(other, "little")}
    points |= {index: int.from_bytes(shares[index - 1], "little") for index in seen}
    forged = {index: shares[index - 1] for index in seen}
    free = next(index for index in itertools.count(1) if index not in seen)
    value = 0
    for i, y in points.items():
        weight = 1
        for j in points:
            if j != i:
                weight = weight * (free - j) * pow(i - j, -1, shamir.PRIME) % shamir.PRIME
        value += weight * y
    forged[free] = (value % shamir.PRIME).to_bytes(32, "little")
    assert shamir.combine(forged) == other


@settings(max_examples=40, deadline=None)
@given(splits(), st.integers(1, 2**256 - 1))
def test_one_wrong_share_gives_a_wrong_secret(split, change):
    secret, _n, t, shares = split
    held = {index: shares[index - 1] for index in range(1, t + 1)}
    damaged = (int.from_bytes(held[1], "little") + change) % shamir.PRIME
    if damaged != int.from_bytes(held[1], "little"):
        held[1] = damaged.to_bytes(32, "little")
        assert shamir.combine(held) != secret


def test_the_same_index_twice_is_refused():
    with pytest.raises(ParameterError, match="twice"):
        shamir.coefficients([1, 2, 1])


@pytest.mark.parametrize("index", [0, -1, shamir.PRIME, shamir.PRIME + 1])
def test_an_index_that_would_be_the_secret_or_wrap_onto_another_is_refused(index):
    with pytest.raises(ParameterError, match="start at 1"):
        shamir.coefficients([2, index])


@pytest.mark.parametrize(("n", "t"), [(3, 0), (3, 4), (0, 0), (2, -1)])
def test_a_threshold_outside_one_to_n_is_refused(n, t):
    with pytest.raises(ParameterError, match="cannot be met"):
        shamir.split(bytes(32), n, t, seeded(b""))


@pytest.mark.parametrize("secret", [bytes(31), bytes(33), b"\xff" * 32, shamir.PRIME.to_bytes(32, "little")])
def test_a_secret_that_is_not_a_field_element_is_refused(secret):
    with pytest.raises(ParameterError, match="below"):
        shamir.split(secret, 3, 2, seeded(b""))


def test_a_draw_beyond_the_prime_is_drawn_again():
    blocks = iter([b"\xff" * 32, shamir.PRIME.to_bytes(32, "little"), (7).to_bytes(32, "little")])
    assert shamir.draw(lambda size: next(blocks)) == 7


def test_coefficients_read_the_polynomial_anywhere_not_only_at_the_secret():
    shares = shamir.split((5).to_bytes(32, "little"), 6, 3, seeded(b"anywhere"))
    weights = shamir.coefficients([1, 4, 6], at=3)
    assert shamir.evaluate(weights, [shares[0], shares[3], shares[5]]) == shares[2]


def test_lines_are_coefficients_for_many_places_and_at_a_holder_its_own_value():
    many = shamir.lines([2, 9, 5], [0, 4, 9])
    assert many == [shamir.coefficients([2, 9, 5], at) for at in (0, 4, 9)]
    assert many[2] == [0, 1, 0]
