"""Key agreement and derived keys (PROTOCOL §3.2, §3.3)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives.agreement import Agreement, derive, public_key, usable

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
