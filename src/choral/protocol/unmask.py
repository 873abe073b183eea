"""The aggregator's last step: secrets from shares, masks from secrets, the sum from masks (§4 unmask)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from choral.primitives.agreement import Agreement, public_key
from choral.primitives.keystream import Stream
from choral.protocol.disputes import Findings, Holders
from choral.protocol.messages import Reveal
from choral.protocol.phases import Cohort, pair_stream, self_stream


def mask_streams(
    cohort: Cohort,
    *,
    r2: bytes,
    u2: Sequence[str],
    u3: Sequence[str],
    commitments: Mapping[str, bytes],
    reveals: Mapping[str, Reveal],
    liars: int,
) -> tuple[list[Stream], Findings]:
    """The keystreams that, added to the sum of masked vectors, leave the sum of the vectors.

    Args:
        liars: how many members of the cohort may lie, at least 1 (§4.5).

    Returns:
        The streams, and what wrong shares prove.

    Raises:
        RoundAborted: too few good shares of a secret; `proven` names whom that proves wrong.
    """
    gone = [name for name in u2 if name not in set(u3)]
    holders = Holders({name: cohort.index[name] for name in reveals}, cohort.threshold, liars)
    streams = []
    for at, name in enumerate(u3):
        shares = {holder: reveals[holder].self_shares[at] for holder in reveals}
        seed = holders.recover(name, shares, _commits_to(commitments[name]), exact=True)
        streams.append(self_stream(cohort, name, seed, -1))
    for at, name in enumerate(gone):
        shares = {holder: reveals[holder].key_shares[at] for holder in reveals}
        fits = _is_private_half_of(cohort.entry(name).mask_key)
        key = holders.recover(name, shares, fits, exact=False)
        agreement = Agreement(key)
        # what the dropped member would have added is just what its survivors' masks lack
        streams += [pair_stream(cohort, r2, agreement, name, survivor) for survivor in u3]
    return streams, holders.findings()


def _commits_to(commitment: bytes) -> Callable[[bytes], bool]:
    return lambda seed: hashlib.sha256(seed).digest() == commitment


def _is_private_half_of(public: bytes) -> Callable[[bytes], bool]:
    return lambda private: public_key(private) == public
