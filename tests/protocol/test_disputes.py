"""Wrong shares: the sum comes out, and nobody honest is accused (PROTOCOL §4.5).

Members that lie do so together, on every secret as they like, dealing and revealing; there are at most as
many of them as the cohort bears. The test knows who they are, the code does not.
"""

import hashlib
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from choral.errors import RoundAborted
from choral.primitives import shamir
from choral.primitives.agreement import public_key
from choral.primitives.entropy import seeded
from choral.protocol.disputes import Findings, Holders, proven

PRIME = shamir.PRIME


class Table:
    """Every member's shares of every member's secret, as they were dealt, then as they are revealed."""

    def __init__(self, n, colluders=None, seed=b"table", dealers=None):
        self.colluders = (n - 1) // 4 if colluders is None else colluders
        self.t = (n + self.colluders) // 2 + 1
        self.liars = max(self.colluders, 1)
        self.names = [f"m{at:03}" for at in range(1, n + 1)]
        self.index = {name: at for at, name in enumerate(self.names, 1)}
        source = seeded(seed)
        self.secrets, self.shares = {}, {}
        for dealer in self.names[:dealers]:
            secret = shamir.draw(source).to_bytes(32, "little")
            self.secrets[dealer] = secret
            self.shares[dealer] = dict(zip(self.names, shamir.split(secret, n, self.t, source), strict=True))
        self.signed_for = {d: hashlib.sha256(secret).digest() for d, secret in self.secrets.items()}

    def add(self, dealer, holder, error):
        value = int.from_bytes(self.shares[dealer][holder], "little") + error
        self.shares[dealer][holder] = (value % PRIME).to_bytes(32, "little")

    def spoil(self, dealer, holder):
        self.add(dealer, holder, int.from_bytes(hashlib.sha256(f"{dealer}{holder}".encode()).digest()))

    def holders(self, revealed=None):
        return Holders({name: self.index[name] for name in revealed or self.names}, self.t, self.liars)

    def fits(self, dealer):
        return lambda secret: hashlib.sha256(secret).digest() == self.signed_for[dealer]

    def read(self, revealed=None):
        holders = self.holders(revealed)
        for dealer, secret in self.secrets.items():
            found = holders.recover(dealer, self.shares[dealer], self.fits(dealer), exact=True)
            assert found == secret
        return holders.findings()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_liars_up_to_the_bound_never_stop_a_sum_nor_get_an_honest_member_named(data):
    """Half the spare shares may be wrong, each secret's own, by who holds them or by who dealt them."""
    n = data.draw(st.integers(3, 24), "n")
    table = Table(n)
    reach = min((n - table.t) // 2, table.liars)
    liars = data.draw(st.lists(st.sampled_from(table.names), max_size=table.liars, unique=True), "liars")
    for dealer in table.names:
        victims = table.names if dealer in liars else liars
        if victims:
            for holder in data.draw(st.sets(st.sampled_from(victims), max_size=reach), dealer):
                table.spoil(dealer, holder)
    findings = table.read()
    assert set(findings.culprits) <= set(liars)
    assert all(set(pair) & set(liars) for pair in findings.disputes)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_liars_deal_and_reveal_nobody_honest_is_accused(data):
    """Beyond the bound a round may abort; also then only who lied is proven to have lied."""
    n = data.draw(st.integers(5, 16), "n")
    table = Table(n)
    liars = data.draw(
        st.lists(st.sampled_from(table.names), min_size=1, max_size=table.liars, unique=True), "liars"
    )
    for dealer in table.names:
        if dealer in liars and data.draw(st.booleans()):
            table.signed_for[dealer] = bytes(32)
        for holder in table.names if dealer in liars else liars:
            if data.draw(st.booleans()):
                table.spoil(dealer, holder)
    revealed = [name for name in table.names if name in liars or data.draw(st.booleans())]
    assume(len(revealed) >= table.t)
    found = Findings()
    aborted: tuple[str, ...] = ()
    try:
        found = table.read(revealed)
    except RoundAborted as error:
        aborted = error.culprits + error.proven
    assert {*found.culprits, *aborted} <= set(liars)
    assert all(set(pair) & set(liars) for pair in found.disputes)


@pytest.mark.parametrize("n", [12, 17, 24])
def test_liars_who_agree_on_another_polynomial_with_the_right_secret_accuse_nobody(n):
    """They add to their shares a polynomial that is 0 at the secret and at as many honest as it can."""
    table = Table(n)
    liars, honest = table.names[: table.colluders], table.names[table.colluders :]
    zeros = [0, *(table.index[name] for name in honest[: table.t - 2])]
    for dealer in table.names:
        for holder in liars:
            error = 1
            for zero in zeros:
                error = error * (table.index[holder] - zero) % PRIME
            table.add(dealer, holder, error)
    for name in honest[-table.colluders :]:  # something that makes the aggregator look closely
        table.spoil(liars[0], name)
    findings = table.read()
    assert set(findings.culprits) <= set(liars)
    assert all(set(pair) & set(liars) for pair in findings.disputes)


def test_eighteen_liars_of_a_hundred_do_not_stop_a_sum():
    table = Table(100, dealers=12)
    assert (100 - table.t) // 2 == 18
    for dealer in table.secrets:
        for holder in table.names[:18]:
            table.spoil(dealer, holder)
    findings = table.read()
    assert findings.culprits == ()  # 82 fit; 24 who lie together could have made others look like this
    table.spoil("m001", "m051")
    table.read()  # leaving out any one member reaches 19
    table.spoil("m001", "m052")
    with pytest.raises(RoundAborted, match=r"of m001 .*do not give its secret back") as abort:
        table.read()
    assert abort.value.culprits == ()
    assert "more than 19 members" in abort.value.hint


@pytest.mark.parametrize("n", [3, 4, 5, 9, 14, 15, 21, 26, 28])
def test_up_to_28_members_c_liars_stop_no_sum_and_a_dealer_of_nonsense_is_proven(n):
    table = Table(n, dealers=2)
    for holder in table.names[-table.liars :]:
        table.spoil("m001", holder)
        table.spoil("m002", holder)
    table.read()
    for holder in table.names:
        table.spoil("m002", holder)
    with pytest.raises(RoundAborted) as abort:
        table.read()
    assert "m002" in abort.value.proven
    assert set(abort.value.proven) <= {"m002", *table.names[-table.liars :]}


def test_thirteen_liars_of_a_hundred_are_named():
    table = Table(100, dealers=30)
    liars = table.names[20:33]
    for dealer in table.secrets:
        for holder in liars:
            table.spoil(dealer, holder)
    assert table.read().culprits == tuple(liars)


@pytest.mark.parametrize(("n", "wrong"), [(5, 0), (20, 2), (100, 13)])
def test_a_dealer_that_signed_for_another_secret_is_proven_although_others_lie(n, wrong):
    table = Table(n, dealers=3)
    dealer = table.names[1]
    table.signed_for[dealer] = hashlib.sha256(b"another").digest()
    for holder in table.names[-wrong:] if wrong else []:
        table.spoil(dealer, holder)
    with pytest.raises(RoundAborted) as abort:
        table.read()
    assert abort.value.proven == abort.value.culprits == (dealer,)
    assert "that is proven" in abort.value.hint


def test_with_one_wrong_share_more_a_dealer_is_not_proven():
    table = Table(100, dealers=1)
    table.signed_for["m001"] = hashlib.sha256(b"another").digest()
    for holder in table.names[-14:]:
        table.spoil("m001", holder)
    with pytest.raises(RoundAborted) as abort:
        table.read()
    assert abort.value.proven == abort.value.culprits == ()


def test_an_advertised_key_has_several_private_halves_so_a_recovered_one_is_no_further_share():
    """X25519 ignores five bits: liars may change them without being noticed, and honest holders be off."""
    table = Table(7, colluders=1, dealers=1)
    (dealer,) = table.secrets
    table.spoil(dealer, "m001")
    table.spoil(dealer, "m002")
    key = public_key(table.secrets[dealer])
    for exact, disputes in ((True, ("m001", "m002")), (False, ())):
        holders = table.holders()
        holders.recover(dealer, table.shares[dealer], lambda s: public_key(s) == key, exact=exact)
        found = holders.findings()
        assert {holder for _, holder in found.disputes} | set(found.culprits) == (
            {dealer} if disputes else set()
        )


def test_honest_shares_are_not_looked_at_twice():
    table = Table(8)
    holders = table.holders()
    for dealer, secret in table.secrets.items():
        unread = {name: table.shares[dealer][name] for name in table.names[: table.t]}
        shares = dict.fromkeys(table.names, bytes(32)) | unread  # nobody minds what is not needed
        assert holders.recover(dealer, shares, table.fits(dealer), exact=True) == secret
    assert holders.findings().culprits == holders.findings().disputes == ()


def seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


def test_at_256_members_wrong_shares_cost_a_small_multiple_of_splitting_them():
    """Measured against the dealing of the same secrets on the same machine: one dealing is n * t products."""
    honest = seconds(lambda: Table(256, dealers=16))
    table = Table(256, dealers=16)
    reach = (256 - table.t) // 2
    assert reach == 48
    for at, dealer in enumerate(table.secrets):
        for holder in table.names[at : at + reach]:  # other liars for each secret: nothing is learnt
            table.spoil(dealer, holder)
    assert seconds(table.read) < 40 * honest


# ----- what disputes prove -----------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_proven_is_only_who_lies_in_every_explanation(data):
    """Against all sets of liars that there can be."""
    names = "abcdef"
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names))
    disputes = data.draw(st.sets(pairs, max_size=9))
    liars = data.draw(st.integers(1, 4))
    explanations = [
        {name for at, name in enumerate(names) if chosen >> at & 1} for chosen in range(1 << len(names))
    ]
    explanations = [
        lied for lied in explanations if len(lied) <= liars and all(lied & set(pair) for pair in disputes)
    ]
    found = proven(disputes, liars)
    if explanations:
        assert found <= set.intersection(*explanations)
    for name in names:  # and whoever is in dispute with more than all liars is found
        others = {other for pair in disputes if name in pair for other in pair} - {name}
        if explanations and len(others) > liars:
            assert name in found


def test_disputes_that_need_more_liars_than_there_are_prove_nothing():
    assert proven({("d", "a"), ("e", "b")}, 1) == frozenset()
    assert proven({("d", "a"), ("d", "b")}, 1) == {"d"}
    assert proven({("d", "a"), ("d", "b"), ("e", "c")}, 1) == frozenset()
    assert proven({("d", "d")}, 1) == {"d"}
    assert proven(set(), 1) == frozenset()
