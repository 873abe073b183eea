"""Key files that cannot leak by accident (PROTOCOL §3.1)."""

import base64
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

from choral.errors import IdentityError
from choral.federation import key_file
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity

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
        key_file.save(identity, tmp_path / "a.key")
    finally:
        os.umask(old)
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    loaded = key_file.load(tmp_path / "a.key")
    assert loaded.public == identity.public
    assert loaded.sign("label", b"content") == identity.sign("label", b"content")


def test_a_key_file_is_never_overwritten(tmp_path, identity):
    key_file.save(identity, tmp_path / "a.key")
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(IdentityError, match="exists already") as refusal:
        key_file.save(Identity.generate(seeded(b"other")), tmp_path / "a.key")
    assert refusal.value.hint
    assert (tmp_path / "a.key").read_bytes() == before


def test_a_dangling_link_is_not_written_through(tmp_path, identity):
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="exists already"):
        key_file.save(identity, tmp_path / "a.key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666, 0o777])
def test_a_key_that_everybody_can_reach_is_refused(tmp_path, identity, mode):
    key_file.save(identity, tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(IdentityError, match="every user") as refusal:
        key_file.load(tmp_path / "a.key")
    assert "chmod 600" in refusal.value.hint


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_key_of_its_owner_or_of_a_group_is_read(tmp_path, identity, mode):
    key_file.save(identity, tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    assert key_file.load(tmp_path / "a.key").public == identity.public


def test_a_missing_key_says_where_keys_come_from(tmp_path):
    with pytest.raises(IdentityError, match="cannot be read") as refusal:
        key_file.load(tmp_path / "none.key")
    assert "choral init" in refusal.value.hint


def test_a_directory_is_not_a_key(tmp_path):
    with pytest.raises(IdentityError, match="cannot be read"):
        key_file.load(tmp_path)


def test_another_kind_of_key_is_refused_by_its_name(tmp_path):
    pem = X25519PrivateKey.from_private_bytes(SEED).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(IdentityError, match="X25519PrivateKey, expected an Ed25519"):
        key_file.load(write_private(tmp_path / "x.key", pem))


def test_what_is_not_a_private_key_in_pem_is_refused(tmp_path):
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for at, pem in enumerate([b"", b"\xff" * 100, SEED, encrypted, public, encrypted[:60]]):
        with pytest.raises(IdentityError, match="not a PEM private key"):
            key_file.load(write_private(tmp_path / f"{at}.key", pem))


@pytest.mark.parametrize("algorithm", ["6f", "71", "7f"])  # X448, Ed448, none
def test_a_key_of_an_algorithm_that_the_library_cannot_load_is_refused(tmp_path, algorithm):
    der = bytes.fromhex(f"302e020100300506032b65{algorithm}04220420" + "01" * 32)
    body = base64.encodebytes(der).decode()
    pem = f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n"
    with pytest.raises(IdentityError, match="not a PEM private key"):
        key_file.load(write_private(tmp_path / "x.key", pem.encode()))
