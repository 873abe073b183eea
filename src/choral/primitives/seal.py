"""The `aes-gcm` seal: AES-256-GCM under a key that is used once, hence a zero nonce (PROTOCOL §3.4)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

OVERHEAD_BYTES = 16
_NONCE = bytes(12)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate under a 32-byte single-use key; 16 bytes longer than `plaintext`."""
    return AESGCM(key).encrypt(_NONCE, plaintext, associated)


def open_seal(key: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """The plaintext, or None when the seal does not open under this key and associated data."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag:
        return None
