"""`sealing = "syft"` beside `aes-gcm`: what a member's and the aggregator's work costs (PROTOCOL §3.4).

    python bench/sealing.py            cohorts of 2, 10 and 50; about half a minute
    python bench/sealing.py --json

A member deals its shares (n - 1 seals) and opens its inbox (n - 1 more) with the real phases, masks out of
it: they cost the same under both. Then the masked vector is sealed by a member and opened by the aggregator.
Both kinds in turns in one run; every figure is minimum / median / maximum. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from choral.integrations.syft.envelope import EnvelopeKey, Envelopes
from choral.integrations.syft.sealing import Syft
from choral.primitives.identity import Identity
from choral.protocol import phases, wire
from choral.protocol.messages import Dealt, Inbox, Masked, MaskedVector, Roster
from choral.protocol.parameters import Parameters
from choral.protocol.sealing import AES_GCM, Sealing
from choral.protocol.transcript import sign, vector_digest
from figures import Figure, table, timed

COHORTS = (2, 10, 50)
SIZES = (7_850, 1_000_000)
AUXILIARY = 6
BOSS = "aggregator"


@dataclass
class Cohort:
    """One cohort's members, and member 0 ready to deal and to open its inbox."""

    members: list[phases.Member]
    boss: Sealing

    def __post_init__(self) -> None:
        advertised = [phases.advertise(member, os.urandom) for member in self.members]
        self.roster = Roster(tuple(message for message, _ in advertised))
        self.secrets = [secrets for _, secrets in advertised]
        self.cohorts = [
            phases.accept_roster(member, message, self.roster)
            for member, (message, _) in zip(self.members, advertised, strict=True)
        ]
        dealt = [self.deal(at) for at in range(len(self.members))]
        self.mine, self.dealing = dealt[0]
        self.inbox = Inbox(
            self.cohorts[0].round_id,
            tuple(Dealt(shares.member, shares.commitment, shares.signature) for shares, _ in dealt),
            tuple(shares.seals[0] for shares, _ in dealt),
        )

    def deal(self, at: int) -> Any:
        return phases.deal(self.members[at], self.cohorts[at], self.secrets[at], os.urandom)

    def share_phase(self) -> None:
        """What one member does in it: deal to all, open from all."""
        self.deal(0)
        phases.accept_inbox(self.members[0], self.cohorts[0], self.dealing, self.mine, self.inbox)

    @property
    def bytes_up(self) -> int:
        return len(wire.encode(self.mine))

    def vector(self, d: int) -> MaskedVector:
        rng = np.random.default_rng(0)
        main = rng.integers(0, 2**32, d, dtype=np.uint32)
        head = Masked(self.members[0].name, self.cohorts[0].round_id, bytes(32), bytes(32), bytes(64))
        vector = MaskedVector(head, main, np.zeros(AUXILIARY, np.uint64))
        head = sign(self.members[0].identity, replace(head, digest=vector_digest(vector)))
        return MaskedVector(head, vector.main, vector.auxiliary)


def cohorts(n: int) -> tuple[Cohort, Cohort]:
    """The same members under aes-gcm and under syft."""
    identities = sorted((Identity.generate(os.urandom) for _ in range(n)), key=lambda one: one.public)
    names = [f"member-{i}" for i in range(1, n + 1)]
    pinned = {name: identity.public for name, identity in zip(names, identities, strict=True)}
    boss = Identity.generate(os.urandom)
    keys = {name: EnvelopeKey.generate(os.urandom) for name in (*names, BOSS)}
    bundles = {name: key.public for name, key in keys.items()}

    def syft(name: str) -> Syft:
        return Syft(Envelopes(name, keys[name], bundles), {**pinned, BOSS: boss.public}, BOSS)

    parameters = Parameters(max(n, 2), 1, AUXILIARY, min(3, n))

    def made(sealings: dict[str, Sealing]) -> Cohort:
        members = [
            phases.Member(name, identity, pinned, parameters, bytes(32), sealings[name])
            for name, identity in zip(names, identities, strict=True)
        ]
        return Cohort(members, sealings[BOSS])

    everybody = (*names, BOSS)
    return made(dict.fromkeys(everybody, AES_GCM)), made({name: syft(name) for name in everybody})


def in_turns(plain: Any, sealed: Any, times: int) -> tuple[Figure, Figure, Figure]:
    """Milliseconds of each, and the ratio, taken in turns."""
    plain(), sealed()
    pairs = [(1e3 * timed(plain), 1e3 * timed(sealed)) for _ in range(times)]
    ones, others = zip(*pairs, strict=True)
    return Figure(ones), Figure(others), Figure(tuple(other / one for one, other in pairs))


def there_and_back(cohort: Cohort, vector: MaskedVector) -> None:
    """A member seals its masked vector, the aggregator opens it."""
    body = b"".join(cohort.members[0].sealing.encode_vector(vector))
    cohort.boss.decode_vector(body, len(vector.main), len(vector.auxiliary))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    medians: dict[str, float] = {}
    rows = []
    for n in COHORTS:
        plain, sealed = cohorts(n)
        one, other, ratio = in_turns(plain.share_phase, sealed.share_phase, given.times)
        rows.append((n, one, other, ratio, plain.bytes_up, sealed.bytes_up))
        medians |= {
            f"share_{n}_ms": other.median,
            f"share_{n}_ratio": ratio.median,
            f"share_{n}_bytes": sealed.bytes_up,
        }
    head = ("members", "aes-gcm, ms", "syft, ms", "ratio", "bytes up", "bytes up, syft")
    table("Phase share, one member: deal and open", head, rows)
    rows = []
    plain, sealed = cohorts(2)
    for d in SIZES:
        vector = plain.vector(d)
        one, other, ratio = in_turns(
            lambda vector=vector: there_and_back(plain, vector),
            lambda vector=vector: there_and_back(sealed, vector),
            given.times,
        )
        more = len(b"".join(sealed.members[0].sealing.encode_vector(vector))) - len(
            b"".join(plain.members[0].sealing.encode_vector(vector))
        )
        rows.append((d, one, other, ratio, more))
        medians |= {f"vector_{d}_ms": other.median, f"vector_{d}_ratio": ratio.median}
    head = ("parameters", "aes-gcm: not sealed, ms", "syft, ms", "ratio", "bytes more")
    table("A masked vector, encoded by a member and decoded by the aggregator", head, rows)
    if given.json:
        print(json.dumps({key: round(value, 4) for key, value in medians.items()}))


if __name__ == "__main__":
    main()
