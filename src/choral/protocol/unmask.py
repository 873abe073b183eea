"""The aggregator's last step: secrets from shares, masks from secrets, the sum from masks (§4 unmask)."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from choral.errors import RoundAborted
from choral.primitives import shamir
from choral.primitives.agreement import Agreement, public_key
from choral.primitives.keystream import Stream
from choral.protocol.messages import Reveal
from choral.protocol.phases import Cohort, pair_stream, self_stream

_ATTEMPTS = 512


def mask_streams(
    cohort: Cohort,
    *,
    r2: bytes,
    u2: Sequence[str],
    u3: Sequence[str],
    commitments: Mapping[str, bytes],
    reveals: Mapping[str, Reveal],
) -> tuple[list[Stream], tuple[str, ...]]:
    """The keystreams that, added to the sum of masked vectors, leave the sum of the vectors.

    Returns:
        The streams, and the members that wrong shares point at (`Holders.culprits`).

    Raises:
        RoundAborted: fewer than t good shares of a secret; `culprits` names whom the evidence fits.
    """
    gone = [name for name in u2 if name not in set(u3)]
    holders = Holders(cohort, list(reveals))
    streams = []
    for at, name in enumerate(u3):
        shares = {holder: reveals[holder].self_shares[at] for holder in reveals}
        seed = holders.recover(name, shares, _commits_to(commitments[name]))
        streams.append(self_stream(cohort, name, seed, -1))
    for at, name in enumerate(gone):
        shares = {holder: reveals[holder].key_shares[at] for holder in reveals}
        key = holders.recover(name, shares, _is_private_half_of(cohort.entry(name).mask_key))
        agreement = Agreement(key)
        # what the dropped member would have added is just what its survivors' masks lack
        streams += [pair_stream(cohort, r2, agreement, name, survivor) for survivor in u3]
    return streams, holders.culprits()


def _commits_to(commitment: bytes) -> Callable[[bytes], bool]:
    return lambda seed: hashlib.sha256(seed).digest() == commitment


def _is_private_half_of(public: bytes) -> Callable[[bytes], bool]:
    return lambda private: public_key(private) == public


class Holders:
    """The members who revealed, and the disputes between them and those who dealt.

    Lagrange coefficients are computed once for a set of holders, not once for a secret.
    """

    def __init__(self, cohort: Cohort, names: list[str]) -> None:
        self._cohort = cohort
        self._names = names
        self._disputes: set[tuple[str, str]] = set()
        self._recovered: list[tuple[str, Mapping[str, bytes], tuple[str, ...]]] = []
        self._choose(names[: cohort.threshold])

    def _choose(self, names: Sequence[str]) -> None:
        self._chosen = tuple(names)
        self._weights = self._coefficients(self._chosen, 0)

    def _coefficients(self, names: Sequence[str], at: int) -> list[int]:
        return shamir.coefficients([self._cohort.index[name] for name in names], at)

    def recover(self, dealer: str, shares: Mapping[str, bytes], check: Callable[[bytes], bool]) -> bytes:
        """The dealer's secret that passes `check`, looking past wrong shares where there are spare ones."""
        secret = self._read(shares)
        if check(secret):
            self._recovered.append((dealer, shares, self._chosen))
            return secret
        secret = self._search(dealer, shares, check)
        self._recovered.append((dealer, shares, self._chosen))
        self._compare(self._recovered[-1:])
        undisputed = self._undisputed()
        disputed = [name for name in self._names if name not in undisputed]
        self._choose((undisputed + disputed)[: self._cohort.threshold])
        return secret

    def _read(self, shares: Mapping[str, bytes]) -> bytes:
        return shamir.evaluate(self._weights, [shares[name] for name in self._chosen])

    def _search(self, dealer: str, shares: Mapping[str, bytes], check: Callable[[bytes], bool]) -> bytes:
        t = self._cohort.threshold
        order = random.Random(0)  # any order will do, a fixed one can be replayed
        for pool in (self._undisputed(), self._names):
            for _ in range(_ATTEMPTS if len(pool) > t else len(pool) == t):
                self._choose(order.sample(pool, t))
                secret = self._read(shares)
                if check(secret):
                    return secret
        raise RoundAborted(
            f"the shares of {dealer} that {len(self._names)} members revealed do not give its secret back",
            culprits=[dealer],
            hint=f"{dealer} dealt wrong shares, or more members revealed wrong ones than can be told apart",
        )

    def _undisputed(self) -> list[str]:
        disputed = {holder for _, holder in self._disputes}
        return [name for name in self._names if name not in disputed]

    def _compare(self, recovered: Sequence[tuple[str, Mapping[str, bytes], tuple[str, ...]]]) -> None:
        """Whose share is not on the polynomial that gave the secret is in dispute with its dealer."""
        lines = {
            (good, name): self._coefficients(good, self._cohort.index[name])
            for good in {good for _, _, good in recovered}
            for name in self._names
        }
        for dealer, shares, good in recovered:
            values = [shares[name] for name in good]
            for name in self._names:
                if shamir.evaluate(lines[good, name], values) != shares[name]:
                    self._disputes.add((dealer, name))

    def culprits(self) -> tuple[str, ...]:
        """The fewest members who, if they lied, explain every dispute; both sides where it could be either.

        A share that does not fit was either dealt wrong or revealed wrong. Who has the most disputes is
        named first, and what that explains is not held against others: a lying dealer cannot have the
        honest holders of its shares accused, nor a lying holder the honest dealers.
        """
        if self._disputes:  # then every share is looked at, not only those that stood in the way
            self._compare(self._recovered)
        named: set[str] = set()
        left = self._disputes
        while left:
            counts = Counter(name for dispute in left for name in set(dispute))
            most = max(counts.values())
            named |= {name for name, count in counts.items() if count == most}
            left = {dispute for dispute in left if not named & set(dispute)}
        return tuple(sorted(named))
