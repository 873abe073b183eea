"""How shares reach another member, and a masked vector the aggregator (§3.4).

A round is handed one sealing; nothing else in it knows which. `aes-gcm` is here; what seals by somebody
else's encryption is an integration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from choral.errors import PeerError
from choral.primitives import shamir
from choral.primitives.agreement import derive
from choral.primitives.seal import OVERHEAD_BYTES, open_seal, seal
from choral.protocol import wire
from choral.protocol.messages import MaskedVector

Body = bytes | bytearray | memoryview

PIECE_BYTES = 2 * shamir.BYTES  # the share of a self seed, then that of a mask key


@dataclass(frozen=True)
class Way:
    """From whom to whom, in which round; with both identity keys."""

    round_id: bytes
    sender: str
    recipient: str
    sender_key: bytes
    recipient_key: bytes


class Sealing(Protocol):
    """What a participant does with what only one other may read.

    `agreed` is the X25519 secret of the two members' seal keys of this round.

    Attributes:
        seal_bytes: how long a seal of a piece of two shares is, always.
    """

    seal_bytes: int

    def seal(self, way: Way, agreed: bytes, piece: bytes) -> bytes:
        """A piece of shares, to the one member that may read it."""

    def open(self, way: Way, agreed: bytes, sealed: bytes) -> bytes:
        """The piece.

        Raises:
            PeerError: names the sender, and says what is wrong with its seal.
        """

    def vector_bytes(self, d: int, a: int) -> int:
        """Largest body of a masked vector of d main and a auxiliary words."""

    def encode_vector(self, vector: MaskedVector) -> list[bytes | memoryview]:
        """The body of a masked vector in pieces (§7.2)."""

    def decode_vector(self, body: Body, d: int, a: int) -> MaskedVector:
        """The masked vector in a body.

        Raises:
            WireError, PeerError: not one of this task, or not one of its sender's.
        """


class AesGcm:
    """`aes-gcm`: a single-use key for every ordered pair and round. The masked vector travels as it is."""

    seal_bytes = PIECE_BYTES + OVERHEAD_BYTES

    def seal(self, way: Way, agreed: bytes, piece: bytes) -> bytes:
        return seal(seal_key(way, agreed), piece, seal_context(way))

    def open(self, way: Way, agreed: bytes, sealed: bytes) -> bytes:
        piece = open_seal(seal_key(way, agreed), sealed, seal_context(way))
        if piece is None:
            raise broken(way.sender)
        return piece

    def vector_bytes(self, d: int, a: int) -> int:
        return wire.vector_bytes(d, a)

    def encode_vector(self, vector: MaskedVector) -> list[bytes | memoryview]:
        return wire.encode_vector(vector)

    def decode_vector(self, body: Body, d: int, a: int) -> MaskedVector:
        return wire.decode_vector(body, d, a)


AES_GCM = AesGcm()


def seal_key(way: Way, agreed: bytes) -> bytes:
    """§3.3: one key for every ordered pair and round."""
    return derive(agreed, way.round_id, b"choral/1 seal" + way.sender_key + way.recipient_key)


def seal_context(way: Way) -> bytes:
    """§3.4: round id || sender || recipient, as identity keys."""
    return way.round_id + way.sender_key + way.recipient_key


def broken(sender: str, what: str = "seal", reason: str | None = None) -> PeerError:
    """The refusal of something sealed that does not open; it names its sender."""
    return PeerError(
        f"the {what} from {sender} does not open" + (f": {reason}" if reason else ""),
        culprits=[sender],
        hint="either that member or the way between it and this one damaged it",
        rule="4.3.7" if what == "seal" else "7.2.3",
    )
