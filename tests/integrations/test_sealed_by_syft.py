"""Rounds under `sealing = "syft"`: the same sums, and every lie about an envelope refused by name (§3.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from choral.errors import PeerError, WireError
from choral.integrations.syft.envelope import OVERHEAD_BYTES, EnvelopeKey, Envelopes
from choral.integrations.syft.sealing import HEADER_BYTES, MASKED, SHARE, Syft, header
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol import wire
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.messages import MaskedVector
from choral.protocol.sealing import Way
from choral.protocol.transcript import sign
from stage import A, D, Stage

pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')

BOSS = "aggregator"


class Sealed(Stage):
    """A cohort whose members and aggregator seal by Syft Crypto."""

    def __init__(self, n: int = 5, **given: Any) -> None:
        names = [*"abcdefghijklmnopqrstuvwxyz"[:n], BOSS]
        self.syft_keys = {name: EnvelopeKey.generate(seeded(b"syft " + name.encode())) for name in names}
        self.bundles = {name: key.public for name, key in self.syft_keys.items()}
        self.boss = Identity.generate(seeded(b"boss"))
        super().__init__(n, **given)
        self.aggregator = AggregatorRound(self.pinned, self.parameters, self.ctx, sealing=self.sealing(BOSS))

    def sealing(self, name: str, **bundles: bytes) -> Syft:
        """What `name` seals and opens with; `bundles` that it pinned wrongly."""
        envelopes = Envelopes(name, self.syft_keys[name], self.bundles | bundles)
        return Syft(envelopes, {**self.pinned, BOSS: self.boss.public}, BOSS)

    def member(self, name: str, **changes: Any):
        return super().member(name, **{"sealing": self.sealing(name)} | changes)

    def body(self, vector: MaskedVector) -> bytes:
        return b"".join(self.sealing(vector.head.member).encode_vector(vector))

    def take(self, body: bytes) -> MaskedVector:
        """A masked vector's body, as the aggregator decodes it."""
        return self.sealing(BOSS).decode_vector(body, self.d, self.a)

    def send(self, message: Any) -> None:
        if isinstance(message, MaskedVector):
            self.aggregator.receive(self.take(self.body(message)))
        else:
            super().send(message)

    def way(self, sender: str, recipient: str, round_id: bytes | None = None) -> Way:
        keys = {**self.pinned, BOSS: self.boss.public}
        known = round_id or self.aggregator.round_id
        return Way(known, sender, recipient, keys[sender], keys[recipient])

    def letter(self, sender: str, to: str, content: bytes) -> bytes:
        """Any envelope that `sender` can make."""
        return self.sealing(sender).envelopes.seal(to, content)

    def vector(self, name: str) -> MaskedVector:
        """The masked vector that `name` has just made."""
        return next(message for message in self.sent[name] if isinstance(message, MaskedVector))


@pytest.fixture
def stage():
    return Sealed(4)


def masked(stage: Sealed) -> MaskedVector:
    """Everybody has masked; the vector of a."""
    inboxes = stage.to_inboxes()
    for name, inbox in inboxes.items():
        stage.ask(name, inbox)
    return stage.vector("a")


def round_before() -> Sealed:
    """The same federation in a round before, all the way to masked vectors."""
    earlier = Sealed(4, seed=b"the round before")
    inboxes = earlier.to_inboxes()
    earlier.inboxes = inboxes
    for name, inbox in inboxes.items():
        earlier.ask(name, inbox)
    return earlier


# ----- what works -----------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [[], ["c"], ["b", "e"]])
def test_the_sum_is_that_of_the_survivors(gone):
    stage = Sealed(6)
    inboxes = stage.to_inboxes()
    stayed = [name for name in inboxes if name not in gone]
    stage.mask(stayed)
    stage.agree(stayed)
    stage.reveal(stayed)
    assert stage.total() == stage.expected(stayed)


def test_masks_do_not_depend_on_the_sealing(stage):
    plain = Stage(4)
    inboxes = plain.to_inboxes()
    for name, inbox in inboxes.items():
        plain.ask(name, inbox)
    ours = masked(stage)
    theirs = next(message for message in plain.sent["a"] if isinstance(message, MaskedVector))
    assert (ours.main == theirs.main).all()
    assert ours.head == theirs.head


def test_neither_the_masked_vector_nor_a_share_can_be_read_on_the_way(stage):
    vector = masked(stage)
    body = stage.body(vector)
    assert vector.main.tobytes() not in body
    assert vector.auxiliary.tobytes() not in body
    assert len(body) <= stage.sealing("a").vector_bytes(D, A)
    shares = stage.sent["a"][0]
    own = stage.members["b"]._held.shares["a"]
    assert not any(part in wire.encode(shares) for part in own)


def test_a_thief_of_every_syft_key_cannot_open_the_shares_of_a_past_round(stage):
    inboxes = stage.to_inboxes()
    for name, inbox in inboxes.items():
        stage.ask(name, inbox)
    held = stage.members["b"]._held.shares["a"]
    sealed = inboxes["b"].seals[0]
    content = stage.sealing("b").envelopes.open("a", sealed)
    assert content[:HEADER_BYTES] == header(stage.way("a", "b"), SHARE)
    assert not any(part in content for part in held)


def test_seals_and_bodies_have_one_length(stage):
    inboxes = stage.to_inboxes()
    lengths = {len(seal) for inbox in inboxes.values() for seal in inbox.seals} - {0}
    assert lengths == {OVERHEAD_BYTES + HEADER_BYTES + 80}


# ----- shares: what a proxy, an aggregator or a member can make of them -----------------------


def share_lies(stage: Sealed, inboxes: Any) -> dict[str, tuple[bytes, str]]:
    """What stands in a's inbox in the place of b's seal, and what a says."""
    good = inboxes["a"].seals[1]
    agreed = stage.members["b"]._dealing.agreed["a"]
    inner = stage.members["b"].me.sealing._inner
    piece = inner.seal(stage.way("b", "a"), agreed, bytes(64))

    def written(way: Way, kind: bytes = SHARE) -> bytes:
        return stage.letter("b", "a", header(way, kind) + piece)

    forged = Envelopes("b", stage.syft_keys["c"], {**stage.bundles, "b": stage.bundles["c"]})
    return {
        "a replay of the round before": (round_before().inboxes["a"].seals[1], "made for another round"),
        "another round": (written(stage.way("b", "a", bytes(32))), "made for another round"),
        "another purpose": (written(stage.way("b", "a"), MASKED), "made for another purpose"),
        "another sender inside": (written(stage.way("c", "a")), "made for another sender than b"),
        "another recipient inside": (written(stage.way("b", "c")), "made for another recipient"),
        "the seal to another member": (inboxes["c"].seals[1], "'c', not for a"),
        "the seal of another member": (inboxes["a"].seals[2], "was made by 'c'"),
        "a forged sender": (
            forged.seal("a", header(stage.way("b", "a"), SHARE) + piece),
            "not signed by the pinned Syft key of b",
        ),
        "a damaged envelope": (good[:-1] + bytes([good[-1] ^ 1]), "does not decrypt"),
        "a cut envelope": (good[:-1], "damaged"),
        "nothing": (b"", "damaged"),
        "no header": (stage.letter("b", "a", b"x" * (HEADER_BYTES - 1)), "without a header"),
        "an aes-gcm seal without an envelope": (piece, "damaged"),
        "a good header around another round's shares": (
            stage.letter("b", "a", header(stage.way("b", "a"), SHARE) + bytes(80)),
            "the seal from b does not open",
        ),
        "too few shares": (
            stage.letter(
                "b", "a", header(stage.way("b", "a"), SHARE) + inner.seal(stage.way("b", "a"), agreed, b"x")
            ),
            "the seal from b does not open",
        ),
    }


@pytest.mark.parametrize("lie", [
    "a replay of the round before", "another round", "another purpose", "another sender inside",
    "another recipient inside", "the seal to another member", "the seal of another member",
    "a forged sender", "a damaged envelope", "a cut envelope", "nothing", "no header",
    "an aes-gcm seal without an envelope", "a good header around another round's shares",
    "too few shares",
])  # fmt: skip
def test_a_lie_about_a_share_names_its_sender(stage, lie):
    inboxes = stage.to_inboxes()
    lies = share_lies(stage, inboxes)
    envelope, reason = lies[lie]
    seals = list(inboxes["a"].seals)
    seals[1] = envelope
    with pytest.raises(PeerError, match=reason) as told:
        stage.ask("a", replace(inboxes["a"], seals=tuple(seals)))
    assert told.value.culprits == ("b",)
    assert told.value.reason.startswith("the seal from b does not open")


def test_a_bundle_swapped_in_a_members_own_file_names_the_sender(stage):
    stage.members["a"] = stage.member("a", sealing=stage.sealing("a", b=stage.bundles["c"]))
    inboxes = stage.to_inboxes()
    with pytest.raises(PeerError, match="not signed by the pinned Syft key of b") as told:
        stage.ask("a", inboxes["a"])
    assert told.value.culprits == ("b",)


# ----- the masked vector ----------------------------------------------------------------------


def vector_lies(stage: Sealed) -> dict[str, tuple[bytes, str]]:
    """What arrives as a's body, and what the aggregator says."""
    mine = masked(stage)
    head, envelope = stage.sealing("a").encode_vector(mine)
    words = mine.main.tobytes() + mine.auxiliary.tobytes()
    other = stage.vector("b")

    def sealed(way: Way, kind: bytes = MASKED, by: str = "a", to: str = BOSS) -> bytes:
        return bytes(head) + stage.letter(by, to, header(way, kind) + words)

    before = round_before()
    forged = Envelopes("a", stage.syft_keys["c"], {**stage.bundles, "a": stage.bundles["c"]})
    content = header(stage.way("a", BOSS), MASKED) + words
    return {
        "a replay of the round before": (
            bytes(head) + before.sealing("a").encode_vector(before.vector("a"))[1],
            "made for another round",
        ),
        "another purpose": (sealed(stage.way("a", BOSS), SHARE), "made for another purpose"),
        "another sender inside": (sealed(stage.way("b", BOSS)), "made for another sender than a"),
        "another recipient inside": (sealed(stage.way("a", "b")), "made for another recipient"),
        "sealed to a member": (sealed(stage.way("a", BOSS), to="b"), "'b', not for aggregator"),
        "the envelope of another member": (
            bytes(head) + stage.sealing("b").encode_vector(other)[1],
            "was made by 'b'",
        ),
        "a forged sender": (
            bytes(head) + forged.seal(BOSS, content),
            "not signed by the pinned Syft key of a",
        ),
        "a damaged envelope": (bytes(head) + envelope[:-1] + bytes([envelope[-1] ^ 1]), "does not decrypt"),
    }


@pytest.mark.parametrize("lie", [
    "a replay of the round before", "another purpose", "another sender inside", "another recipient inside",
    "sealed to a member", "the envelope of another member", "a forged sender", "a damaged envelope",
])  # fmt: skip
def test_a_lie_about_a_masked_vector_names_its_sender(stage, lie):
    body, reason = vector_lies(stage)[lie]
    with pytest.raises(PeerError, match=reason) as told:
        stage.take(body)
    assert told.value.culprits == ("a",)
    assert told.value.reason.startswith("the masked vector from a does not open")


@pytest.mark.parametrize("change", ["cut", "longer", "not sealed", "no head", "a head without an end"])
def test_a_body_of_another_form_is_refused_before_anything_is_opened(stage, change):
    vector = masked(stage)
    body = stage.body(vector)
    forms = {
        "cut": body[:-1],
        "longer": body + b"x",
        "not sealed": b"".join(wire.encode_vector(vector)),
        "no head": b"\0\0\0\0" + body[4:],
        "a head without an end": body[:100],
    }
    with pytest.raises(WireError):
        stage.take(forms[change])


def test_the_signature_is_over_the_vector_inside(stage):
    vector = masked(stage)
    other = MaskedVector(vector.head, vector.main + 1, vector.auxiliary)
    with pytest.raises(PeerError, match="not the one that it signed"):
        stage.aggregator.receive(stage.take(stage.body(other)))


def test_a_head_of_a_stranger_is_refused(stage):
    vector = masked(stage)
    head = sign(stage.identities["a"], replace(vector.head, member="zoe"))
    _, envelope = stage.sealing("a").encode_vector(vector)
    length = len(wire.encode(head)).to_bytes(4, "little")
    with pytest.raises(PeerError, match="zoe is not enrolled"):
        stage.take(length + wire.encode(head) + envelope)
