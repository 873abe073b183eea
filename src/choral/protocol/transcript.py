"""What is hashed and what is signed (§3.1, §4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar, cast

from choral.primitives.identity import Identity, verify
from choral.protocol.messages import Dealt, MaskedVector, Roster, Shares
from choral.protocol.wire import pack, plain


class Signed(Protocol):
    """Any message with a label to sign under and a place for the signature."""

    label: ClassVar[Any]

    @property
    def signature(self) -> bytes: ...


S = TypeVar("S", bound=Signed)


def digest(value: Any) -> bytes:
    """H: SHA-256 of the canonical CBOR of plain values. 32 bytes."""
    return hashlib.sha256(pack(value)).digest()


def context(task_digest: bytes, base: bytes) -> bytes:
    """ctx: the task and the model record that a cohort's updates start from (§4)."""
    return hashlib.sha256(task_digest + base).digest()


def round_id(ctx: bytes, roster: Roster, threshold: int) -> bytes:
    """Names a round by everything its members agree on when it begins.

    The threshold is in it because each side computes it from its own `tolerated`: members that differ
    in it would deal shares that do not go together, and an honest dealer would be accused at the end.
    """
    return hashlib.sha256(ctx + digest(plain(roster)) + threshold.to_bytes(4, "little")).digest()


def dealt_digest(dealt: Iterable[Dealt]) -> bytes:
    """R2: who dealt shares, with which commitments, in roster order."""
    return digest([[entry.member, entry.commitment] for entry in dealt])


def survivors_digest(members: Iterable[str]) -> bytes:
    """H(U3)."""
    return digest(list(members))


def vector_digest(vector: MaskedVector) -> bytes:
    """SHA-256 over the main, then the auxiliary segment, little-endian."""
    state = hashlib.sha256(vector.main.data)
    state.update(vector.auxiliary.data)
    return state.digest()


def signed_content(message: Signed) -> bytes:
    """The canonical CBOR that a message's signature covers: all fields but what it excludes."""
    return pack(plain(message, ("signature", *getattr(message, "unsigned", ()))))


def sign(identity: Identity, message: S) -> S:
    """The message with its signature filled in."""
    signature = identity.sign(message.label, signed_content(message))
    return cast(S, replace(cast(Any, message), signature=signature))


def signed_by(message: Signed, public: bytes) -> bool:
    """Whether the message's signature is that of identity key `public`."""
    return verify(public, message.signature, message.label, signed_content(message))


def dealt_by(entry: Dealt, round_id_: bytes, public: bytes) -> bool:
    """Whether an entry of U2 carries its member's signature over round and commitment (§4 mask)."""
    return signed_by(Shares(entry.member, round_id_, entry.commitment, (), entry.signature), public)
