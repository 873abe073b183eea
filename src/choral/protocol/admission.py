"""What the aggregator requires of a message, once it is known to be its sender's and of this round (§4).

Pure functions, as `phases` is for the member. What honest members would have to refuse must not reach them
and cost them the round.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from choral.errors import OutOfPhase, PeerError
from choral.primitives.agreement import canonical, usable
from choral.protocol.messages import Advertise, Complaint, Consistency, MaskedVector, Reveal, Shares
from choral.protocol.parameters import Parameters
from choral.protocol.phases import Cohort
from choral.protocol.transcript import survivors_digest, vector_digest


def check_advertise(
    message: Advertise, ctx: bytes, parameters: Parameters, cohort: Collection[Advertise]
) -> None:
    """§4.1, checks 5 to 10; `cohort` are the advertisements so far."""
    sender, keys = message.member, {message.seal_key, message.mask_key}
    if message.ctx != ctx:
        raise _refusal(sender, "4.1.5", "starts from another model or task than this cohort")
    if message.staleness > parameters.staleness:
        raise _refusal(
            sender,
            "4.1.6",
            f"starts from a model that is {message.staleness} versions old, the task allows"
            f" {parameters.staleness}",
        )
    if len(cohort) >= parameters.largest:
        raise OutOfPhase(f"the cohort is full with {parameters.largest} members", rule="4.1.7")
    if not all(map(canonical, keys)):
        raise _refusal(sender, "4.1.8", "advertised a key that is not in its one encoding")
    taken = {key for entry in cohort for key in (entry.seal_key, entry.mask_key)}
    if len(keys) < 2 or taken & keys:
        raise _refusal(sender, "4.1.9", "advertised a key that is taken")
    if not all(map(usable, keys)):
        raise _refusal(sender, "4.1.10", "advertised a weak key")


def check_shares(message: Shares, cohort: Cohort, seal_bytes: int) -> None:
    """§4.2, check 12."""
    expected = [seal_bytes] * len(cohort.roster)
    expected[cohort.index[message.member] - 1] = 0
    found = [len(sealed) for sealed in message.seals]
    if len(found) != len(expected):
        reason = f"sent {len(found)} seals, expected one for each of {len(expected)} members"
        raise _refusal(message.member, "4.2.12", reason)
    for entry, here, there in zip(cohort.roster, found, expected, strict=True):
        if here != there:
            raise _refusal(
                message.member,
                "4.2.12",
                f"sent a seal of {here} bytes to {entry.member}, expected {there}: its own place empty",
            )


def check_vector(message: MaskedVector, r2: bytes, parameters: Parameters) -> None:
    """§4.3, checks 14 to 16."""
    sender = message.head.member
    if message.head.r2 != r2:
        raise _refusal(sender, "4.3.14", "has another list of who dealt shares")
    found, expected = (
        (len(message.main), len(message.auxiliary)),
        (parameters.dimension, parameters.auxiliary),
    )
    if found != expected:
        reason = f"sent {found[0]} and {found[1]} words, expected {expected[0]} and {expected[1]}"
        raise _refusal(sender, "4.3.15", reason)
    if vector_digest(message) != message.head.digest:
        raise PeerError(
            f"the vector of {sender} is not the one that it signed", culprits=[sender], rule="4.3.16"
        )


def check_consistency(message: Consistency, r2: bytes, u3: Sequence[str]) -> None:
    """§4.4, checks 11 and 12."""
    if message.r2 != r2:
        raise _refusal(message.member, "4.4.11", "has another list of who dealt shares")
    if message.survivors != survivors_digest(u3):
        raise _refusal(message.member, "4.4.12", "signed another survivor set")


def check_reveal(message: Reveal, survivors: int, gone: int) -> None:
    """§4.5, check 11."""
    found = (len(message.self_shares), len(message.key_shares))
    if found != (survivors, gone):
        reason = f"revealed {found[0]} and {found[1]} shares, expected {survivors} and {gone}"
        raise _refusal(message.member, "4.5.11", reason)


def check_complaint(message: Complaint, cohort: Cohort) -> None:
    """§4.6, check 5."""
    accused = set(message.culprits)
    if len(accused) != len(message.culprits) or not accused <= cohort.index.keys():
        reason = "complained of a member twice, or of one that is not on the roster"
        raise _refusal(message.member, "4.6.5", reason)


def _refusal(sender: str, rule: str, reason: str) -> PeerError:
    return PeerError(f"{sender} {reason}", culprits=[sender], rule=rule)
