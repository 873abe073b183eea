"""Key agreement and derived keys (PROTOCOL §3.2, §3.3)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives.agreement import Agreement, canonical, derive, public_key, usable

keys = st.binary(min_size=32, max_size=32)


@settings(max_examples=40, deadline=None)
@given(keys, keys)
def test_both_sides_agree(mine, theirs):
    assert Agreement(mine).shared(public_key(theirs)) == Agreement(theirs).shared(public_key(mine))


@settings(max_examples=40, deadline=None)
@given(keys)
def test_every_generated_key_is_usable(private):
    assert usable(public_key(private))


@settings(max_examples=40, deadline=None)
@given(st.tuples(keys, keys, st.binary(max_size=40)), st.tuples(keys, keys, st.binary(max_size=40)))
def test_secret_salt_and_info_all_reach_the_derived_key(one, other):
    assert (derive(*one) == derive(*other)) == (one == other)
    secret, salt, info = one
    for changed in (
        (flipped(secret), salt, info),
        (secret, flipped(salt), info),
        (secret, salt, info + b"\x00"),
    ):
        assert derive(*changed) != derive(*one)


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("number", [2**255 - 19, 2**255 - 18, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1])
def test_bytes_that_are_another_encoding_of_a_key_are_not_canonical(number):
    """RFC 7748 §5 has receivers mask the top bit and reduce the rest: they agree as their twin does."""
    key = number.to_bytes(32, "little")
    twin = (number % 2**255 % (2**255 - 19)).to_bytes(32, "little")
    assert not canonical(key)
    assert canonical(twin)
    if usable(twin):
        mine = Agreement(b"\x07" * 32)
        assert mine.shared(key) == mine.shared(twin)


def test_every_key_that_is_drawn_is_canonical():
    assert all(canonical(public_key(bytes([at]) * 32)) for at in range(64))
