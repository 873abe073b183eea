"""A seal opens for the right key and the right context and for nothing else (PROTOCOL §3.4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives.seal import OVERHEAD_BYTES, open_seal, seal

keys = st.binary(min_size=32, max_size=32)


@settings(max_examples=50, deadline=None)
@given(keys, st.binary(max_size=200), st.binary(max_size=100))
def test_a_seal_opens_again(key, plaintext, associated):
    sealed = seal(key, plaintext, associated)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert open_seal(key, sealed, associated) == plaintext


@settings(max_examples=30, deadline=None)
@given(keys, keys, st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=64))
def test_another_key_or_another_context_does_not_open_it(key, other, plaintext, associated, elsewhere):
    sealed = seal(key, plaintext, associated)
    if other != key:
        assert open_seal(other, sealed, associated) is None
    if elsewhere != associated:
        assert open_seal(key, sealed, elsewhere) is None


def test_any_flipped_bit_spoils_it():
    sealed = seal(bytes(32), b"two shares", b"context")
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert open_seal(bytes(32), bytes(damaged), b"context") is None


@pytest.mark.parametrize("size", range(27))
def test_a_truncated_or_empty_seal_does_not_open(size):
    sealed = seal(bytes(32), b"two shares", b"context")
    assert len(sealed) == 26
    assert (open_seal(bytes(32), sealed[:size], b"context") is None) == (size < 26)


def test_a_longer_seal_does_not_open():
    assert open_seal(bytes(32), seal(bytes(32), b"x", b"") + b"\x00", b"") is None
