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
from choral.primitives.fixed_point import RingPlan
from choral.primitives.identity import Identity
from choral.protocol import wire
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.member import MemberRound
from choral.protocol.messages import Complaint, MaskedVector, Roster, Survivors
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
        self.parameters = Parameters(RingPlan(6, 8.0, 100), D, A, minimum=3, tolerated=1)
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
        for what, damaged, reason in [
            ("cut off", data[:-1], "not CBOR"),
            ("a byte too many", data + b"\x00", "more than one"),
            ("of another kind", wire.pack(fields | {"kind": "other"}), "found kind 'other'"),
            ("an unknown field", wire.pack(fields | {"zzz": 1}), "missing or unknown fields ['zzz']"),
            ("a missing field", wire.pack({k: v for k, v in fields.items() if k != first}), first),
            ("an integer for a field", wire.pack(fields | {first: 7}), f"{kind}.{first}: found a int"),
            ("a tag around it", b"\xd9\xd9\xf7" + data, "found a CBOR tag at byte 0"),
            ("a map of indefinite length", bytes([0xBF]) + data[1:] + b"\xff", "indefinite length at byte 0"),
            ("a map head in two bytes", bytes([0xB8, data[0] & 31]) + data[1:], "not in canonical CBOR"),
        ]:
            entry = {"kind": kind, "what": what, "bytes": damaged.hex(), "error": "WireError"}
            cases.append(entry | {"reason": reason})
    return cases


# ----- messages that break a rule -----------------------------------------------------------------


def bad_to_member(cohort: Cohort, log: Any) -> list[dict[str, Any]]:
    """What `a` refuses when it has answered the first `after` of its good questions."""
    roster, inbox = log["share"][0][1], log["mask"][0][1]
    survivors, endorsements = log["consistency"][0][1], log["unmask"][0][1]
    entries, seals = roster.members, inbox.seals
    forged = replace(endorsements.entries[3], signature=bytes(64))
    cases = [
        ([], Roster(entries[:2]), "CohortTooSmall", "a cohort of 2 was offered, this member accepts 3"),
        ([], Roster(entries[::-1]), "PeerError", "not in ascending order"),
        ([], Roster((*entries[:5], entries[4])), "PeerError", "names a member twice"),
        ([], Roster(entries[1:]), "PeerError", "own entry is not on the roster"),
        (
            [],
            Roster((*entries[:5], replace(entries[5], nonce=bytes(32)))),
            "PeerError",
            "the advertisement of f is not signed",
        ),
        (
            [],
            Roster((*entries[:5], sign(cohort.identities["f"], replace(entries[5], ctx=bytes(32))))),
            "PeerError",
            "f starts from another model",
        ),
        ([roster], replace(inbox, round_id=bytes(32)), "PeerError", "a message of round 000000000000"),
        (
            [roster],
            replace(inbox, dealt=inbox.dealt[:3], seals=seals[:3]),
            "CohortTooSmall",
            "3 of 6 members dealt shares, the threshold is 4",
        ),
        (
            [roster],
            replace(inbox, seals=(seals[0], seals[2], seals[1], *seals[3:])),
            "PeerError",
            "the seal from b does not open",
        ),
        (
            [roster],
            replace(inbox, dealt=(replace(inbox.dealt[0], commitment=bytes(32)), *inbox.dealt[1:])),
            "PeerError",
            "own commitment was changed",
        ),
        ([roster], survivors, "OutOfPhase", "a Survivors came while waiting for inbox"),
        (
            [roster, inbox],
            replace(survivors, members=("a", "b", "c")),
            "CohortTooSmall",
            "over 3 members, this member accepts 4",
        ),
        (
            [roster, inbox],
            replace(survivors, members=("b", "c", "d", "e")),
            "PeerError",
            "not among the survivors",
        ),
        (
            [roster, inbox],
            Survivors(survivors.round_id, tuple("abcdf")),
            "PeerError",
            "not among who dealt shares",
        ),
        (
            [roster, inbox, survivors],
            replace(survivors, members=tuple("abcde")),
            "OutOfPhase",
            "a second, different Survivors",
        ),
        (
            [roster, inbox, survivors],
            replace(endorsements, entries=endorsements.entries[:3]),
            "CohortTooSmall",
            "3 members signed the survivor set, the threshold is 4",
        ),
        (
            [roster, inbox, survivors],
            replace(endorsements, entries=(*endorsements.entries[:3], endorsements.entries[2])),
            "PeerError",
            "named twice",
        ),
        (
            [roster, inbox, survivors],
            replace(endorsements, entries=(*endorsements.entries[:3], forged)),
            "PeerError",
            "d signed another survivor set",
        ),
    ]
    return [
        {
            "member": "a",
            "after": len(before),
            "kind": type(message).__name__,
            "message": body(message).hex(),
            "error": error,
            "reason": reason,
        }
        for before, message, error, reason in cases
    ]


def bad_to_aggregator(cohort: Cohort, log: Any) -> list[dict[str, Any]]:
    """What the aggregator refuses in a phase, after all good messages of the phases before it."""
    advertise, shares = log["advertise"][1][2], log["share"][1][2]
    vector, consistency, reveal = (log[phase][1][2] for phase in ("mask", "consistency", "unmask"))

    def resigned(message: Any, **changes: Any) -> Any:
        return sign(cohort.identities["b"], replace(message, **changes))

    weak = bytes([1]) + bytes(31)
    changed = MaskedVector(vector.head, vector.main + np.uint32(1), vector.auxiliary)
    cases = [
        ("advertise", resigned(advertise, mask_key=weak), "PeerError", "b advertised a weak key"),
        ("advertise", resigned(advertise, ctx=bytes(32)), "PeerError", "b starts from another model"),
        ("advertise", replace(advertise, member="c"), "PeerError", "not signed by the pinned key of c"),
        ("advertise", shares, "OutOfPhase", "in phase advertise, b sent its message for share"),
        ("share", replace(shares, seals=shares.seals[:-1]), "PeerError", "b sent 5 seals, expected one for"),
        ("share", replace(shares, commitment=bytes(32)), "PeerError", "not signed by the pinned key of b"),
        ("share", resigned(shares, round_id=bytes(32)), "PeerError", "a message of another round"),
        ("mask", changed, "PeerError", "the vector of b is not the one that it signed"),
        (
            "mask",
            MaskedVector(resigned(vector.head, r2=bytes(32)), vector.main, vector.auxiliary),
            "PeerError",
            "another list of who dealt shares",
        ),
        ("consistency", resigned(consistency, survivors=bytes(32)), "PeerError", "another survivor set"),
        (
            "unmask",
            resigned(reveal, key_shares=()),
            "PeerError",
            "b revealed 4 and 0 shares, expected 4 and 1",
        ),
        ("unmask", vector_of_e(), "OutOfPhase", "in phase unmask, e sent its message for mask"),
    ]
    return [
        {
            "phase": phase,
            "kind": type(message).__name__,
            "message": body(message).hex(),
            "error": error,
            "reason": reason,
        }
        for phase, message, error, reason in cases
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
