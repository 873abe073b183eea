"""Expand-and-add equals the plain cipher, however it is cut: blocks, groups, threads (PROTOCOL §3.5)."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives import keystream
from choral.primitives.keystream import BLOCK_BYTES, Stream, add_keystreams

SEED = bytes(range(32))
WORDS = BLOCK_BYTES // 4


def one_shot(seed, size):
    """The keystream in a single call: nothing to get wrong."""
    return Cipher(AES(seed[:16]), CTR(seed[16:])).encryptor().update(bytes(size))


def expected(main, auxiliary, streams):
    main, auxiliary = main.copy(), auxiliary.copy()
    for seed, sign in streams:
        stream = one_shot(seed, main.nbytes + auxiliary.nbytes)
        first = np.frombuffer(stream, "<u4", len(main))
        second = np.frombuffer(stream, "<u8", len(auxiliary), main.nbytes)
        main = main + first if sign > 0 else main - first
        auxiliary = auxiliary + second if sign > 0 else auxiliary - second
    return main, auxiliary


def random_vectors(d, a, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, d, dtype=np.uint32), rng.integers(0, 2**64, a, dtype=np.uint64)


sizes = st.one_of(
    st.integers(1, 70), st.sampled_from([WORDS - 1, WORDS, WORDS + 1, WORDS + 3, 2 * WORDS - 5])
)
streams = st.lists(
    st.builds(Stream, st.binary(min_size=32, max_size=32), st.sampled_from([1, -1])), max_size=4
)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 9), streams)
def test_expand_and_add_is_the_one_shot_cipher_byte_for_byte(d, a, streams):
    main, auxiliary = random_vectors(d, a)
    wanted = expected(main, auxiliary, streams)
    add_keystreams(main, auxiliary, streams)
    assert (main == wanted[0]).all()
    assert (auxiliary == wanted[1]).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("d", [1, WORDS, 8 * WORDS, 8 * WORDS + 4, 8 * WORDS + 5, 9 * WORDS - 1])
def test_threads_do_not_change_a_bit(threads, d):
    main, auxiliary = random_vectors(d, 5)
    cut = [Stream(SEED, 1), Stream(SEED[::-1], -1)]
    wanted = expected(main, auxiliary, cut)
    add_keystreams(main, auxiliary, cut, threads=threads)
    assert (main == wanted[0]).all()
    assert (auxiliary == wanted[1]).all()


def test_two_threads_really_cut_a_long_vector(monkeypatch):
    parts = []
    original = keystream._add_part
    monkeypatch.setattr(keystream, "_add_part", lambda *given: parts.append(given[3:]) or original(*given))
    main, auxiliary = random_vectors(8 * WORDS + 5, 1)
    add_keystreams(main, auxiliary, [Stream(SEED, 1)], threads=2)
    assert len(parts) == 2
    assert sorted(parts)[0][1] == sorted(parts)[1][0]
    assert sorted(parts)[0][1] % WORDS == 0


@pytest.mark.parametrize("d", range(1, 9))
def test_the_auxiliary_segment_goes_on_in_the_middle_of_a_cipher_block(d):
    main, auxiliary = np.zeros(d, np.uint32), np.zeros(3, np.uint64)
    add_keystreams(main, auxiliary, [Stream(SEED, 1)])
    assert main.tobytes() + auxiliary.tobytes() == one_shot(SEED, 4 * d + 24)


@pytest.mark.parametrize("before_the_wrap", [0, 1, 2, WORDS // 4])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_counter_wraps_at_128_bits(before_the_wrap, threads):
    """Against the bare block cipher; a thread that starts beyond the wrap has to agree as well."""
    start = 2**128 - 1 - before_the_wrap
    d = 8 * WORDS
    main, auxiliary = np.zeros(d, np.uint32), np.zeros(0, np.uint64)
    add_keystreams(main, auxiliary, [Stream(SEED[:16] + start.to_bytes(16, "big"), 1)], threads=threads)
    blocks = range(start, start + d // 4)
    counters = b"".join((block % 2**128).to_bytes(16, "big") for block in blocks)
    assert main.tobytes() == Cipher(AES(SEED[:16]), ECB()).encryptor().update(counters)


@settings(max_examples=30, deadline=None)
@given(sizes, st.binary(min_size=32, max_size=32))
def test_two_opposite_streams_cancel(d, seed):
    main, auxiliary = random_vectors(d, 3)
    before = main.copy(), auxiliary.copy()
    add_keystreams(main, auxiliary, [Stream(seed, 1)])
    assert not (auxiliary == before[1]).all()
    add_keystreams(main, auxiliary, [Stream(seed, -1)])
    assert (main == before[0]).all()
    assert (auxiliary == before[1]).all()


def test_more_streams_than_one_group_of_open_ciphers():
    main, auxiliary = random_vectors(50, 3)
    many = [Stream(bytes([at]) * 32, 1 if at % 3 else -1) for at in range(2 * keystream._GROUP + 3)]
    wanted = expected(main, auxiliary, many)
    add_keystreams(main, auxiliary, many)
    assert (main == wanted[0]).all()
    assert (auxiliary == wanted[1]).all()


def test_an_auxiliary_segment_of_many_blocks():
    main, auxiliary = random_vectors(3, BLOCK_BYTES // 8 + 7)
    wanted = expected(main, auxiliary, [Stream(SEED, 1)])
    add_keystreams(main, auxiliary, [Stream(SEED, 1)])
    assert (auxiliary == wanted[1]).all()


def test_no_streams_change_nothing():
    main, auxiliary = random_vectors(10, 2)
    wanted = main.copy()
    add_keystreams(main, auxiliary, [])
    assert (main == wanted).all()
