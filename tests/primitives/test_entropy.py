"""Randomness is an argument (PROTOCOL §3.7)."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from choral.primitives.entropy import seeded


@given(st.binary(max_size=40), st.lists(st.integers(0, 100), max_size=6))
def test_a_seeded_source_is_shake_256_read_on_and_on(seed, sizes):
    source = seeded(seed)
    read = b"".join(source(size) for size in sizes)
    assert read == hashlib.shake_256(seed).digest(sum(sizes))


def test_the_same_seed_replays_and_another_does_not():
    assert seeded(b"a")(100) == seeded(b"a")(100) != seeded(b"b")(100)
