"""Key files that cannot leak by accident, signatures that hold for one label only (PROTOCOL §3.1)."""

import base64
import hashlib
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.errors import IdentityError
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity, labelled, sound, verify

SEED = bytes(range(32))


@pytest.fixture
def identity():
    return Identity.from_private_bytes(SEED)


def write_private(path, pem):
    path.write_bytes(pem)
    path.chmod(0o600)
    return path


def test_a_saved_key_comes_back_and_only_its_owner_can_read_it(tmp_path, identity):
    old = os.umask(0)  # even under the most careless umask
    try:
        identity.save(tmp_path / "a.key")
    finally:
        os.umask(old)
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    loaded = Identity.load(tmp_path / "a.key")
    assert loaded.public == identity.public
    assert loaded.sign("label", b"content") == identity.sign("label", b"content")


def test_a_key_file_is_never_overwritten(tmp_path, identity):
    identity.save(tmp_path / "a.key")
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(IdentityError, match="exists already") as refusal:
        Identity.generate(seeded(b"other")).save(tmp_path / "a.key")
    assert refusal.value.hint
    assert (tmp_path / "a.key").read_bytes() == before


def test_a_dangling_link_is_not_written_through(tmp_path, identity):
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="exists already"):
        identity.save(tmp_path / "a.key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666, 0o777])
def test_a_key_that_everybody_can_reach_is_refused(tmp_path, identity, mode):
    identity.save(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(IdentityError, match="every user") as refusal:
        Identity.load(tmp_path / "a.key")
    assert "chmod 600" in refusal.value.hint


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_key_of_its_owner_or_of_a_group_is_read(tmp_path, identity, mode):
    identity.save(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    assert Identity.load(tmp_path / "a.key").public == identity.public


def test_a_missing_key_says_where_keys_come_from(tmp_path):
    with pytest.raises(IdentityError, match="cannot be read") as refusal:
        Identity.load(tmp_path / "none.key")
    assert "choral init" in refusal.value.hint


def test_a_directory_is_not_a_key(tmp_path):
    with pytest.raises(IdentityError, match="cannot be read"):
        Identity.load(tmp_path)


def test_another_kind_of_key_is_refused_by_its_name(tmp_path):
    pem = X25519PrivateKey.from_private_bytes(SEED).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(IdentityError, match="X25519PrivateKey, expected an Ed25519"):
        Identity.load(write_private(tmp_path / "x.key", pem))


def test_what_is_not_a_private_key_in_pem_is_refused(tmp_path):
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for at, pem in enumerate([b"", b"\xff" * 100, SEED, encrypted, public, encrypted[:60]]):
        with pytest.raises(IdentityError, match="not a PEM private key"):
            Identity.load(write_private(tmp_path / f"{at}.key", pem))


@pytest.mark.parametrize("algorithm", ["6f", "71", "7f"])  # X448, Ed448, none
def test_a_key_of_an_algorithm_that_the_library_cannot_load_is_refused(tmp_path, algorithm):
    der = bytes.fromhex(f"302e020100300506032b65{algorithm}04220420" + "01" * 32)
    body = base64.encodebytes(der).decode()
    pem = f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n"
    with pytest.raises(IdentityError, match="not a PEM private key"):
        Identity.load(write_private(tmp_path / "x.key", pem.encode()))


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
