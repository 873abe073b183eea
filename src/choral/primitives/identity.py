"""Ed25519 identities: keys, and signatures under a label (PROTOCOL §3.1)."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from choral.primitives.entropy import RandomBytes

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
_FIELD = 2**255 - 19


def labelled(label: str, content: bytes) -> bytes:
    """SHA-256(label || 0x00 || content): what a signature under `label` is made over. 32 bytes."""
    return hashlib.sha256(label.encode() + b"\x00" + content).digest()


# y of the points whose order divides 8: 0, 1, -1 and the two of order 8
_SMALL_ORDER = {0, 1, _FIELD - 1} | {
    int.from_bytes(bytes.fromhex(y), "little")
    for y in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
}


def sound(public: bytes) -> bool:
    """Whether 32 bytes can be somebody's identity key, and are its one encoding.

    Under a key of small order everybody can make signatures. Only such points, and a few whose private half
    nobody knows, have a second encoding (RFC 8032 §5.1.3), under which one key would pass as two.
    """
    y = int.from_bytes(public, "little") % 2**255
    return y < _FIELD and y not in _SMALL_ORDER


@dataclass(frozen=True)
class Identity:
    """A long-term signing key. Its repr and str show the public half only."""

    public: bytes
    _private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Identity({self.public.hex()})"

    @classmethod
    def generate(cls, random: RandomBytes) -> Identity:
        """A fresh key from 32 bytes of `random` (RFC 8032 §5.1.5)."""
        return cls.from_private_bytes(random(32))

    @classmethod
    def from_private_bytes(cls, seed: bytes) -> Identity:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(private.public_key().public_bytes_raw(), private)

    def sign(self, label: str, content: bytes) -> bytes:
        """64-byte signature over `labelled(label, content)`."""
        return self._private.sign(labelled(label, content))

    @property
    def private_bytes(self) -> bytes:
        """The secret half, 32 bytes, for whoever keeps it."""
        return self._private.private_bytes_raw()


@functools.lru_cache(maxsize=1 << 16)
def _verify(public: bytes, signature: bytes, digest: bytes) -> bool:
    # A pure function, so a cache is sound: in a simulation every member of a cohort checks the
    # same hundred signatures, and a retried request is checked again.
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify(public: bytes, signature: bytes, label: str, content: bytes) -> bool:
    """Whether `signature` (64 bytes) is `public`'s (32 bytes) over `content` under `label`."""
    return _verify(public, signature, labelled(label, content))
