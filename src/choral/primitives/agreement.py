"""X25519 key agreement (RFC 7748) and the HKDF (RFC 5869) under every derived key (PROTOCOL §3.2, §3.3)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from choral.errors import PeerError

KEY_BYTES = 32
_FIELD = 2**255 - 19


def public_key(private: bytes) -> bytes:
    """The public half (32 bytes) of a 32-byte private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Agreement:
    """One private key, ready to be agreed with many peers: parsed once."""

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)

    def shared(self, peer_public: bytes) -> bytes:
        """The 32-byte shared secret.

        Raises:
            PeerError: `peer_public` has small order, so the secret would be all zeros (RFC 7748 §6.1).
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError as error:
            raise PeerError("a key agreement gave the all-zero secret or got a bad key") from error


def canonical(public: bytes) -> bool:
    """Whether these 32 bytes are the one encoding of their point: below 2^255 - 19, the top bit clear.

    RFC 7748 has receivers ignore that bit and reduce the rest, so one key has other encodings, too: as bytes
    they differ, and they agree on the same secrets.
    """
    return int.from_bytes(public, "little") < _FIELD


def usable(public: bytes) -> bool:
    """Whether a public key is safe to agree with: a small-order point gives zeros with every key."""
    try:
        Agreement(b"\x01" * KEY_BYTES).shared(public)
    except PeerError:
        return False
    return True


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256, 32 bytes out."""
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
