"""Signatures that hold for one label only, keys that show nothing of themselves (PROTOCOL §3.1)."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity, labelled, sound, verify

SEED = bytes(range(32))


@pytest.fixture
def identity():
    return Identity.from_private_bytes(SEED)


def test_the_repr_shows_no_secret(tmp_path, identity):
    private = identity._private.private_bytes_raw().hex()
    for text in (repr(identity), str(identity), f"{identity}", f"{[identity]}"):
        assert identity.public.hex() in text
        assert private not in text
        assert "private" not in text.lower()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=64), st.binary(max_size=64), st.text(max_size=10), st.text(max_size=10))
def test_a_signature_holds_for_its_label_and_content_only(content, other, label, elsewhere):
    identity = Identity.from_private_bytes(SEED)
    signature = identity.sign(label, content)
    assert verify(identity.public, signature, label, content)
    if other != content:
        assert not verify(identity.public, signature, label, other)
    if elsewhere != label:
        assert not verify(identity.public, signature, elsewhere, content)


def test_every_bit_of_a_signature_counts(identity):
    signature = identity.sign("label", b"content")
    for bit in range(8 * len(signature)):
        damaged = bytearray(signature)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not verify(identity.public, bytes(damaged), "label", b"content")


@pytest.mark.parametrize(
    ("public", "signature"), [(bytes(31), bytes(64)), (SEED, b""), (b"", b""), (b"\xff" * 32, bytes(64))]
)
def test_malformed_keys_and_signatures_do_not_verify_and_do_not_raise(public, signature):
    assert not verify(public, signature, "label", b"content")


def test_a_label_ends_where_it_says():
    assert labelled("choral/1 a", b"b") != labelled("choral/1 ab", b"")
    assert labelled("a", b"") != labelled("", b"a")


def test_two_generated_keys_differ_and_one_source_gives_one_key():
    random = seeded(b"keys")
    assert Identity.generate(random).public != Identity.generate(random).public
    assert Identity.generate(seeded(b"keys")).public == Identity.generate(seeded(b"keys")).public


ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize("top", [0, 128])
def test_a_key_of_small_order_under_which_anybody_can_sign_is_not_sound(top):
    """For the neutral element R = s B is a signature of everything; it has a second encoding, too."""
    seed = hashlib.sha512(SEED).digest()[:32]
    scalar = int.from_bytes(seed, "little") & (2**254 - 8) | 2**254
    anybody = Identity.from_private_bytes(SEED).public + (scalar % ORDER).to_bytes(32, "little")
    neutral = b"\x01" + bytes(31)
    assert verify(neutral, anybody, "a label", b"whatever it says")
    assert not sound(neutral[:31] + bytes([top]))


@pytest.mark.parametrize(
    "public",
    [
        bytes(32),
        bytes(31) + b"\x80",
        (2**255 - 20).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 18).to_bytes(32, "little"),
        (2**256 - 1).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ],
)
def test_points_of_small_order_and_second_encodings_are_not_sound(public):
    assert not sound(public)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_is_generated_is_sound(seed):
    assert sound(Identity.from_private_bytes(seed).public)
