"""What others published about the primitives under Choral; vectors/published.json names the sources."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from choral.errors import PeerError
from choral.primitives import shamir
from choral.primitives.agreement import Agreement, derive, public_key, usable
from choral.primitives.identity import Identity, _verify, verify
from choral.primitives.keystream import Stream, add_keystreams
from choral.primitives.seal import open_seal, seal

PUBLISHED = json.loads((Path(__file__).parents[1] / "vectors" / "published.json").read_text())
unhex = bytes.fromhex


@pytest.mark.parametrize("case", PUBLISHED["x25519"]["exchange"])
def test_x25519_agrees_as_in_rfc_7748(case):
    assert Agreement(unhex(case["private"])).shared(unhex(case["public"])) == unhex(case["shared"])


@pytest.mark.parametrize("case", PUBLISHED["x25519"]["key_pairs"])
def test_x25519_public_keys_are_those_of_rfc_7748(case):
    assert public_key(unhex(case["private"])) == unhex(case["public"])


@pytest.mark.parametrize("point", PUBLISHED["x25519"]["small_order"])
def test_every_small_order_point_is_refused_with_every_key(point):
    assert not usable(unhex(point))
    for private in (b"\x01" * 32, b"\xfe" * 32, bytes(range(32))):
        with pytest.raises(PeerError, match="all-zero"):
            Agreement(private).shared(unhex(point))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_refused(length):
    assert not usable(bytes(length))


@pytest.mark.parametrize("case", PUBLISHED["ed25519"]["signatures"])
def test_ed25519_signs_and_verifies_as_in_rfc_8032(case):
    identity = Identity.from_private_bytes(unhex(case["private"]))
    message, signature = unhex(case["message"]), unhex(case["signature"])
    assert identity.public == unhex(case["public"])
    # the raw signature: Identity itself signs only what is hashed under a label
    assert identity._private.sign(message) == signature
    assert _verify(identity.public, signature, message)
    assert not _verify(identity.public, signature, message + b"\x00")
    assert not verify(identity.public, signature, "", message)


def test_a_signature_with_a_scalar_beyond_the_group_order_is_refused():
    """RFC 8032 §5.1.7: S is below L, or one signature would have several encodings."""
    case = PUBLISHED["ed25519"]["signatures"][1]
    order = 2**252 + 27742317777372353535851937790883648493
    signature = unhex(case["signature"])
    scalar = int.from_bytes(signature[32:], "little") + order
    forged = signature[:32] + scalar.to_bytes(32, "little")
    assert not _verify(unhex(case["public"]), forged, unhex(case["message"]))


@pytest.mark.parametrize("case", PUBLISHED["hkdf_sha256"]["derive"])
def test_derived_keys_are_the_hkdf_of_rfc_5869(case):
    assert derive(unhex(case["ikm"]), unhex(case["salt"]), unhex(case["info"])) == unhex(case["okm"])


@pytest.mark.parametrize("skip_blocks", [0, 1, 3])
def test_a_keystream_is_the_aes_ctr_of_sp_800_38a(skip_blocks):
    case = PUBLISHED["aes_128_ctr"]
    counter = (int.from_bytes(unhex(case["counter"]), "big") + skip_blocks) % 2**128
    seed = unhex(case["key"]) + counter.to_bytes(16, "big")
    plaintext, ciphertext = (np.frombuffer(unhex(case[name]), "u1") for name in ("plaintext", "ciphertext"))
    expected = (plaintext ^ ciphertext)[16 * skip_blocks :]
    main, auxiliary = np.zeros(len(expected) // 4, np.uint32), np.zeros(0, np.uint64)
    add_keystreams(main, auxiliary, [Stream(seed, 1)])
    assert main.tobytes() == expected.tobytes()


@pytest.mark.parametrize("case", PUBLISHED["aes_256_gcm"]["zero_nonce"])
def test_a_seal_is_aes_256_gcm_under_a_zero_nonce(case):
    key, plaintext, sealed = (unhex(case[name]) for name in ("key", "plaintext", "sealed"))
    assert seal(key, plaintext, b"") == sealed
    assert open_seal(key, sealed, b"") == plaintext


def test_the_library_under_the_seal_authenticates_associated_data_as_published():
    case = PUBLISHED["aes_256_gcm"]["with_associated_data"]
    key, nonce, plaintext, associated, sealed = (
        unhex(case[name]) for name in ("key", "nonce", "plaintext", "associated", "sealed")
    )
    assert AESGCM(key).encrypt(nonce, plaintext, associated) == sealed


def _source(*values):
    blocks = iter(values)
    return lambda size: next(blocks).to_bytes(size, "little")


def test_shares_lie_on_the_known_polynomial():
    case = PUBLISHED["shamir"]
    secret = case["secret"].to_bytes(32, "little")
    shares = shamir.split(secret, case["n"], case["t"], _source(*case["coefficients"]))
    assert [int.from_bytes(share, "little") for share in shares] == case["shares"]
    assert shamir.combine({2: shares[1], 4: shares[3], 5: shares[4]}) == secret


def test_shares_wrap_at_the_prime_and_not_at_a_power_of_two():
    top = PUBLISHED["shamir"]["top"]
    assert int.from_bytes(unhex(top["secret"]), "little") == shamir.PRIME - 1
    shares = shamir.split(unhex(top["secret"]), 3, 2, _source(top["coefficient"]))
    assert [share.hex() for share in shares] == top["shares"]
    assert shamir.combine({1: shares[0], 3: shares[2]}) == unhex(top["secret"])
