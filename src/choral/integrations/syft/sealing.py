"""The sealing `syft` (PROTOCOL §3.4): what the core's rounds are handed when a task names it.

`federation.integration.Sealer` says what is asked of this module.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from choral.errors import IdentityError, PeerError, WireError
from choral.federation import key_file
from choral.federation.enrolment import AGGREGATOR, SYFT_KEYS, Participant
from choral.integrations.syft.envelope import OVERHEAD_BYTES, EnvelopeKey, Envelopes
from choral.primitives.entropy import RandomBytes
from choral.protocol import wire
from choral.protocol.messages import MaskedVector
from choral.protocol.sealing import AES_GCM, AesGcm, Body, Way, broken

SHARE = b"share\0\0\0"
MASKED = b"masked\0\0"
HEADER_BYTES = 32 + 8 + 32 + 32
SENSIBLE = 50
"""Members of a cohort up to which envelopes are cheap enough: bench/sealing.py."""


def new_keys(random: RandomBytes) -> tuple[bytes, bytes]:
    """Fresh Syft keys: the public bundle, and the private keys as `syft.json` holds them."""
    key = EnvelopeKey.generate(random)
    return key.public, key.private_bytes


def sealing_of(me: Participant) -> Syft:
    """The sealing with the Syft keys in this participant's folder and the bundles that it pinned.

    Raises:
        IdentityError: the Syft keys in the folder are missing or not the pinned ones.
        ParameterError: Syft Crypto is not installed, or in another version.
    """
    bundles = {name: bytes.fromhex(bundle) for name, bundle in me.federation.bundles.items()}
    content = key_file.read(me.folder / SYFT_KEYS)
    try:
        own = EnvelopeKey.from_private_bytes(content)
    except IdentityError as error:
        raise IdentityError(f"{me.folder / SYFT_KEYS}: {error.reason}", hint=error.hint) from error
    keys = {**me.federation.pinned, AGGREGATOR: me.federation.aggregator_key}
    return Syft(Envelopes(me.name, own, bundles), keys, AGGREGATOR)


def warning(cohort: int) -> str | None:
    """Each of a cohort seals to every other: how much that is, where it is much."""
    if cohort <= SENSIBLE:
        return None
    size = cohort * (cohort - 1) * Syft.seal_bytes / 1e6
    return (
        f"{cohort} members exchange {size:.0f} MB of envelopes a round; syft is sensible for up to about"
        f" {SENSIBLE}"
    )


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
