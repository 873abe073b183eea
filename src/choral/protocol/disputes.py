"""Wrong shares: secrets in spite of them, and what they prove against whom (§4.5).

The aggregator cannot read seals. If a revealed share does not fit, either its dealer dealt it wrong or its
holder revealed it wrong: a *dispute* between the two. What is proven follows from there being at most `liars`
members who lie, and from nothing else.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from choral.errors import RoundAborted
from choral.primitives import reed_solomon, shamir

MOST_WORK = 2_000_000
"""When the decoder gives up, holders are left out in so many ways, times r^2: about a second."""

Dispute = tuple[str, str]  # dealer, holder


@dataclass(frozen=True)
class Findings:
    """What the shares that were revealed say about members.

    Attributes:
        culprits: proven to have lied, if at most `liars` members of the cohort do.
        disputes: dealer and holder, one of whom lied, where neither is a culprit.
    """

    culprits: tuple[str, ...] = ()
    disputes: tuple[Dispute, ...] = ()


@dataclass(frozen=True)
class _Secret:
    """A secret that came out: the shares that were revealed, and t holders whose shares give it."""

    dealer: str
    shares: Mapping[str, bytes]
    good: tuple[str, ...]
    off: Sequence[str] | None  # whose values are not on that polynomial; None: not looked at yet
    fits: Callable[[bytes], bool]
    exact: bool


class Holders:
    """The members who revealed, asked for one secret after the other.

    The first t are read, and in an honest round nothing else is done. Lagrange coefficients are computed
    once for a set of holders, not once for a secret; who was off one polynomial is asked last for the next
    secrets, so that a liar costs one decoding, not one for every secret.

    Args:
        index: share index of each member who revealed.
        threshold: t.
        liars: how many members of the cohort may lie, at least 1.
    """

    def __init__(self, index: Mapping[str, int], threshold: int, liars: int) -> None:
        self._index = index
        self._threshold = threshold
        self._liars = liars
        self._doubted: Counter[str] = Counter()
        self._good = tuple(index)[:threshold]
        self._recovered: list[_Secret] = []
        self._all_fit = True

    def recover(
        self, dealer: str, shares: Mapping[str, bytes], fits: Callable[[bytes], bool], *, exact: bool
    ) -> bytes:
        """The dealer's secret, in spite of up to (r - t) / 2 wrong ones of r shares, in small cohorts more.

        Args:
            shares: the revealed shares by holder, 32 bytes each.
            fits: whether a secret is the one that the dealer signed for.
            exact: whether only one secret fits. (An X25519 key has several private halves.)

        Raises:
            RoundAborted: no secret that fits; `proven` if that proves the dealer wrong.
        """
        good = self._good
        secret, off = self._read(good, _values(shares, good)), None
        if not fits(secret):
            self._all_fit = False
            values = _values(shares, self._index)
            good, off = self._correct(dealer, values, fits)
            secret = self._read(good, values)
            self._doubted.update(off)
            by_doubt = sorted(self._index, key=self._doubted.__getitem__)
            self._good = tuple(by_doubt[: self._threshold])
        self._recovered.append(_Secret(dealer, shares, good, off, fits, exact))
        return secret

    def _correct(
        self, dealer: str, values: Mapping[str, int], fits: Callable[[bytes], bool]
    ) -> tuple[tuple[str, ...], list[str]]:
        """t holders whose values give a secret that fits, and who is not on the polynomial through them."""
        everybody = list(self._index)
        for pool in self._pools():
            found = reed_solomon.decode({self._index[name]: values[name] for name in pool}, self._threshold)
            if found is None:
                continue
            off = self._not_on(found, values)
            if fits(_secret(found)):
                on = [name for name in everybody if name not in set(off)]
                return tuple(on[: self._threshold]), off
            # at least t of so many are honest, so this is what the dealer would have drawn if it were honest
            if len(everybody) - len(off) >= self._threshold + self._liars:
                raise self._aborted(dealer, proven=True)
        # an honest dealer's secret comes out of what reaches as many wrong shares as there are liars
        raise self._aborted(dealer, proven=self._reach >= self._liars)

    def _pools(self) -> Iterator[Sequence[str]]:
        """Whose values to decode: everybody's, those of nobody doubted, then with ever more left out."""
        everybody = tuple(self._index)
        yield everybody
        undoubted = tuple(name for name in everybody if not self._doubted[name])
        if undoubted != everybody:
            yield undoubted
        for out in self._left_out:
            yield from itertools.combinations(everybody, len(everybody) - out)

    @functools.cached_property
    def _left_out(self) -> list[int]:
        """How many holders to leave out: where that reaches further, in few enough ways."""
        r = len(self._index)
        spare = r - self._threshold
        return [
            out
            for out in range(1, spare + 1)
            if (spare - out) % 2 == 0 and math.comb(r, out) * r**2 <= MOST_WORK
        ]

    @functools.cached_property
    def _reach(self) -> int:
        """So many wrong shares of one secret are found, whichever they are: the left out, half the rest."""
        spare = len(self._index) - self._threshold
        return max(out + (spare - out) // 2 for out in (0, *self._left_out))

    def _aborted(self, dealer: str, *, proven: bool) -> RoundAborted:
        culprits = {*self.findings().culprits, *([dealer] if proven else [])}
        return RoundAborted(
            f"the shares of {dealer} that {len(self._index)} members revealed do not give its secret back",
            culprits=sorted(culprits),
            proven=sorted(culprits),
            hint=f"{dealer} did not deal shares of the secret that it signed for: that is proven"
            if proven
            else f"{dealer} dealt wrong shares, or more than {self._reach} members revealed wrong ones: which"
            " of the two cannot be told",
            rule="4.5.12",
        )

    def _read(self, good: tuple[str, ...], values: Mapping[str, int]) -> bytes:
        (weights,) = _lines(tuple(self._index[name] for name in good), (0,))
        total = sum(weight * values[name] for weight, name in zip(weights, good, strict=True))
        return (total % shamir.PRIME).to_bytes(shamir.BYTES, "little")

    def _off_line(self, good: tuple[str, ...], values: Mapping[str, int]) -> list[str]:
        """Whose values are not on the polynomial through those of `good`."""
        others = [name for name in self._index if name not in set(good)]
        places = tuple(self._index[name] for name in others)
        lines = _lines(tuple(self._index[name] for name in good), places)
        known = [values[name] for name in good]
        return [
            name
            for name, line in zip(others, lines, strict=True)
            if sum(map(int.__mul__, line, known)) % shamir.PRIME != values[name]
        ]

    def _not_on(self, polynomial: reed_solomon.Polynomial, values: Mapping[str, int]) -> list[str]:
        return [
            name for name, at in self._index.items() if reed_solomon.value(polynomial, at) != values[name]
        ]

    # ----- what it proves ---------------------------------------------------------------------

    def findings(self) -> Findings:
        """Looked at only if some secret did not come out at once: then all shares of all secrets."""
        if self._all_fit:
            return Findings()
        disputes = {
            (secret.dealer, name) for secret in self._recovered for name in self._in_dispute(secret) or ()
        }
        culprits = proven(disputes, self._liars)
        left = sorted(pair for pair in disputes if not culprits & set(pair))
        return Findings(tuple(sorted(culprits)), tuple(left))

    def _in_dispute(self, secret: _Secret) -> Sequence[str] | None:
        """Whose shares are off the polynomial that an honest dealer would have drawn; None if unknown.

        Liars can agree on values that give the secret and a polynomial that honest holders are not on: to
        their shares they add one that is 0 at the secret and at t - 2 honest holders. So many on it that t
        are honest, the secret counted if only one fits, exclude that.
        """
        most = len(self._index) - (self._threshold + self._liars - secret.exact)
        values = _values(secret.shares, self._index)
        off = self._off_line(secret.good, values) if secret.off is None else secret.off
        if len(off) <= most:
            return off
        if 2 * len(off) <= len(self._index) - self._threshold:
            return None  # the decoder would find this one again
        points = {self._index[name]: value for name, value in values.items()}
        found = reed_solomon.decode(points, self._threshold)
        if found is None or not secret.fits(_secret(found)):
            return None
        off = self._not_on(found, values)
        return off if len(off) <= most else None


def _values(shares: Mapping[str, bytes], names: Collection[str]) -> dict[str, int]:
    """Shares as field elements. One that is not below the prime, as no honest dealer deals, is reduced."""
    return {name: int.from_bytes(shares[name], "little") % shamir.PRIME for name in names}


def _secret(polynomial: reed_solomon.Polynomial) -> bytes:
    return reed_solomon.value(polynomial, 0).to_bytes(shamir.BYTES, "little")


@functools.lru_cache(maxsize=8)
def _lines(indices: tuple[int, ...], places: tuple[int, ...]) -> list[list[int]]:
    return shamir.lines(indices, places)


def proven(disputes: Collection[Dispute], liars: int) -> frozenset[str]:
    """Who must have lied, if one of each pair in dispute did and at most `liars` members do.

    Whoever is in dispute with more than that many is proven: else all of those would be liars. What a proven
    liar explains is set aside, and there is one liar less to come (Buss's rule for vertex covers). Nobody is
    proven if the disputes need more liars than that: then the premise does not hold.
    """
    culprits = {dealer for dealer, holder in disputes if dealer == holder}
    while len(culprits) <= liars:
        left = {frozenset(pair) for pair in disputes if not culprits & set(pair)}
        spare = liars - len(culprits)
        many = {name for name, count in Counter(itertools.chain(*left)).items() if count > spare}
        if not many:
            return frozenset(culprits) if _apart(left) <= spare else frozenset()
        culprits |= many
    return frozenset()


def _apart(pairs: Collection[frozenset[str]]) -> int:
    """Pairs with nobody in common, as many as come to hand: each of them needs a liar of its own."""
    taken: set[str] = set()
    count = 0
    for pair in sorted(pairs, key=sorted):
        if not taken & pair:
            taken |= pair
            count += 1
    return count
