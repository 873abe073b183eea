"""Who is left out of a cohort because some of its members ask not to be in one together (§4.6).

A pure function of who has joined, who asked to be without whom, and whose turn it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

MOST_NAMED = 16  # that one member may ask to be without
_DEPTH = 10  # members up to which the fewest that must go are searched for

Pair = tuple[str, str]  # who asked, and without whom


def keep_apart(
    cohort: Sequence[str],
    without: Mapping[str, Collection[str]],
    *,
    colluders: int,
    least: int,
    turns: Mapping[str, int],
) -> dict[str, str]:
    """Who has to wait for another cohort, and why; what is left has no pair of which one asked to be without
    the other.

    Whoever asks to be without everybody else goes first. Then whoever is named by more than `colluders`
    members: that many cannot all be lying. Otherwise one's word stands against the other's, and the two take
    turns. If that left fewer than `least`, as few go as possible.

    Args:
        cohort: who has joined, in roster order.
        without: by member, whom it asked to be without.
        colluders: c of this cohort.
        turns: when somebody had to wait last, as a number that grows; who is not in there never had to.
    """
    pairs = [(a, b) for a in cohort for b in cohort if b != a and b in without.get(a, ())]
    if not pairs:
        return {}
    found = _by_the_rule(cohort, pairs, colluders, turns)
    spare = len(cohort) - least
    if len(found) <= spare:
        return found
    for most in range(1, min(spare, _DEPTH) + 1):
        fewest = _cover(pairs, most, turns)
        if fewest is not None:
            return {name: _why(name, pairs) for name in cohort if name in fewest}
    return found


def _by_the_rule(
    cohort: Sequence[str], pairs: list[Pair], colluders: int, turns: Mapping[str, int]
) -> dict[str, str]:
    out: dict[str, str] = {}
    left = list(pairs)

    def go(name: str) -> None:
        out[name] = _why(name, left)
        left[:] = [pair for pair in left if name not in pair]

    while True:
        others = len(cohort) - len(out) - 1
        asked = Counter(a for a, _ in left)
        greedy = [a for a in cohort if others > 1 and asked[a] == others]
        if not greedy:
            break
        go(min(greedy, key=lambda name: turns.get(name, -1)))
    while True:
        named = Counter(b for _, b in left)
        many = [b for b in cohort if named[b] > colluders]
        if not many:
            break
        go(min(many, key=lambda name: (-named[name], turns.get(name, -1))))
    while left:
        asker, named_ = left[0]
        # of equals the one that was named: the other may have seen something
        go(asker if turns.get(asker, -1) < turns.get(named_, -1) else named_)
    return out


def _cover(pairs: list[Pair], most: int, turns: Mapping[str, int]) -> frozenset[str] | None:
    """At most so many members of whom every pair has one, or None: each pair in turn, both ways."""
    if not pairs:
        return frozenset()
    if most == 0:
        return None
    asker, named = pairs[0]
    first = asker if turns.get(asker, -1) < turns.get(named, -1) else named
    for name in (first, asker if first == named else named):
        rest = _cover([pair for pair in pairs if name not in pair], most - 1, turns)
        if rest is not None:
            return rest | {name}
    return None


def _why(name: str, pairs: list[Pair]) -> str:
    askers = [a for a, b in pairs if b == name]
    if askers:
        return f"{some(askers)} asked for cohorts without it"
    named = some([b for a, b in pairs if a == name])
    return f"it asked for cohorts without {named}, and it is its turn to wait"


def some(names: Sequence[str], most: int = 8) -> str:
    """Names as a sentence has room for them."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
