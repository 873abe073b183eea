"""What the aggregator sees of all-zero updates is noise (PROTOCOL §3.5, §4). Fixed seeds: it holds or not.

A vector of zeros in, so every byte out is mask. The last tests break the masking on purpose and show that
the checks of the others would have noticed.
"""

import itertools

import numpy as np
import pytest

from choral.primitives.keystream import Stream, add_keystreams
from choral.protocol import phases
from choral.protocol.sealing import seal_context, seal_key
from stage import Stage

D, A = 8192, 512
LOW, HIGH = 170, 360  # chi-square with 255 degrees of freedom: 1e-5 of its mass lies outside on either side


def chi_square(data):
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(((counts - expected) ** 2 / expected).sum())


def looks_uniform(array):
    return LOW < chi_square(array.tobytes()) < HIGH


def masked(seed=b"round", *, ctx=bytes(32), dealers=None, n=5):
    """The masked vectors of zeros, by member."""
    stage = Stage(n, seed=seed, ctx=ctx, d=D, a=A, zeros=True)
    inboxes = stage.to_inboxes(dealers)
    return {name: stage.ask(name, inbox) for name, inbox in inboxes.items()}


def streams_of(seed=b"round", **changes):
    """The streams that each member of a round masks with, its self mask first, by its place."""
    seen = {}
    original = phases.add_keystreams

    def note(main, auxiliary, streams, *, threads):
        seen[len(seen)] = list(streams)
        original(main, auxiliary, streams, threads=threads)

    phases.add_keystreams = note
    try:
        masked(seed, **changes)
    finally:
        phases.add_keystreams = original
    return seen


def without_self_masks():
    """What is left of the masked zeros for one who has learned every self seed, as the aggregator does."""
    selfs = [streams[0] for streams in streams_of().values()]
    rests = []
    for vector, stream in zip(masked().values(), selfs, strict=True):
        main, auxiliary = vector.main.copy(), vector.auxiliary.copy()
        add_keystreams(main, auxiliary, [Stream(stream.seed, -1)])
        rests.append(main)
    return rests


def hides_zeros(vectors):
    """Each vector, every difference and every sum of them, and the two segments, look like noise."""
    sums = []
    for size in range(1, len(vectors) + 1):
        for some in itertools.combinations(vectors.values(), size):
            sums.append(sum((vector.main for vector in some), np.zeros(D, np.uint32)))
            sums.append(sum((vector.auxiliary for vector in some), np.zeros(A, np.uint64)))
    for one, other in itertools.combinations(vectors.values(), 2):
        sums += [one.main - other.main, one.auxiliary - other.auxiliary]
    return all(map(looks_uniform, sums))


def test_masked_zeros_and_all_their_sums_look_like_noise():
    """Even the sum of all, in which the pairwise masks cancel, is still under the self masks."""
    assert hides_zeros(masked())


def test_every_bit_of_every_word_is_as_often_set_as_not():
    for vector in masked().values():
        for words in (vector.main, vector.auxiliary):
            bits = np.unpackbits(words.view(np.uint8)).reshape(len(words), -1)
            spread = 5 * np.sqrt(len(words)) / 2
            assert np.abs(bits.sum(axis=0) - len(words) / 2).max() < spread


def test_neighbouring_words_are_not_correlated():
    for vector in masked().values():
        words = vector.main.astype(np.float64)
        assert abs(np.corrcoef(words[:-1], words[1:])[0, 1]) < 5 / np.sqrt(D)


def test_the_two_segments_are_under_different_masks():
    for vector in masked().values():
        head = vector.main.view(np.uint64)[:A]
        assert looks_uniform(head - vector.auxiliary)
        assert not set(head.tolist()) & set(vector.auxiliary.tolist())


def test_no_mask_is_used_for_two_vectors():
    one, other = streams_of(), streams_of(b"other")
    for streams in (one, other):
        selfs = [streams[at][0].seed for at in streams]
        pairs = [stream.seed for at in streams for stream in streams[at][1:]]
        assert len(set(selfs)) == 5
        assert len(set(pairs)) == 10  # once plus and once minus
        assert not set(selfs) & set(pairs)
        for seed in pairs:
            signs = [s.sign for at in streams for s in streams[at] if s.seed == seed]
            assert sorted(signs) == [-1, 1]
    used = [{stream.seed for streams in group.values() for stream in streams} for group in (one, other)]
    assert not used[0] & used[1]


def test_the_same_keys_in_another_round_give_other_masks():
    """The same randomness throughout; only ctx, and so the round's name, differs."""
    one, other = masked(), masked(ctx=b"\x01" * 32)
    for name in one:
        assert looks_uniform(one[name].main - other[name].main)
        assert looks_uniform(one[name].auxiliary - other[name].auxiliary)
    used = [streams_of(), streams_of(ctx=b"\x01" * 32)]
    seeds = [{stream.seed for streams in group.values() for stream in streams} for group in used]
    assert not seeds[0] & seeds[1]


def test_every_ordered_pair_and_round_has_its_own_seal_key_and_context():
    """A zero nonce is sound for a key that is used once only (§3.4)."""
    keys, contexts = set(), set()
    for ctx in (bytes(32), b"\x01" * 32):
        stage = Stage(4, ctx=ctx)
        stage.to_inboxes()
        cohort = stage.members["a"]._cohort
        for one, other in itertools.permutations(stage.names, 2):
            way = cohort.way(one, other)
            keys.add(seal_key(way, stage.members[one]._dealing.agreed[other]))
            contexts.add(seal_context(way))
    assert len(keys) == len(contexts) == 2 * 4 * 3


def test_the_same_keys_with_other_dealers_give_other_pairwise_masks():
    """The same round and the same self masks; only R2 differs: e dealt no shares."""
    all_five, four = streams_of(), streams_of(dealers="abcd")
    for at in range(4):
        assert all_five[at][0] == four[at][0]
        assert not {s.seed for s in all_five[at][1:]} & {s.seed for s in four[at][1:]}
    one, other = masked(), masked(dealers="abcd")
    for name in other:
        assert looks_uniform(one[name].main - other[name].main)


# ----- the checks bite ---------------------------------------------------------------------------


@pytest.fixture
def streams_changed(monkeypatch):
    def change(how):
        original = phases.add_keystreams

        def changed(main, auxiliary, streams, *, threads):
            original(main, auxiliary, how(list(streams)), threads=threads)

        monkeypatch.setattr(phases, "add_keystreams", changed)

    return change


def test_a_missing_self_mask_would_be_seen(streams_changed):
    streams_changed(lambda streams: streams[1:])
    assert not hides_zeros(masked())


def test_missing_pairwise_masks_would_be_seen(streams_changed):
    assert all(looks_uniform(rest) for rest in without_self_masks())
    streams_changed(lambda streams: streams[:1])
    assert not any(looks_uniform(rest) for rest in without_self_masks())


def test_one_mask_for_two_vectors_would_be_seen(streams_changed):
    streams_changed(lambda streams: [Stream(bytes(32), 1)])
    assert not hides_zeros(masked())


def test_a_mask_of_few_bits_would_be_seen(streams_changed, monkeypatch):
    def few_bits(main, auxiliary, streams, *, threads):
        main += np.random.default_rng(len(streams)).integers(0, 2**31, len(main), dtype=np.uint32)

    monkeypatch.setattr(phases, "add_keystreams", few_bits)
    assert not hides_zeros(masked())


def test_a_mask_that_ignores_the_round_would_be_seen(monkeypatch):
    original = phases.derive
    monkeypatch.setattr(phases, "derive", lambda secret, salt, info: original(secret, bytes(32), info[:20]))
    one, other = masked(), masked(ctx=b"\x01" * 32)
    assert not all(looks_uniform(one[name].main - other[name].main) for name in one)
