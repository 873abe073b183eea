"""The messages of a round in the order of the protocol (§4). Member to aggregator and back.

Every list over members is in roster order: ascending identity key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Length:
    """Bounds on the length of a text, a byte string or a list, and the form of a text: checked by `wire`."""

    low: int
    high: int
    form: Callable[[str], object] = lambda text: True
    said: str = "text"


Bytes32 = Annotated[bytes, Length(32, 32)]
Signature = Annotated[bytes, Length(64, 64)]
Name = Annotated[str, Length(1, 64, _NAME.fullmatch, "letters, digits, `.`, `_` and `-`")]
Sealed = Annotated[bytes, Length(0, 1 << 16)]


@dataclass(frozen=True)
class Advertise:
    """Member joins: this round's public keys (§4 advertise)."""

    label: ClassVar = "choral/1 advertise"
    member: Name
    ctx: Bytes32
    staleness: int  # versions between the record of ctx and the one that the update starts from
    seal_key: Bytes32
    mask_key: Bytes32
    nonce: Bytes32
    signature: Signature


@dataclass(frozen=True)
class Roster:
    """The cohort U1."""

    members: tuple[Advertise, ...]


@dataclass(frozen=True)
class Shares:
    """A member's sealed shares, one per roster entry, its own place empty (§4 share)."""

    label: ClassVar = "choral/1 share"
    unsigned: ClassVar = ("seals",)  # a recipient sees only its own seal
    member: Name
    round_id: Bytes32
    commitment: Bytes32
    seals: tuple[Sealed, ...]
    signature: Signature


@dataclass(frozen=True)
class Dealt:
    """One entry of U2: who dealt shares, its commitment to the self seed, its signature."""

    member: Name
    commitment: Bytes32
    signature: Signature


@dataclass(frozen=True)
class Inbox:
    """U2, and the seals addressed to one member in the same order, its own place empty."""

    round_id: Bytes32
    dealt: tuple[Dealt, ...]
    seals: tuple[Sealed, ...]


@dataclass(frozen=True)
class Masked:
    """The head of a masked vector (§4 mask); `digest` is SHA-256 of both segments' bytes."""

    label: ClassVar = "choral/1 mask"
    member: Name
    round_id: Bytes32
    r2: Bytes32
    digest: Bytes32
    signature: Signature


@dataclass(frozen=True, eq=False)
class MaskedVector:
    """A head with its vector: main uint32[d], auxiliary uint64[a]. Travels as raw bytes (§7)."""

    head: Masked
    main: NDArray[np.uint32]
    auxiliary: NDArray[np.uint64]


@dataclass(frozen=True)
class Survivors:
    """U3: whose masked vectors are in the sum."""

    round_id: Bytes32
    members: tuple[Name, ...]


@dataclass(frozen=True)
class Consistency:
    """A member signs the one survivor set it will answer for (§4 reveal, consistency)."""

    label: ClassVar = "choral/1 consistency"
    member: Name
    round_id: Bytes32
    r2: Bytes32
    survivors: Bytes32
    signature: Signature


@dataclass(frozen=True)
class Endorsement:
    """One member's consistency signature, as passed on."""

    member: Name
    signature: Signature


@dataclass(frozen=True)
class Endorsements:
    """All consistency signatures that the aggregator received."""

    round_id: Bytes32
    entries: tuple[Endorsement, ...]


@dataclass(frozen=True)
class Reveal:
    """Shares of the self seeds of U3, and of the mask keys of U2 without U3 (§4 reveal, unmask)."""

    label: ClassVar = "choral/1 reveal"
    member: Name
    round_id: Bytes32
    self_shares: tuple[Bytes32, ...]
    key_shares: tuple[Bytes32, ...]
    signature: Signature


@dataclass(frozen=True)
class Complaint:
    """A member leaves the round and says why, so that nobody waits for it. Accuses, proves nothing."""

    label: ClassVar = "choral/1 complaint"
    member: Name
    round_id: Bytes32
    reason: Annotated[str, Length(1, 500, str.isprintable, "printable text on one line")]
    culprits: tuple[Name, ...]
    signature: Signature


FromMember = Advertise | Shares | MaskedVector | Consistency | Reveal | Complaint
FromAggregator = Roster | Inbox | Survivors | Endorsements
Signed = Advertise | Shares | Masked | Consistency | Reveal | Complaint
