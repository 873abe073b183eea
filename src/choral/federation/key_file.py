"""Files with private keys: readable by their owner only, never replaced."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from choral.errors import IdentityError
from choral.primitives.identity import Identity


def write(path: Path, content: bytes) -> None:
    """A new file with mode 600.

    Raises:
        IdentityError: the file exists already.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise IdentityError(
            f"{path} exists already",
            hint="a key is never overwritten: move the old one away first",
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read(path: Path) -> bytes:
    """What `write` wrote.

    Raises:
        IdentityError: no such file, or readable by everybody.
    """
    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        raise IdentityError(
            f"{path}: cannot be read ({error.strerror})",
            hint="`choral init` makes the key of every participant",
        ) from error
    # on Windows the mode says nothing about who can read
    if (
        hasattr(os, "getuid") and mode & 0o007
    ):  # a group may read: Kubernetes mounts Secrets with the pod's fsGroup
        raise IdentityError(
            f"{path}: every user of this machine can read this private key (mode {mode & 0o777:o})",
            hint=f"chmod 600 {path}",
        )
    return content


def save(identity: Identity, path: Path) -> None:
    """Write an identity as PKCS#8 PEM. Raises as `write`."""
    private = Ed25519PrivateKey.from_private_bytes(identity.private_bytes)
    write(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def load(path: Path) -> Identity:
    """The identity that `save` wrote.

    Raises:
        IdentityError: no such file, readable by everybody, or not an Ed25519 key.
    """
    pem = read(path)
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise IdentityError(
            f"{path}: not a PEM private key ({error})", hint="expected Ed25519 in PKCS#8 PEM"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise IdentityError(
            f"{path}: found a {type(private).__name__}, expected an Ed25519 key",
            hint="`choral init` makes the right kind",
        )
    return Identity.from_private_bytes(private.private_bytes_raw())
