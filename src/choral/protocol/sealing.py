"""How shares reach another member, and a masked vector the aggregator: the two sealings of §3.4.

A round is handed one of them; nothing else in it knows which.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from choral.errors import PeerError, WireError
from choral.primitives import shamir
from choral.primitives.agreement import derive
from choral.primitives.envelope import OVERHEAD_BYTES, Envelopes
from choral.primitives.seal import OVERHEAD_BYTES as SEAL_OVERHEAD_BYTES
from choral.primitives.seal import open_seal, seal
from choral.protocol import wire
from choral.protocol.messages import MaskedVector

Body = bytes | bytearray | memoryview

SHARE = b"share\0\0\0"
MASKED = b"masked\0\0"
HEADER_BYTES = 32 + 8 + 32 + 32
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

    seal_bytes = PIECE_BYTES + SEAL_OVERHEAD_BYTES

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


class Syft:
    """`syft`: an envelope of Syft Crypto around each of them, the masked vector included.

    An envelope binds neither round nor purpose and opens again when it is replayed. So the plaintext
    starts with both and with both identity keys, and all four are compared. Within the envelope a piece
    is sealed as under `aes-gcm`: whoever steals Syft's long-term keys cannot open the rounds of the past.

    Args:
        envelopes: this participant's keys, and the bundles that it pinned.
        keys: identity keys by name, the aggregator's among them.
        aggregator: the name under which the aggregator stands in both.
    """

    seal_bytes = AesGcm.seal_bytes + HEADER_BYTES + OVERHEAD_BYTES

    def __init__(self, envelopes: Envelopes, keys: Mapping[str, bytes], aggregator: str) -> None:
        self.envelopes = envelopes
        self._keys = keys
        self._aggregator = aggregator
        self._inner = AES_GCM

    def seal(self, way: Way, agreed: bytes, piece: bytes) -> bytes:
        content = header(way, SHARE) + self._inner.seal(way, agreed, piece)
        return self.envelopes.seal(way.recipient, content)

    def open(self, way: Way, agreed: bytes, sealed: bytes) -> bytes:
        return self._inner.open(way, agreed, bytes(self._unpack(way, SHARE, sealed, "seal")))

    def vector_bytes(self, d: int, a: int) -> int:
        return wire.vector_bytes(0, 0) + OVERHEAD_BYTES + HEADER_BYTES + 4 * d + 8 * a

    def encode_vector(self, vector: MaskedVector) -> list[bytes | memoryview]:
        head, main, auxiliary = wire.encode_vector(vector)
        way = self._to_aggregator(vector.head.member, vector.head.round_id)
        content = b"".join((header(way, MASKED), main, auxiliary))
        return [head, self.envelopes.seal(self._aggregator, content)]

    def decode_vector(self, body: Body, d: int, a: int) -> MaskedVector:
        head, envelope = wire.split_vector(body)
        expected = OVERHEAD_BYTES + HEADER_BYTES + 4 * d + 8 * a
        if len(envelope) != expected:
            raise WireError(
                f"a sealed vector of {len(envelope)} bytes, expected {expected} for {d} parameters and"
                f" {a} totals",
                hint="member and aggregator disagree on the task's model or on how it is sealed",
                rule="7.2.2",
            )
        if head.member not in self._keys:
            raise PeerError(
                f"{head.member} is not enrolled in this federation", culprits=[head.member], rule="4.3.8"
            )
        way = self._to_aggregator(head.member, head.round_id)
        words = self._unpack(way, MASKED, bytes(envelope), "masked vector")
        main, auxiliary = np.frombuffer(words, "<u4", d), np.frombuffer(words, "<u8", a, 4 * d)
        return MaskedVector(head, main, np.require(auxiliary, requirements="A"))

    def _to_aggregator(self, member: str, round_id: bytes) -> Way:
        keys = self._keys
        return Way(round_id, member, self._aggregator, keys[member], keys[self._aggregator])

    def _unpack(self, way: Way, kind: bytes, envelope: bytes, what: str) -> memoryview:
        """What follows the header, once the header is the expected one."""
        try:
            content = self.envelopes.open(way.sender, envelope)
            _compare(header(way, kind), content, way)
        except PeerError as error:
            raise broken(way.sender, what, error.reason) from error
        return memoryview(content)[HEADER_BYTES:]


def seal_key(way: Way, agreed: bytes) -> bytes:
    """§3.3: one key for every ordered pair and round."""
    return derive(agreed, way.round_id, b"choral/1 seal" + way.sender_key + way.recipient_key)


def seal_context(way: Way) -> bytes:
    """§3.4: round id || sender || recipient, as identity keys."""
    return way.round_id + way.sender_key + way.recipient_key


def header(way: Way, kind: bytes) -> bytes:
    """§3.4: round id || kind || sender || recipient, in front of everything in an envelope."""
    return way.round_id + kind + way.sender_key + way.recipient_key


def _compare(expected: bytes, content: bytes, way: Way) -> None:
    """§3.4: all four parts are what the opener expects.

    Raises:
        PeerError: which of them is not.
    """
    if len(content) < HEADER_BYTES:
        raise PeerError("an envelope without a header")
    parts = struct.Struct("32s8s32s32s")
    names = ("another round", "another purpose", f"another sender than {way.sender}", "another recipient")
    for name, found, wanted in zip(
        names, parts.unpack(content[:HEADER_BYTES]), parts.unpack(expected), strict=True
    ):
        if found != wanted:
            raise PeerError(f"an envelope that was made for {name}")


def broken(sender: str, what: str = "seal", reason: str | None = None) -> PeerError:
    """The refusal of something sealed that does not open; it names its sender."""
    return PeerError(
        f"the {what} from {sender} does not open" + (f": {reason}" if reason else ""),
        culprits=[sender],
        hint="either that member or the way between it and this one damaged it",
        rule="4.3.7" if what == "seal" else "7.2.3",
    )
