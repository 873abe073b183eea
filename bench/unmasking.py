"""The aggregator's side of a large round: CPU and memory of the sum (PROTOCOL §4 unmask).

Run as a process of its own, so that its memory is its own: `unmasking.py D MEMBERS DROPS`. Prints JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np

from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol.aggregator import AggregatorRound
from choral.protocol.member import MemberRound
from choral.protocol.messages import Masked, MaskedVector
from choral.protocol.parameters import Parameters
from choral.protocol.phases import Member
from choral.protocol.transcript import sign, vector_digest
from choral.vectors.fixed_point import RingPlan

SMALL = 64  # the members' own vectors: what they send is as large as it should be, but made once


def memory_mib(what: str) -> float:
    """A line of /proc/self/status: VmRSS is now, VmHWM the most. (ru_maxrss would begin at the parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main(d: int, members: int, drops: int) -> None:
    random = seeded(b"bench")
    identities = {f"m{i:03}": Identity.generate(random) for i in range(members)}
    pinned = {name: identity.public for name, identity in identities.items()}
    plan = RingPlan(members, 8.0, 1000)
    small = Parameters(plan.n_max, SMALL, 6)
    aggregator = AggregatorRound(pinned, Parameters(plan.n_max, d, 6), bytes(32))
    cohort = {
        name: MemberRound(
            Member(name, identity, pinned, small, bytes(32)),
            np.zeros(SMALL, np.uint32),
            np.zeros(6, np.uint64),
            random,
        )
        for name, identity in identities.items()
    }
    for member in cohort.values():
        aggregator.receive(member.advertise)
    aggregator.close()
    roster = aggregator.roster()
    for member in cohort.values():
        aggregator.receive(member.receive(roster))
    aggregator.close()
    stay = list(cohort)[drops:]
    heads = {name: cohort[name].receive(aggregator.inbox(name)).head for name in stay}
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew here
    before = memory_mib("VmRSS")
    # one upload in flight at a time, as one event loop takes them in
    upload = MaskedVector(heads[stay[0]], np.arange(d, dtype=np.uint32), np.zeros(6, np.uint64))
    digest = vector_digest(upload)
    for name in stay:
        head = heads[name]
        signed = sign(identities[name], Masked(name, head.round_id, head.r2, digest, bytes(64)))
        aggregator.receive(MaskedVector(signed, upload.main, upload.auxiliary))
    aggregator.close()
    survivors = aggregator.survivors()
    for name in stay:
        aggregator.receive(cohort[name].receive(survivors))
    aggregator.close()
    signatures = aggregator.endorsements()
    for name in stay:
        aggregator.receive(cohort[name].receive(signatures))
    cpu, wall = time.process_time(), time.perf_counter()
    aggregator.close()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = memory_mib("VmHWM")
    assert aggregator.total is not None
    print(
        json.dumps(
            {"cpu_s": cpu, "wall_s": wall, "peak_mib": max(0.0, peak - before), "vector_mib": 4 * d / 2**20}
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
