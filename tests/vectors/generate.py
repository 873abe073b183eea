"""Writes round.json: every message of one round, what each member answers to it, and what must be refused.

    python tests/vectors/generate.py

All randomness is `entropy.seeded`: SHAKE-256 of a seed, read on and on. A member's source gives, in this
order: seal key (32 bytes), mask key (32, drawn again while not below 2^256 - 189), nonce (32); then, when
the roster is in: self seed (32, drawn again), the t - 1 coefficients of its polynomial (32 each, drawn
again), the t - 1 coefficients of the mask key's. Words of vectors are little-endian.

Six members; f never shares, e never masks. What is refused, and why, is written here by hand: the test
that reads the file checks both against the code.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from choral.errors import ChoralError
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol import wire
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.member import MemberRound
from choral.protocol.messages import (
    Complaint,
    Endorsement,
    Endorsements,
    Inbox,
    MaskedVector,
    Roster,
    Survivors,
)
from choral.protocol.parameters import Parameters
from choral.protocol.phases import Member
from choral.protocol.transcript import context, sign

FILE = Path(__file__).with_name("round.json")
D, A = 6, 2
NAMES = "abcdef"
TASK, BASE = b"\x11" * 32, b"\x22" * 32


def identities() -> dict[str, bytes]:
    """Private identity keys, 32 bytes each, named in ascending order of their public halves."""
    source = seeded(b"choral vectors: identities")
    seeds = sorted((source(32) for _ in NAMES), key=lambda seed: Identity.from_private_bytes(seed).public)
    return dict(zip(NAMES, seeds, strict=True))


class Cohort:
    """The members and the aggregator of the round, new each time and always the same."""

    def __init__(self) -> None:
        keys = identities()
        self.identities = {name: Identity.from_private_bytes(seed) for name, seed in keys.items()}
        self.pinned = {name: identity.public for name, identity in self.identities.items()}
        self.parameters = Parameters(6, D, A, minimum=3, tolerated=1)
        self.ctx = context(TASK, BASE)
        self.vectors = {name: vectors(name) for name in NAMES}
        self.members = {
            name: MemberRound(
                Member(name, self.identities[name], self.pinned, self.parameters, self.ctx),
                *self.vectors[name],
                seeded(source_of(name)),
            )
            for name in NAMES
        }
        self.aggregator = AggregatorRound(self.pinned, self.parameters, self.ctx)


def source_of(name: str) -> bytes:
    return b"choral vectors: member " + name.encode()


def vectors(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    source = seeded(b"choral vectors: update " + name.encode())
    return np.frombuffer(source(4 * D), "<u4"), np.frombuffer(source(8 * A), "<u8")


def body(message: Any) -> bytes:
    if isinstance(message, MaskedVector):
        return b"".join(wire.encode_vector(message))
    return wire.encode(message)


def play() -> tuple[Cohort, dict[str, list[tuple[str, Any, Any]]]]:
    """The round, as (member, question, answer) by phase."""
    cohort = Cohort()
    aggregator, log = cohort.aggregator, {}
    log["advertise"] = [(name, None, cohort.members[name].advertise) for name in NAMES]
    for _, _, message in log["advertise"]:
        aggregator.receive(message)
    aggregator.close()
    for phase, who, question in [
        ("share", "abcde", lambda name: aggregator.roster()),
        ("mask", "abcd", aggregator.inbox),
        ("consistency", "abcd", lambda name: aggregator.survivors()),
        ("unmask", "abcd", lambda name: aggregator.endorsements()),
    ]:
        log[phase] = []
        for name in who:
            asked = question(name)
            answer = cohort.members[name].receive(asked)
            log[phase].append((name, asked, answer))
            aggregator.receive(answer)
        aggregator.close()
    return cohort, log


def generate() -> dict[str, Any]:
    cohort, log = play()
    total = cohort.aggregator.total
    assert total is not None
    good = [
        {
            "phase": phase,
            "member": name,
            **({"question": body(question).hex()} if question is not None else {}),
            "answer": body(answer).hex(),
        }
        for phase, entries in log.items()
        for name, question, answer in entries
    ]
    return {
        "source": "tests/vectors/generate.py; docs/protocol.md is the specification",
        "setting": {
            "task_digest": TASK.hex(),
            "base": BASE.hex(),
            "ctx": cohort.ctx.hex(),
            "n_max": 6,
            "clip": 8.0,
            "weight_cap": 100,
            "dimension": D,
            "auxiliary": A,
            "minimum": 3,
            "tolerated": 1,
            "threshold": cohort.aggregator.threshold,
            "round_id": cohort.members["a"].round_id.hex(),
            "members": {
                name: {
                    "identity_private": seed.hex(),
                    "identity_public": cohort.pinned[name].hex(),
                    "source": source_of(name).hex(),
                    "main": cohort.vectors[name][0].tolist(),
                    "auxiliary": [str(word) for word in cohort.vectors[name][1].tolist()],
                }
                for name, seed in identities().items()
            },
        },
        "good": good,
        "total": {
            "survivors": list(total.survivors),
            "main": total.main.tolist(),
            "auxiliary": [str(word) for word in total.auxiliary.tolist()],
        },
        "bad_bytes": bad_bytes(cohort, log),
        "bad_to_member": bad_to_member(cohort, log),
        "bad_to_aggregator": bad_to_aggregator(cohort, log),
    }


# ----- bytes that are no message ------------------------------------------------------------------


def bad_bytes(cohort: Cohort, log: Any) -> list[dict[str, str]]:
    """Of every kind of message: what a decoder refuses, with a WireError and this part of its reason."""
    cases = []
    survivors = log["consistency"][0][1]
    complaint = Complaint("a", survivors.round_id, "the seal from b does not open", ("b",), bytes(64))
    messages = [log[phase][0][2] for phase in ("advertise", "share", "consistency", "unmask")]
    messages += [log[phase][0][1] for phase in ("share", "mask", "consistency", "unmask")]
    messages += [log["mask"][0][2].head, sign(cohort.identities["a"], complaint)]
    for message in messages:
        kind, data = type(message).__name__, wire.encode(message)
        fields = wire.plain(message)
        first = next(name for name in fields if name != "kind")
        for what, rule, damaged, reason in [
            ("cut off", "7.1.2", data[:-1], "not CBOR"),
            ("a byte too many", "7.1.2", data + b"\x00", "more than one"),
            ("of another kind", "7.1.3", wire.pack(fields | {"kind": "other"}), "found kind 'other'"),
            (
                "an unknown field",
                "7.1.3",
                wire.pack(fields | {"zzz": 1}),
                "missing or unknown fields ['zzz']",
            ),
            ("a missing field", "7.1.3", wire.pack({k: v for k, v in fields.items() if k != first}), first),
            (
                "an integer for a field",
                "7.1.4",
                wire.pack(fields | {first: 7}),
                f"{kind}.{first}: found a int",
            ),
            ("a tag around it", "7.1.1", b"\xd9\xd9\xf7" + data, "found a CBOR tag at byte 0"),
            ("an integer as a key", "7.1.1", bytes([data[0] + 1, 0, 0]) + data[1:], "found a key at byte 1"),
            (
                "a map of indefinite length",
                "7.1.1",
                bytes([0xBF]) + data[1:] + b"\xff",
                "indefinite length at byte 0",
            ),
            (
                "a map head in two bytes",
                "7.1.5",
                bytes([0xB8, data[0] & 31]) + data[1:],
                "not in canonical CBOR",
            ),
        ]:
            cases.append(bad_message(kind, what, rule, damaged, reason))
    for name in ["", ".a", "a b", "ä", "a\n", "a" * 65]:
        damaged = wire.pack(wire.plain(survivors) | {"members": [name]})
        what = f"the name {name!r}"
        cases.append(bad_message("Survivors", what, "7.1.4", damaged, "Survivors.members[0]: found"))
    many = wire.pack(wire.plain(survivors) | {"members": ["a"] * 257})
    cases.append(bad_message("Survivors", "257 names", "7.1.4", many, "found 257 items, expected 0 to 256"))
    many = wire.pack(wire.plain(survivors) | {"members": ["a"] * 2000})
    cases.append(bad_message("Survivors", "2,000 names", "7.1.1", many, "found 2005 items"))
    lines = wire.pack(wire.plain(complaint) | {"reason": "two\nlines"})
    cases.append(bad_message("Complaint", "two lines", "7.1.4", lines, "expected printable text on one line"))
    vector = body(log["mask"][0][2])
    size = int.from_bytes(vector[:4], "little")
    for what, rule, damaged, reason in [
        ("no head", "7.2.1", vector[:3], "of 3 bytes has no head"),
        ("a head beyond 1,024 bytes", "7.2.1", b"\x01\x04\0\0" + vector[4:], "expected less"),
        ("another head", "7.1.2", vector[:4] + b"\xa0" * size + vector[4 + size :], "more than one Masked"),
        ("cut off", "7.2.2", vector[:-1], f"a masked vector of {len(vector) - 1} bytes"),
        ("a byte too many", "7.2.2", vector + b"\0", f"a masked vector of {len(vector) + 1} bytes"),
    ]:
        cases.append(bad_message("MaskedVector", what, rule, damaged, reason))
    return cases


def bad_message(kind: str, what: str, rule: str, damaged: bytes, reason: str) -> dict[str, str]:
    entry = {"kind": kind, "what": what, "bytes": damaged.hex(), "error": "WireError"}
    return entry | {"rule": rule, "reason": reason}


# ----- messages that break a rule -----------------------------------------------------------------


def bad_to_member(cohort: Cohort, log: Any) -> list[dict[str, Any]]:
    """What `a` refuses when it has answered the first `after` of its good questions."""
    roster, inbox = log["share"][0][1], log["mask"][0][1]
    survivors, endorsements = log["consistency"][0][1], log["unmask"][0][1]
    entries, seals = roster.members, inbox.seals
    forged = replace(endorsements.entries[3], signature=bytes(64))

    def with_f(**changes: Any) -> Roster:
        return Roster((*entries[:5], sign(cohort.identities["f"], replace(entries[5], **changes))))

    def dealt(**changes: Any) -> Inbox:
        return replace(inbox, dealt=(replace(inbox.dealt[0], **changes), *inbox.dealt[1:]))

    def signers(*more: Endorsement) -> Endorsements:
        return replace(endorsements, entries=(*endorsements.entries[:3], *more))

    over = (int.from_bytes(entries[5].mask_key, "little") + 2**255).to_bytes(32, "little")
    weak = bytes([1]) + bytes(31)
    stranger = replace(entries[5], member="zoe")
    cases = [
        ([], "4.2.1", Roster(entries[:2]), "CohortTooSmall", "a cohort of 2 was offered"),
        ([], "4.2.1", Roster((*entries, entries[5])), "PeerError", "sums are planned for 6 at most"),
        ([], "4.2.2", Roster((*entries[:5], stranger)), "PeerError", "members that are not enrolled"),
        ([], "4.2.2", Roster(entries[::-1]), "PeerError", "not in ascending order"),
        ([], "4.2.2", Roster((*entries[:5], entries[4])), "PeerError", "names a member twice"),
        ([], "4.2.3", with_f(ctx=bytes(32)), "PeerError", "f starts from another model"),
        ([], "4.2.3", with_f(staleness=1), "PeerError", "a model that is 1 versions old"),
        (
            [],
            "4.2.3",
            Roster((*entries[:5], replace(entries[5], nonce=bytes(32)))),
            "PeerError",
            "the advertisement of f is not signed",
        ),
        ([], "4.2.4", with_f(mask_key=over), "PeerError", "key of f is not in its one encoding"),
        ([], "4.2.4", with_f(seal_key=entries[1].mask_key), "PeerError", "two round keys on the roster"),
        ([], "4.2.5", Roster(entries[1:]), "PeerError", "own entry is not on the roster"),
        ([], "3.2", with_f(seal_key=weak), "PeerError", "a round key of f"),
        (
            [roster],
            "4.3.1",
            replace(inbox, round_id=bytes(32)),
            "PeerError",
            "a message of round 000000000000",
        ),
        (
            [roster],
            "4.3.2",
            replace(inbox, dealt=(*inbox.dealt, inbox.dealt[4]), seals=(*seals, seals[4])),
            "PeerError",
            "who dealt shares: a member is named twice",
        ),
        (
            [roster],
            "4.3.3",
            replace(inbox, dealt=inbox.dealt[:3], seals=seals[:3]),
            "CohortTooSmall",
            "3 of 6 members dealt shares, the threshold is 4",
        ),
        ([roster], "4.3.4", replace(inbox, seals=seals[:4]), "PeerError", "holds 4 seals for 5 dealers"),
        (
            [roster],
            "4.3.5",
            replace(inbox, dealt=inbox.dealt[1:], seals=seals[1:]),
            "PeerError",
            "is not among those who did",
        ),
        ([roster], "4.3.5", dealt(commitment=bytes(32)), "PeerError", "own commitment was changed"),
        ([roster], "4.3.6", dealt(signature=bytes(64)), "PeerError", "the commitment of a is not signed"),
        (
            [roster],
            "4.3.7",
            replace(inbox, seals=(seals[0], seals[2], seals[1], *seals[3:])),
            "PeerError",
            "the seal from b does not open",
        ),
        ([roster], "4.6.8", survivors, "OutOfPhase", "a Survivors came while waiting for inbox"),
        (
            [roster, inbox],
            "4.4.1",
            replace(survivors, round_id=bytes(32)),
            "PeerError",
            "a message of round 000000000000",
        ),
        (
            [roster, inbox],
            "4.4.2",
            Survivors(survivors.round_id, tuple("abcdf")),
            "PeerError",
            "not among who dealt shares",
        ),
        (
            [roster, inbox],
            "4.4.3",
            replace(survivors, members=("b", "c", "d", "e")),
            "PeerError",
            "not among the survivors",
        ),
        (
            [roster, inbox],
            "4.4.4",
            replace(survivors, members=("a", "b", "c")),
            "CohortTooSmall",
            "over 3 members, this member accepts 4",
        ),
        (
            [roster, inbox, survivors],
            "4.6.7",
            replace(survivors, members=tuple("abcde")),
            "OutOfPhase",
            "a second, different Survivors",
        ),
        (
            [roster, inbox, survivors],
            "4.5.1",
            replace(endorsements, round_id=bytes(32)),
            "PeerError",
            "a message of round 000000000000",
        ),
        (
            [roster, inbox, survivors],
            "4.5.2",
            signers(endorsements.entries[2]),
            "PeerError",
            "named twice",
        ),
        ([roster, inbox, survivors], "4.5.3", signers(forged), "PeerError", "d signed another survivor set"),
        (
            [roster, inbox, survivors],
            "4.5.4",
            signers(),
            "CohortTooSmall",
            "3 members signed the survivor set, the threshold is 4",
        ),
    ]
    return [
        {
            "member": "a",
            "after": len(before),
            "kind": type(message).__name__,
            "message": body(message).hex(),
            "error": error,
            "rule": rule,
            "reason": reason,
        }
        for before, rule, message, error, reason in cases
    ]


def bad_to_aggregator(cohort: Cohort, log: Any) -> list[dict[str, Any]]:
    """What the aggregator refuses in a phase, after all good messages of the phases before it.

    `heard` are members whose good message of that phase it has heard as well.
    """
    advertise, shares = log["advertise"][1][2], log["share"][1][2]
    vector, consistency, reveal = (log[phase][1][2] for phase in ("mask", "consistency", "unmask"))
    complaint = Complaint("b", shares.round_id, "the seal from c does not open", ("c",), bytes(64))

    def by(name: str, message: Any, **changes: Any) -> Any:
        """The message as `name` signs it; of a masked vector, its head."""
        if isinstance(message, MaskedVector):
            return replace(message, head=by(name, message.head, **changes))
        return sign(cohort.identities[name], replace(message, **changes))

    def unsigned(message: Any) -> Any:
        if isinstance(message, MaskedVector):
            return replace(message, head=replace(message.head, signature=bytes(64)))
        return replace(message, signature=bytes(64))

    weak, zero = bytes([1]) + bytes(31), bytes(32)
    over = (int.from_bytes(advertise.mask_key, "little") + 2**255).to_bytes(32, "little")
    taken = log["advertise"][0][2].seal_key
    cut = (*shares.seals[:5], shares.seals[5][:-1])
    changed = MaskedVector(vector.head, vector.main + np.uint32(1), vector.auxiliary)
    cases = [
        ("advertise", "4.1.1", by("b", advertise, member="zoe"), "PeerError", "zoe is not enrolled"),
        ("advertise", "4.1.2", by("b", advertise, nonce=zero), "OutOfPhase", "b sent a different Advertise"),
        (
            "advertise",
            "4.1.4",
            replace(advertise, member="c"),
            "PeerError",
            "not signed by the pinned key of c",
        ),
        ("advertise", "4.1.5", by("b", advertise, ctx=zero), "PeerError", "b starts from another model"),
        (
            "advertise",
            "4.1.6",
            by("b", advertise, staleness=1),
            "PeerError",
            "a model that is 1 versions old",
        ),
        ("advertise", "4.1.8", by("b", advertise, mask_key=over), "PeerError", "not in its one encoding"),
        (
            "advertise",
            "4.1.9",
            by("b", advertise, mask_key=taken),
            "PeerError",
            "b advertised a key that is taken",
        ),
        ("advertise", "4.1.10", by("b", advertise, mask_key=weak), "PeerError", "b advertised a weak key"),
        ("advertise", "4.2.8", shares, "OutOfPhase", "in phase advertise, b sent its message for share"),
        ("share", "4.2.6", by("b", shares, member="zoe"), "PeerError", "zoe is not enrolled"),
        ("share", "4.2.7", by("b", shares, commitment=zero), "OutOfPhase", "b sent a different Shares"),
        (
            "share",
            "4.2.9",
            replace(shares, commitment=zero),
            "PeerError",
            "not signed by the pinned key of b",
        ),
        ("share", "4.2.10", by("b", shares, round_id=zero), "PeerError", "a message of another round"),
        (
            "share",
            "4.2.12",
            replace(shares, seals=shares.seals[:-1]),
            "PeerError",
            "b sent 5 seals, expected one",
        ),
        ("share", "4.2.12", replace(shares, seals=cut), "PeerError", "a seal of 79 bytes to f, expected 80"),
        (
            "share",
            "4.2.12",
            replace(shares, seals=(shares.seals[0], *shares.seals[2:3], *shares.seals[2:])),
            "PeerError",
            "a seal of 80 bytes to b, expected 0",
        ),
        ("mask", "4.3.8", by("b", vector, member="zoe"), "PeerError", "zoe is not enrolled"),
        ("mask", "4.3.9", by("b", vector, digest=zero), "OutOfPhase", "b sent a different MaskedVector"),
        ("unmask", "4.3.10", vector_of_e(), "OutOfPhase", "in phase unmask, e sent its message for mask"),
        ("mask", "4.3.11", unsigned(vector), "PeerError", "not signed by the pinned key of b"),
        ("mask", "4.3.12", by("b", vector, round_id=zero), "PeerError", "a message of another round"),
        ("mask", "4.3.13", by("f", vector, member="f"), "OutOfPhase", "f is not in this phase"),
        ("mask", "4.3.14", by("b", vector, r2=zero), "PeerError", "another list of who dealt shares"),
        ("mask", "4.3.16", changed, "PeerError", "the vector of b is not the one that it signed"),
        ("consistency", "4.4.5", by("b", consistency, member="zoe"), "PeerError", "zoe is not enrolled"),
        (
            "consistency",
            "4.4.6",
            by("b", consistency, r2=zero),
            "OutOfPhase",
            "b sent a different Consistency",
        ),
        ("mask", "4.4.7", consistency, "OutOfPhase", "in phase mask, b sent its message for consistency"),
        ("consistency", "4.4.8", unsigned(consistency), "PeerError", "not signed by the pinned key of b"),
        ("consistency", "4.4.9", by("b", consistency, round_id=zero), "PeerError", "of another round"),
        ("consistency", "4.4.10", by("e", consistency, member="e"), "OutOfPhase", "e is not in this phase"),
        ("consistency", "4.4.11", by("b", consistency, r2=zero), "PeerError", "another list of who dealt"),
        ("consistency", "4.4.12", by("b", consistency, survivors=zero), "PeerError", "another survivor set"),
        ("unmask", "4.5.5", by("b", reveal, member="zoe"), "PeerError", "zoe is not enrolled"),
        ("unmask", "4.5.6", by("b", reveal, key_shares=()), "OutOfPhase", "b sent a different Reveal"),
        ("consistency", "4.5.7", reveal, "OutOfPhase", "in phase consistency, b sent its message for unmask"),
        ("unmask", "4.5.8", unsigned(reveal), "PeerError", "not signed by the pinned key of b"),
        ("unmask", "4.5.9", by("b", reveal, round_id=zero), "PeerError", "a message of another round"),
        ("unmask", "4.5.10", by("e", reveal, member="e"), "OutOfPhase", "e is not in this phase"),
        (
            "unmask",
            "4.5.11",
            by("b", reveal, key_shares=()),
            "PeerError",
            "b revealed 4 and 0 shares, expected 4 and 1",
        ),
        ("mask", "4.6.1", by("b", complaint, member="zoe"), "PeerError", "zoe is not enrolled"),
        ("mask", "4.6.2", complaint, "PeerError", "not signed by the pinned key of b"),
        ("mask", "4.6.3", by("b", complaint, round_id=zero), "PeerError", "a message of another round"),
        (
            "mask",
            "4.6.5",
            by("b", complaint, culprits=("c", "c")),
            "PeerError",
            "complained of a member twice",
        ),
        (
            "mask",
            "4.6.5",
            by("b", complaint, culprits=("zoe",)),
            "PeerError",
            "one that is not on the roster",
        ),
    ]
    different = {"4.1.2", "4.2.7", "4.3.9", "4.4.6", "4.5.6"}
    return [
        {
            "phase": phase,
            "heard": ["b"] if rule in different else ["a"] if rule == "4.1.9" else [],
            "kind": type(message).__name__,
            "message": body(message).hex(),
            "error": error,
            "rule": rule,
            "reason": reason,
        }
        for phase, rule, message, error, reason in cases
    ]


def vector_of_e() -> MaskedVector:
    """Good, but too late."""
    cohort, log = play()
    roster = log["share"][4][1]
    late = Cohort().members["e"]
    late.receive(roster)
    answer = late.receive(cohort.aggregator.inbox("e"))
    assert isinstance(answer, MaskedVector)
    return answer


def text() -> str:
    return json.dumps(generate(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    try:
        FILE.write_text(text())
    except ChoralError as error:
        raise SystemExit(f"the round does not even play: {error}") from error
    print(f"{FILE}: {FILE.stat().st_size} bytes")
