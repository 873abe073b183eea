"""The member's side of the four phases as pure functions: what is checked, what is computed (§4).

Every function takes what came from outside and what the member knew before, and returns what it
knows afterwards. Whatever a lying aggregator can send is refused here, with the rule that it broke.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from choral.errors import CohortTooSmall, PeerError
from choral.primitives import shamir
from choral.primitives.agreement import Agreement, canonical, derive, public_key
from choral.primitives.entropy import RandomBytes
from choral.primitives.identity import Identity
from choral.primitives.keystream import Stream, add_keystreams
from choral.protocol.messages import (
    Advertise,
    Consistency,
    Endorsements,
    Inbox,
    Masked,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)
from choral.protocol.parameters import Parameters
from choral.protocol.sealing import AES_GCM, Sealing, Way, broken
from choral.protocol.transcript import (
    dealt_by,
    dealt_digest,
    round_id,
    sign,
    signed_by,
    survivors_digest,
    vector_digest,
)

NO_SIGNATURE = bytes(64)


@dataclass(frozen=True)
class Member:
    """What a member knows before a round, all of it from its own files."""

    name: str
    identity: Identity
    pinned: Mapping[str, bytes]
    parameters: Parameters
    ctx: bytes
    sealing: Sealing = AES_GCM
    staleness: int = 0  # versions between the record that ctx names and the one its update starts from


@dataclass(frozen=True)
class Cohort:
    """U1 as agreed: the roster, the round's name, the threshold."""

    round_id: bytes
    roster: tuple[Advertise, ...]
    pinned: Mapping[str, bytes]
    threshold: int

    @cached_property
    def index(self) -> dict[str, int]:
        """1-based place on the roster: the Shamir share index."""
        return {entry.member: at for at, entry in enumerate(self.roster, 1)}

    def entry(self, member: str) -> Advertise:
        return self.roster[self.index[member] - 1]

    def key(self, member: str) -> bytes:
        return self.pinned[member]

    def way(self, sender: str, recipient: str) -> Way:
        """From one member to another, as a seal between them is bound to it."""
        return Way(self.round_id, sender, recipient, self.key(sender), self.key(recipient))


@dataclass(frozen=True)
class Secrets:
    """A member's secrets of one round. Never encoded, never printed."""

    seal_key: bytes
    mask_key: bytes

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True)
class Dealing:
    """After *share*: the self seed, this member's own shares, and the seal agreements."""

    self_seed: bytes
    own: tuple[bytes, bytes]
    agreed: Mapping[str, bytes]

    def __repr__(self) -> str:
        return "Dealing(…)"


@dataclass(frozen=True)
class Held:
    """After *mask*: U2, its digest, and the shares held: by dealer, (of its self seed, of its mask key)."""

    u2: tuple[str, ...]
    r2: bytes
    shares: Mapping[str, tuple[bytes, bytes]]

    def __repr__(self) -> str:
        return f"Held(u2={self.u2})"


# ----- advertise ------------------------------------------------------------------------------


def advertise(me: Member, random: RandomBytes) -> tuple[Advertise, Secrets]:
    """Two fresh key pairs and a nonce, signed together with what the update starts from."""
    secrets = Secrets(seal_key=random(32), mask_key=shamir.draw(random).to_bytes(32, "little"))
    message = Advertise(
        member=me.name,
        ctx=me.ctx,
        staleness=me.staleness,
        seal_key=public_key(secrets.seal_key),
        mask_key=public_key(secrets.mask_key),
        nonce=random(32),
        signature=NO_SIGNATURE,
    )
    return sign(me.identity, message), secrets


# ----- share ----------------------------------------------------------------------------------


def accept_roster(me: Member, mine: Advertise, roster: Roster) -> Cohort:
    """§4.2, checks 1 to 5, and the threshold.

    Raises:
        PeerError, CohortTooSmall: which rule the roster breaks.
    """
    names = [entry.member for entry in roster.members]
    threshold = me.parameters.check_cohort(len(names))
    strangers = [name for name in names if name not in me.pinned]
    if strangers:
        raise PeerError("the roster names members that are not enrolled", culprits=strangers, rule="4.2.2")
    if len(set(names)) != len(names):
        raise PeerError("the roster names a member twice", culprits=_repeated(names), rule="4.2.2")
    keys = [me.pinned[name] for name in names]
    if keys != sorted(set(keys)):  # strictly: two names on one key would add masks that do not cancel
        raise PeerError("the roster is not in ascending order of identity key", rule="4.2.2")
    for entry in roster.members:
        _check_entry(me, entry)
    fresh = [key for entry in roster.members for key in (entry.seal_key, entry.mask_key)]
    if len(set(fresh)) != len(fresh):
        raise PeerError("two round keys on the roster are equal", rule="4.2.4")
    if mine not in roster.members:
        raise PeerError("this member's own entry is not on the roster as it was sent", rule="4.2.5")
    return Cohort(round_id(me.ctx, roster, threshold), roster.members, me.pinned, threshold)


def _check_entry(me: Member, entry: Advertise) -> None:
    """§4.2, check 3, and what check 4 says of one entry."""
    name, hint, rule = entry.member, None, "4.2.3"
    if entry.ctx != me.ctx:
        wrong = f"{name} starts from another model or task than this member"
        hint = "all members of a cohort stand on one model record (PFA22)"
    elif entry.staleness > me.parameters.staleness:
        wrong = (
            f"{name} starts from a model that is {entry.staleness} versions old, this member's"
            f" task allows {me.parameters.staleness}"
        )
    elif not signed_by(entry, me.pinned[name]):
        wrong = f"the advertisement of {name} is not signed by its pinned key"
    elif not (canonical(entry.seal_key) and canonical(entry.mask_key)):
        wrong, rule = f"a round key of {name} is not in its one encoding", "4.2.4"
    else:
        return
    raise PeerError(wrong, culprits=[name], hint=hint, rule=rule)


def deal(me: Member, cohort: Cohort, secrets: Secrets, random: RandomBytes) -> tuple[Shares, Dealing]:
    """Split self seed and mask key, seal one share of each to every other member."""
    n, t = len(cohort.roster), cohort.threshold
    self_seed = shamir.draw(random).to_bytes(shamir.BYTES, "little")
    pieces = list(
        zip(
            shamir.split(self_seed, n, t, random),
            shamir.split(secrets.mask_key, n, t, random),
            strict=True,
        )
    )
    agreement = Agreement(secrets.seal_key)
    agreed = {
        entry.member: _shared(agreement, entry.member, entry.seal_key)
        for entry in cohort.roster
        if entry.member != me.name
    }
    seals = tuple(
        b""
        if entry.member == me.name
        else me.sealing.seal(cohort.way(me.name, entry.member), agreed[entry.member], b"".join(piece))
        for entry, piece in zip(cohort.roster, pieces, strict=True)
    )
    shares = Shares(
        member=me.name,
        round_id=cohort.round_id,
        commitment=hashlib.sha256(self_seed).digest(),
        seals=seals,
        signature=NO_SIGNATURE,
    )
    own = pieces[cohort.index[me.name] - 1]
    return sign(me.identity, shares), Dealing(self_seed, own, agreed)


# ----- mask -----------------------------------------------------------------------------------


def accept_inbox(me: Member, cohort: Cohort, dealing: Dealing, mine: Shares, inbox: Inbox) -> Held:
    """§4.3, checks 1 to 7: U2 is what it must be, and every seal opens.

    Raises:
        PeerError, CohortTooSmall: which rule the inbox breaks; a bad seal names its sender.
    """
    _same_round(cohort, inbox.round_id, "4.3.1")
    u2 = [entry.member for entry in inbox.dealt]
    _subset(u2, list(cohort.index), "who dealt shares", "the roster", "4.3.2")
    if len(u2) < cohort.threshold:
        raise CohortTooSmall(
            f"{len(u2)} of {len(cohort.roster)} members dealt shares, the threshold is {cohort.threshold}",
            rule="4.3.3",
        )
    if len(inbox.seals) != len(u2):
        raise PeerError(f"the inbox holds {len(inbox.seals)} seals for {len(u2)} dealers", rule="4.3.4")
    own = [entry for entry in inbox.dealt if entry.member == me.name]
    if not own:
        raise PeerError("this member dealt shares but is not among those who did", rule="4.3.5")
    if own[0].commitment != mine.commitment:
        raise PeerError("this member's own commitment was changed", rule="4.3.5")
    held = {me.name: dealing.own}
    for entry, sealed in zip(inbox.dealt, inbox.seals, strict=True):
        if not dealt_by(entry, cohort.round_id, cohort.key(entry.member)):
            raise PeerError(
                f"the commitment of {entry.member} is not signed by its pinned key",
                culprits=[entry.member],
                rule="4.3.6",
            )
        if entry.member == me.name:
            continue
        way = cohort.way(entry.member, me.name)
        piece = me.sealing.open(way, dealing.agreed[entry.member], sealed)
        if len(piece) != 2 * shamir.BYTES:
            raise broken(entry.member)
        held[entry.member] = (piece[: shamir.BYTES], piece[shamir.BYTES :])
    return Held(tuple(u2), dealt_digest(inbox.dealt), held)


def mask(
    me: Member,
    cohort: Cohort,
    secrets: Secrets,
    dealing: Dealing,
    held: Held,
    *,
    main: NDArray[np.uint32],
    auxiliary: NDArray[np.uint64],
    threads: int,
) -> MaskedVector:
    """y = x + PRG(b) + sum of signed pairwise masks (§4 mask). `main` and `auxiliary` become y."""
    agreement = Agreement(secrets.mask_key)
    streams = [self_stream(cohort, me.name, dealing.self_seed, 1)]
    streams += [
        pair_stream(cohort, held.r2, agreement, me.name, other) for other in held.u2 if other != me.name
    ]
    add_keystreams(main, auxiliary, streams, threads=threads)
    vector = MaskedVector(Masked(me.name, cohort.round_id, held.r2, bytes(32), NO_SIGNATURE), main, auxiliary)
    head = Masked(me.name, cohort.round_id, held.r2, vector_digest(vector), NO_SIGNATURE)
    return MaskedVector(sign(me.identity, head), main, auxiliary)


def self_stream(cohort: Cohort, member: str, self_seed: bytes, sign_: int) -> Stream:
    """PRG(b) of one member."""
    info = b"choral/1 self mask" + cohort.key(member)
    return Stream(derive(self_seed, cohort.round_id, info), sign_)


def pair_stream(cohort: Cohort, r2: bytes, agreement: Agreement, mine: str, other: str) -> Stream:
    """The pairwise mask as `mine` adds it: + for the smaller identity key of the pair (§4 mask)."""
    low, high = sorted((cohort.key(mine), cohort.key(other)))
    shared = _shared(agreement, other, cohort.entry(other).mask_key)
    seed = derive(shared, cohort.round_id, b"choral/1 pair mask" + low + high + r2)
    return Stream(seed, 1 if cohort.key(mine) == low else -1)


# ----- reveal ---------------------------------------------------------------------------------


def accept_survivors(me: Member, cohort: Cohort, held: Held, survivors: Survivors) -> Consistency:
    """§4.4, checks 1 to 4: sign the one survivor set that this member will answer for.

    Raises:
        PeerError, CohortTooSmall: which rule the survivor set breaks.
    """
    _same_round(cohort, survivors.round_id, "4.4.1")
    u3 = list(survivors.members)
    _subset(u3, list(held.u2), "the survivors", "who dealt shares", "4.4.2")
    if me.name not in u3:
        raise PeerError("this member sent its masked vector but is not among the survivors", rule="4.4.3")
    quorum = me.parameters.quorum(len(cohort.roster))
    if len(u3) < quorum:
        raise CohortTooSmall(
            f"the sum would be over {len(u3)} members, this member accepts {quorum} or more of"
            f" {len(cohort.roster)}",
            rule="4.4.4",
        )
    message = Consistency(
        me.name, cohort.round_id, held.r2, survivors_digest(survivors.members), NO_SIGNATURE
    )
    return sign(me.identity, message)


def accept_endorsements(cohort: Cohort, held: Held, survivors: Survivors, endorsements: Endorsements) -> None:
    """§4.5, checks 1 to 4: at least t members signed this very survivor set.

    Raises:
        PeerError: too few good signatures, or one that is not over this set.
    """
    _same_round(cohort, endorsements.round_id, "4.5.1")
    signers = [entry.member for entry in endorsements.entries]
    _subset(signers, list(survivors.members), "the signers", "the survivors", "4.5.2")
    agreed = survivors_digest(survivors.members)
    for entry in endorsements.entries:
        message = Consistency(entry.member, cohort.round_id, held.r2, agreed, entry.signature)
        if not signed_by(message, cohort.key(entry.member)):
            raise PeerError(
                f"{entry.member} signed another survivor set, or did not sign at all",
                culprits=[entry.member],
                hint="an aggregator that shows members different survivors learns single updates",
                rule="4.5.3",
            )
    if len(signers) < cohort.threshold:
        raise CohortTooSmall(
            f"{len(signers)} members signed the survivor set, the threshold is {cohort.threshold}",
            rule="4.5.4",
        )


def reveal(me: Member, cohort: Cohort, held: Held, survivors: Survivors) -> Reveal:
    """Shares of self seeds of survivors, of mask keys of the dropped: one kind a member, by construction."""
    gone = set(held.u2) - set(survivors.members)
    message = Reveal(
        member=me.name,
        round_id=cohort.round_id,
        self_shares=tuple(held.shares[name][0] for name in survivors.members),
        key_shares=tuple(held.shares[name][1] for name in held.u2 if name in gone),
        signature=NO_SIGNATURE,
    )
    return sign(me.identity, message)


# ----- shared checks --------------------------------------------------------------------------


def _shared(agreement: Agreement, other: str, key: bytes) -> bytes:
    try:
        return agreement.shared(key)
    except PeerError as error:
        raise PeerError(f"{error.reason}: a round key of {other}", culprits=[other], rule="3.2") from error


def _same_round(cohort: Cohort, found: bytes, rule: str) -> None:
    if found != cohort.round_id:
        raise PeerError(
            f"a message of round {found.hex()[:12]}, this member is in {cohort.round_id.hex()[:12]}",
            rule=rule,
        )


def _subset(names: Sequence[str], of: list[str], what: str, whole: str, rule: str) -> None:
    """`names` are distinct, all in `of`, and in its order."""
    if len(set(names)) != len(names):
        raise PeerError(f"{what}: a member is named twice", culprits=_repeated(names), rule=rule)
    strangers = [name for name in names if name not in of]
    if strangers:
        raise PeerError(f"{what}: not among {whole}", culprits=strangers, rule=rule)
    if list(names) != [name for name in of if name in set(names)]:
        raise PeerError(f"{what}: not in roster order", rule=rule)


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)
