"""A member that lies meets the real aggregator and honest members (PROTOCOL §4).

It may spoil a round: that is not claimed away (§2). What is claimed: nobody's vector leaks, whoever can be
told from the evidence is named, and a refused message costs its sender a refusal and nobody else anything.
"""

import hashlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.errors import ChoralError, OutOfPhase, PeerError, RoundAborted, WireError
from choral.primitives import shamir
from choral.primitives.agreement import public_key
from choral.primitives.entropy import seeded
from choral.protocol.aggregator import Phase
from choral.protocol.messages import Complaint, MaskedVector
from choral.protocol.transcript import sign
from stage import Stage, enrol, reseal

SMALL_ORDER = bytes([1]) + bytes(31)


@pytest.fixture
def stage():
    return Stage(5)


def refuses(stage, message, error, reason, culprit):
    """The aggregator refuses `message`, says why and by whom, and stays just as it was."""
    before = (stage.aggregator.phase, *(len(received) for received in stage.aggregator._received.values()))
    with pytest.raises(error, match=reason) as refusal:
        stage.send(message)
    assert refusal.value.culprits == ((culprit,) if culprit else ())
    after = (stage.aggregator.phase, *(len(received) for received in stage.aggregator._received.values()))
    assert before == after
    return refusal.value


def finishes(stage, who):
    """The round goes on from its open phase and gives the plain sum over `who`."""
    steps = {Phase.SHARE: stage.share, Phase.MASK: stage.mask, Phase.CONSISTENCY: stage.agree}
    steps[Phase.UNMASK] = stage.reveal
    while stage.aggregator.phase is not Phase.DONE:
        steps[stage.aggregator.phase](who)
    assert stage.total() == stage.expected(who)


# ----- advertise ---------------------------------------------------------------------------------


def top_bit(key):
    """The same point in another encoding: X25519 ignores that bit (RFC 7748 §5)."""
    return key[:31] + bytes([key[31] ^ 128])


def forged_advertisements(stage):
    mine, yours = stage.members["b"].advertise, stage.members["a"].advertise
    stranger = enrol(1, b"stranger")["a"]
    return {
        "another's name": (sign(stage.identities["b"], replace(mine, member="c")), "not signed", "c"),
        "another's entry": (replace(yours, member="b"), "not signed", "b"),
        "no name of ours": (sign(stranger, replace(mine, member="zoe")), "not enrolled", "zoe"),
        "a changed key": (replace(mine, mask_key=bytes(32)), "not signed", "b"),
        "another model": (stage.member("b", ctx=bytes(32)).advertise, "another model or task", "b"),
        "a small-order seal key": (stage.signed("b", replace(mine, seal_key=SMALL_ORDER)), "weak key", "b"),
        "a small-order mask key": (stage.signed("b", replace(mine, mask_key=SMALL_ORDER)), "weak key", "b"),
        "another's key": (stage.signed("b", replace(mine, mask_key=yours.mask_key)), "is taken", "b"),
        "another's key in the other place": (
            stage.signed("b", replace(mine, mask_key=yours.seal_key)),
            "is taken",
            "b",
        ),
        "its top bit set": (
            stage.signed("b", replace(mine, mask_key=top_bit(mine.mask_key))),
            "encoding",
            "b",
        ),
        "another's key with the top bit set": (
            stage.signed("b", replace(mine, seal_key=top_bit(yours.seal_key))),
            "encoding",
            "b",
        ),
        "a key that is not reduced": (
            stage.signed("b", replace(mine, seal_key=(2**255 - 19 + 9).to_bytes(32, "little"))),
            "encoding",
            "b",
        ),
        "one key for both": (stage.signed("b", replace(mine, mask_key=mine.seal_key)), "is taken", "b"),
    }


@pytest.mark.parametrize("lie", forged_advertisements(Stage(5)))
def test_a_bad_advertisement_never_reaches_a_roster(stage, lie):
    message, reason, culprit = forged_advertisements(stage)[lie]
    stage.send(stage.members["a"].advertise)
    refuses(stage, message, PeerError, reason, culprit)
    stage.advertise(["b", "c", "d", "e"])  # b itself may still join, honestly
    finishes(stage, "abcde")


def test_a_second_different_advertisement_is_refused(stage):
    stage.send(stage.members["a"].advertise)
    other = Stage(5, seed=b"other").members["a"].advertise
    refusal = refuses(stage, other, OutOfPhase, "different Advertise before", "a")
    assert "another process" in refusal.hint


def test_a_cohort_is_not_overrun():
    stage = Stage(3, enrolled=6)
    for name in "abc":
        stage.send(stage.members[name].advertise)
    late = sign(stage.identities["d"], replace(stage.members["a"].advertise, member="d"))
    refuses(stage, late, OutOfPhase, "full with 3", None)


def test_one_who_withdraws_makes_room_and_may_come_back(stage):
    for name in "abc":
        stage.send(stage.members[name].advertise)
    stage.aggregator.withdraw("b")
    stage.aggregator.withdraw("e")
    assert stage.aggregator.received(Phase.ADVERTISE) == ["a", "c"]
    stage.advertise(["b", "d", "e"])
    stage.aggregator.withdraw("b")  # too late: the roster is out
    finishes(stage, "abcde")


# ----- share -------------------------------------------------------------------------------------


def test_a_wrong_number_of_seals_is_refused(stage):
    stage.to_roster()
    shares = stage.ask("b", stage.aggregator.roster())
    for seals in (shares.seals[:-1], (*shares.seals, b""), ()):
        refuses(stage, replace(shares, seals=seals), PeerError, f"sent {len(seals)} seals, expected", "b")
    for name in "acde":
        stage.send(stage.ask(name, stage.aggregator.roster()))
    stage.send(shares)
    stage.aggregator.close()
    finishes(stage, "abcde")


def test_a_seal_to_oneself_is_refused(stage):
    shares = stage.ask("b", stage.to_roster())
    seals = (shares.seals[0], bytes(80), *shares.seals[2:])
    refuses(stage, replace(shares, seals=seals), PeerError, "a seal of 80 bytes to b, expected 0", "b")


@pytest.mark.parametrize("size", [0, 1, 79, 81, 4371, 65536])
def test_a_seal_of_another_length_reaches_nobody_and_costs_its_sender_only(stage, size):
    """One recipient could not open it and would leave; the dealer would do it again in the next round."""
    shares = stage.ask("b", stage.to_roster())
    seals = (*shares.seals[:4], bytes(size))
    refusal = refuses(stage, replace(shares, seals=seals), PeerError, f"{size} bytes to e, expected 80", "b")
    assert refusal.rule == "4.2.12"
    for name in "acde":
        stage.send(stage.ask(name, stage.aggregator.roster()))
    stage.aggregator.close()
    finishes(stage, "acde")


@pytest.mark.parametrize("change", ["commitment", "round_id", "signature", "member"])
def test_shares_that_were_changed_or_replayed_are_refused(stage, change):
    shares = stage.ask("b", stage.to_roster())
    value = {"signature": bytes(64), "member": "c"}.get(change, bytes(32))
    refuses(
        stage,
        replace(shares, **{change: value}),
        PeerError,
        "not signed",
        value if change == "member" else "b",
    )


def test_shares_of_another_round_are_refused(stage):
    other = Stage(5, seed=b"other")
    shares = other.ask("b", other.to_roster())
    stage.to_roster()
    refuses(stage, shares, PeerError, "message of another round", "b")


def test_different_shares_after_the_first_are_refused(stage):
    shares = stage.ask("b", stage.to_roster())
    stage.send(shares)
    stage.send(shares)
    refuses(stage, replace(shares, seals=(b"x", b"", *shares.seals[2:])), OutOfPhase, "different Shares", "b")


def test_a_seal_that_does_not_open_is_named_by_its_recipients_and_the_complaint_arrives(stage):
    stage.advertise()
    junk = bytes(80)
    inboxes = stage.share(change=lambda name, m: replace(m, seals=(junk,) * 2 + (b"",) + (junk,) * 2)
                          if name == "c" else m)  # fmt: skip
    for name in "abde":
        with pytest.raises(PeerError, match="seal from c does not open") as refusal:
            stage.ask(name, inboxes[name])
        assert refusal.value.culprits == ("c",)
        stage.send(stage.complaint(name, refusal.value))
    assert stage.aggregator.awaited == ["c"]  # nobody waits for those who left
    with pytest.raises(RoundAborted, match="got 0 of the 4") as abort:
        stage.aggregator.close()
    assert abort.value.culprits == ("c",)
    assert all(member.state.value == "aborted" for name, member in stage.members.items() if name != "c")


def test_a_seal_that_one_recipient_cannot_open_costs_only_that_recipient(stage):
    stage.advertise()
    inboxes = stage.share(
        change=lambda name, m: replace(m, seals=(bytes(80), *m.seals[1:])) if name == "c" else m
    )
    with pytest.raises(PeerError, match="seal from c") as refusal:
        stage.ask("a", inboxes["a"])
    stage.send(stage.complaint("a", refusal.value))
    assert stage.aggregator.awaited == ["b", "c", "d", "e"]
    finishes(stage, "bcde")


def test_a_complaint_needs_its_senders_signature_and_round(stage):
    stage.to_inboxes()
    rid = stage.aggregator.round_id
    unsigned = Complaint("a", rid, "why", ("b",), bytes(64))
    refuses(stage, unsigned, PeerError, "not signed", "a")
    refuses(
        stage, replace(stage.signed("b", replace(unsigned, member="b")), member="a"), PeerError, "signed", "a"
    )
    elsewhere = stage.signed("a", replace(unsigned, round_id=bytes(32)))
    refuses(stage, elsewhere, PeerError, "another round", "a")
    assert not stage.aggregator.complaints
    finishes(stage, "abcde")


def test_a_complaint_before_the_roster_or_from_outside_the_cohort_is_refused():
    stage = Stage(4, enrolled=5)
    complaint = Complaint("e", bytes(32), "why", (), bytes(64))
    refuses(stage, stage.signed("e", complaint), PeerError, "another round", "e")
    stage.to_roster()
    complaint = stage.signed("e", replace(complaint, round_id=stage.aggregator.round_id))
    refuses(stage, complaint, OutOfPhase, "not in this phase", "e")


@pytest.mark.parametrize("accused", [("b", "b"), ("zoe",), ("b", "zoe"), ("f",), tuple("bcde") * 64])
def test_a_complaint_accuses_members_of_the_cohort_once_each(accused):
    """Names of its own making would be logged, stored, and passed on to everybody with the abort."""
    stage = Stage(5, enrolled=6)
    stage.to_inboxes()
    complaint = stage.signed("a", Complaint("a", stage.aggregator.round_id, "why", accused, bytes(64)))
    refuses(stage, complaint, PeerError, "a member twice, or of one that is not on the roster", "a")
    assert not stage.aggregator.complaints


def test_a_complaint_can_be_as_long_as_the_cohort_and_no_longer(stage):
    stage.to_inboxes()
    complaint = Complaint("a", stage.aggregator.round_id, "why", ("b",) * 257, bytes(64))
    with pytest.raises(WireError, match="found 257 items, expected 0 to 256"):
        stage.send(stage.signed("a", complaint))


def test_what_a_member_complains_of_is_taken_whatever_its_refusal_says(stage):
    """Its own refusal may name strangers, or hold what a library said on two lines."""
    assert stage.members["a"].complaint(PeerError("why")) is None  # the round has no name yet
    stage.to_inboxes()
    error = PeerError("two\nlines \x1b[2J " + "x" * 900, culprits=["c", "zoe", "c", "b"])
    complaint = stage.members["a"].complaint(error)
    stage.send(complaint)
    assert stage.aggregator.complaints["a"] == complaint
    assert complaint.culprits == ("b", "c")
    assert complaint.reason.startswith("two lines  [2J xxx")
    assert len(complaint.reason) == 500


def test_complaints_about_everybody_stop_nothing(stage):
    stage.to_inboxes()
    for _ in range(3):
        lie = Complaint("e", stage.aggregator.round_id, "they all lie", tuple("abcd"), bytes(64))
        stage.send(stage.signed("e", lie))
    finishes(stage, "abcd")
    assert stage.aggregator.total.culprits == ()


# ----- bad shares dealt --------------------------------------------------------------------------


def lie_about(stage, who, recipients, *, seed=False, key=False):
    """`who` deals `recipients` other shares of its self seed, its mask key or both."""

    def change(name, message):
        if name != who:
            return message
        pieces = {}
        for recipient in recipients:
            genuine = dealt_piece(stage, who, recipient)
            random = seeded(recipient.encode())
            bad = [shamir.draw(random).to_bytes(32, "little") for _ in range(2)]
            pieces[recipient] = (bad[0] if seed else genuine[0]) + (bad[1] if key else genuine[1])
        return reseal(stage, who, message, pieces)

    return change


def dealt_piece(stage, dealer, recipient):
    """What `dealer` really dealt, from a replay of its randomness."""
    member = stage.members[dealer]
    source = seeded(stage.seed + dealer.encode())
    source(96)  # two private keys and a nonce
    n, t = len(stage.names), member._cohort.threshold
    seed = shamir.draw(source).to_bytes(32, "little")
    assert seed == member._dealing.self_seed
    at = member._cohort.index[recipient] - 1
    return (
        shamir.split(seed, n, t, source)[at],
        shamir.split(member._secrets.mask_key, n, t, source)[at],
    )


def test_one_badly_dealt_share_is_a_dispute_and_proves_nothing():
    stage = Stage(7)
    stage.advertise()
    stage.share(change=lie_about(stage, "d", "a", seed=True))
    for step in (stage.mask, stage.agree, stage.reveal):
        step("abcdefg")
    assert stage.total() == stage.expected("abcdefg")
    assert stage.aggregator.total.culprits == ()
    assert stage.aggregator.total.disputes == (("d", "a"),)


@pytest.mark.parametrize("victims", ["bc", "ab"])
def test_a_dealer_of_bad_self_seed_shares_is_named_and_not_those_who_held_them(victims):
    stage = Stage(7)
    stage.advertise()
    stage.share(change=lie_about(stage, "d", victims, seed=True))
    for step in (stage.mask, stage.agree, stage.reveal):
        step("abcdefg")
    assert stage.total() == stage.expected("abcdefg")
    assert stage.aggregator.total.culprits == ("d",)  # else two members lied, and one is borne
    assert stage.aggregator.total.disputes == ()


def test_a_dealer_of_bad_mask_key_shares_that_drops_is_named():
    stage = Stage(11, tolerated=1)
    stage.advertise()
    stage.share(change=lie_about(stage, "d", "ab", key=True))
    survivors = "abcefghijk"
    for step in (stage.mask, stage.agree, stage.reveal):
        step(survivors)
    assert stage.total() == stage.expected(survivors)
    assert stage.aggregator.total.culprits == ("d",)


def test_bad_mask_key_shares_of_a_dealer_that_stays_hurt_nobody(stage):
    stage.advertise()
    stage.share(change=lie_about(stage, "c", "abde", key=True))
    finishes(stage, "abcde")
    assert stage.aggregator.total.culprits == ()


@pytest.mark.parametrize(
    ("kind", "who", "is_proven"), [("seed", "abcde", True), ("key", "abde", False), ("key", "abdef", True)]
)
def test_shares_that_nobody_can_put_together_abort_the_round_and_name_the_dealer_if_proven(
    kind, who, is_proven
):
    """With one share more than the threshold, and one liar borne, an honest dealer's would come out."""
    stage = Stage(6 if "f" in who else 5)
    stage.advertise()
    stage.share(change=lie_about(stage, "c", [name for name in stage.names if name != "c"], **{kind: True}))
    stage.mask(who)
    stage.agree(who)
    with pytest.raises(RoundAborted, match=r"shares of c .*do not give its secret back") as abort:
        stage.reveal(who)
    assert abort.value.culprits == abort.value.proven == (("c",) if is_proven else ())
    assert ("that is proven" in abort.value.hint) is is_proven
    assert stage.aggregator.phase is Phase.ABORTED
    assert stage.aggregator.total is None
    stage.aggregator.abort()  # again: changes nothing
    assert stage.aggregator.awaited == []
    assert stage.aggregator.needed == 0


@pytest.mark.parametrize("who", ["abdef", "abcdef"])
def test_a_mask_key_that_is_not_the_half_of_what_was_advertised_aborts_only_if_its_owner_drops(who):
    stage = Stage(6)
    other = public_key(b"\x07" * 32)
    lying = stage.signed("c", replace(stage.members["c"].advertise, mask_key=other))
    stage.members["c"].advertise = lying
    stage.advertise()
    stage.share()
    stage.mask(who)
    stage.agree(who)
    if "c" in who:
        stage.reveal(who)  # a spoiled sum, not a leak: poisoning is not claimed away (§2)
        assert stage.total() != stage.expected(who)
    else:
        with pytest.raises(RoundAborted, match="shares of c") as abort:
            stage.reveal(who)
        assert abort.value.proven == ("c",)


@pytest.mark.parametrize("n", [4, 5, 9, 26])
def test_a_commitment_to_another_seed_aborts_and_is_proven(n):
    stage = Stage(n)
    stage.advertise()

    def another(name, message):
        if name != "c":
            return message
        stage.members["c"]._shares = stage.signed(
            "c", replace(message, commitment=hashlib.sha256(b"").digest())
        )
        return stage.members["c"]._shares

    stage.share(change=another)
    stage.mask(stage.names)
    stage.agree(stage.names)
    with pytest.raises(RoundAborted, match="shares of c") as abort:
        stage.reveal(stage.names)
    assert abort.value.culprits == abort.value.proven == ("c",)


# ----- wrong shares revealed ---------------------------------------------------------------------


def wrong_shares(stage, liars, *, only=None):
    def change(name, message):
        if name not in liars:
            return message
        shares = list(message.self_shares)
        for at in range(len(shares)) if only is None else only:
            shares[at] = hashlib.sha256(name.encode() + bytes([at])).digest()
        return stage.signed(name, replace(message, self_shares=tuple(shares)))

    return change


@pytest.mark.parametrize(("liars", "named"), [("a", "a"), ("e", "e"), ("g", ""), ("ag", ""), ("bc", "")])
def test_the_sum_comes_out_in_spite_of_wrong_shares_and_only_who_is_proven_is_named(liars, named):
    """g is not asked: the first five are read. Of two liars where one is borne nothing is proven."""
    stage = Stage(7)
    stage.to_endorsements()
    assert stage.aggregator.threshold == 5
    total = stage.reveal("abcdefg", wrong_shares(stage, liars))
    assert stage.total() == stage.expected("abcdefg")
    assert total.culprits == tuple(named)


def test_one_wrong_share_leaves_dealer_and_holder_in_dispute():
    """Whether the one dealt it or the other revealed it wrong, nobody can tell."""
    stage = Stage(7)
    stage.to_endorsements()
    total = stage.reveal("abcdefg", wrong_shares(stage, "a", only=[3]))
    assert stage.total() == stage.expected("abcdefg")
    assert total.culprits == ()
    assert total.disputes == (("d", "a"),)


def test_a_member_that_reveals_a_wrong_share_of_its_own_secret_is_proven():
    stage = Stage(7)
    stage.to_endorsements()
    total = stage.reveal("abcdefg", wrong_shares(stage, "a", only=[0]))
    assert total.culprits == ("a",)


def test_wrong_shares_without_a_spare_one_abort_the_round(stage):
    stage.to_endorsements("abcd")
    with pytest.raises(RoundAborted, match="do not give its secret back") as abort:
        stage.reveal("abcd", wrong_shares(stage, "b"))
    assert "which of the two cannot be told" in abort.value.hint
    assert abort.value.culprits == ()
    assert stage.aggregator.total is None


@pytest.mark.parametrize("counts", [(4, 0), (6, 0), (5, 1), (0, 0)])
def test_a_wrong_number_of_shares_is_refused(stage, counts):
    endorsements = stage.to_endorsements()
    reveal = stage.ask("b", endorsements)
    message = stage.signed(
        "b", replace(reveal, self_shares=(bytes(32),) * counts[0], key_shares=(bytes(32),) * counts[1])
    )
    refuses(stage, message, PeerError, f"revealed {counts[0]} and {counts[1]} shares, expected 5 and 0", "b")
    stage.send(reveal)


# ----- mask and consistency ----------------------------------------------------------------------


def test_a_vector_that_is_not_the_signed_one_is_refused(stage):
    inboxes = stage.to_inboxes()
    vector = stage.ask("b", inboxes["b"])
    for main, auxiliary in [
        (vector.main + np.uint32(1), vector.auxiliary),
        (vector.main, vector.auxiliary[::-1]),
    ]:
        refuses(
            stage, MaskedVector(vector.head, main, auxiliary), PeerError, "not the one that it signed", "b"
        )
    stage.send(vector)
    for name in "acde":
        stage.send(stage.ask(name, inboxes[name]))
    stage.aggregator.close()
    finishes(stage, "abcde")


@pytest.mark.parametrize(("d", "a"), [(4, 3), (6, 3), (5, 2), (5, 4)])
def test_a_vector_of_another_length_is_refused(stage, d, a):
    vector = stage.ask("b", stage.to_inboxes()["b"])
    other = MaskedVector(vector.head, np.zeros(d, np.uint32), np.zeros(a, np.uint64))
    with pytest.raises(PeerError, match=f"sent {d} and {a} words, expected 5 and 3"):
        stage.aggregator.receive(other)


def test_the_same_head_with_another_vector_is_not_added_again(stage):
    inboxes = stage.to_inboxes()
    vector = stage.ask("b", inboxes["b"])
    stage.send(vector)
    stage.send(vector)
    stage.send(MaskedVector(vector.head, vector.main + np.uint32(1), vector.auxiliary))
    for name in "acde":
        stage.send(stage.ask(name, inboxes[name]))
    stage.aggregator.close()
    finishes(stage, "abcde")


@pytest.mark.parametrize("field", ["r2", "round_id", "digest"])
def test_a_signed_head_with_a_wrong_field_is_refused(stage, field):
    vector = stage.ask("b", stage.to_inboxes()["b"])
    head = stage.signed("b", replace(vector.head, **{field: bytes(32)}))
    reason = {"r2": "another list of who dealt", "round_id": "another round", "digest": "not the one"}[field]
    refuses(stage, MaskedVector(head, vector.main, vector.auxiliary), PeerError, reason, "b")


def test_a_vector_under_another_members_name_is_refused(stage):
    vector = stage.ask("b", stage.to_inboxes()["b"])
    head = stage.signed("b", replace(vector.head, member="c"))
    refuses(stage, MaskedVector(head, vector.main, vector.auxiliary), PeerError, "pinned key of c", "c")


def test_a_vector_of_one_who_dealt_no_shares_is_refused(stage):
    stage.advertise()
    inboxes = stage.share("abcd")
    vector = stage.ask("b", inboxes["b"])
    head = stage.signed("e", replace(vector.head, member="e"))
    refuses(
        stage, MaskedVector(head, vector.main, vector.auxiliary), OutOfPhase, "missed an earlier one", "e"
    )


def test_a_signature_over_another_survivor_set_is_refused(stage):
    consistency = stage.ask("b", stage.to_survivors())
    other = stage.signed("b", replace(consistency, survivors=bytes(32)))
    refuses(stage, other, PeerError, "another survivor set", "b")
    stage.agree("abcde")
    finishes(stage, "abcde")


def test_one_who_did_not_sign_the_survivors_may_not_unmask(stage):
    stage.to_survivors()
    stage.agree("abcd")
    reveal = stage.ask("a", stage.aggregator.endorsements())
    forged = stage.signed("e", replace(reveal, member="e"))
    refuses(stage, forged, OutOfPhase, "missed an earlier one", "e")


def test_one_who_signs_late_still_takes_part(stage):
    survivors = stage.to_survivors()
    stage.agree("abcd")
    stage.send(stage.ask("e", survivors))
    assert "e" in stage.aggregator.awaited
    stage.reveal("abcde")
    assert stage.total() == stage.expected("abcde")


# ----- out of phase, twice, after the end --------------------------------------------------------


def all_messages(seed=b"round"):
    """One honest round, message by message: (phase, name, message)."""
    stage, log = Stage(4, seed=seed), []

    def keep(name, message):
        log.append((stage.aggregator.phase, name, message))
        return message

    stage.advertise(change=keep)
    stage.share(change=keep)
    for step in (stage.mask, stage.agree, stage.reveal):
        step("abcd", keep)
    return log


PHASES = [Phase.ADVERTISE, Phase.SHARE, Phase.MASK, Phase.CONSISTENCY, Phase.UNMASK]


@pytest.mark.parametrize("sent_in", [*PHASES, Phase.DONE])
@pytest.mark.parametrize("belongs_to", PHASES)
def test_a_message_out_of_phase_is_refused_and_the_very_same_again_is_not(sent_in, belongs_to):
    log = all_messages()
    stage = Stage(4)
    for phase, _, message in log:
        while stage.aggregator.phase is not phase:
            stage.aggregator.close()
        if phase is sent_in:
            break
        stage.send(message)
    if sent_in is Phase.DONE:
        stage.aggregator.close()
    message = next(m for phase, name, m in log if phase is belongs_to and name == "b")
    order = [*PHASES, Phase.DONE]
    if order.index(belongs_to) <= order.index(sent_in):
        stage.send(message)
        stage.send(message)
    else:
        refuses(
            stage,
            message,
            OutOfPhase,
            f"in phase {sent_in.value}, b sent its message for {belongs_to.value}",
            "b",
        )


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_message_replayed_from_another_round_is_refused(phase):
    log, other = all_messages(), all_messages(b"other")
    stage = Stage(4)
    for at, (of, _, message) in enumerate(log):
        while stage.aggregator.phase is not of:
            stage.aggregator.close()
        if of is phase:
            refuses(stage, other[at][2], PeerError, "another round", log[at][1])
            return
        stage.send(message)


def test_a_late_vector_does_not_reach_the_sum(stage):
    """What arrives after the phase closed is discarded; the self mask still protects it (§4 mask)."""
    inboxes = stage.to_inboxes()
    late = stage.ask("e", inboxes["e"])
    stage.mask("abcd")
    refusal = refuses(stage, late, OutOfPhase, "phase consistency, e sent its message for mask", "e")
    assert "next one" in refusal.hint
    finishes(stage, "abcd")


def test_a_late_vector_stays_masked_by_a_seed_whose_shares_nobody_reveals(stage):
    inboxes = stage.to_inboxes()
    late = stage.ask("e", inboxes["e"])
    seed = stage.members["e"]._dealing.self_seed
    pieces = {name: dealt_piece(stage, "e", name)[0] for name in "abcd"}
    stage.mask("abcd")
    stage.agree("abcd")
    revealed = set()
    for name in "abcd":
        reveal = stage.ask(name, stage.aggregator.endorsements())
        revealed |= set(reveal.self_shares) | set(reveal.key_shares)
    assert not revealed & set(pieces.values())
    assert shamir.combine({at: pieces[name] for at, name in enumerate("abcd", 1)}) == seed
    assert late.head.member == "e"


@pytest.mark.parametrize("phase", PHASES)
def test_closing_below_what_is_needed_aborts_and_says_who_was_missing(phase):
    stage, present = Stage(5), "ab"
    steps = dict(zip(PHASES[1:], (stage.share, stage.mask, stage.agree, stage.reveal), strict=True))
    with pytest.raises(RoundAborted, match=f"phase {phase.value} got 2 of the [34] messages") as abort:  # noqa: PT012
        stage.advertise(present if phase is Phase.ADVERTISE else None)
        for step_phase, step in steps.items():
            step(present if step_phase is phase else "abcde")
    assert abort.value.missing == ("c", "d", "e")
    with pytest.raises(OutOfPhase, match="round is over"):
        stage.aggregator.close()


def test_dealers_too_few_for_the_survivors_needed_abort_before_an_update_is_spent():
    """Otherwise members mask, and spend (§5), for a round that cannot end well."""
    stage = Stage(3, tolerated=0)
    assert stage.parameters.threshold(3) == 2
    assert stage.parameters.quorum(3) == 3
    stage.to_roster()
    with pytest.raises(RoundAborted, match="phase share got 2 of the 3"):
        stage.share("ab")


# ----- whatever it sends -------------------------------------------------------------------------

LOGS = [all_messages(), all_messages(b"other")]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_one_member_sends_the_others_get_their_sum_or_a_reason(data):
    """d mutates, replays, reorders and repeats; a, b and c follow the protocol."""
    stage = Stage(4)
    blamed = []

    def mischief():
        for _ in range(data.draw(st.integers(0, 3))):
            _, _, message = data.draw(st.sampled_from(data.draw(st.sampled_from(LOGS))))
            if not isinstance(message, MaskedVector):
                message = data.draw(
                    st.sampled_from(
                        [
                            message,
                            stage.signed("d", replace(message, member="d")),
                            replace(message, signature=bytes(64)),
                        ]
                    )
                )
            if (message.head if isinstance(message, MaskedVector) else message).member == "d":
                with suppress(ChoralError):
                    stage.send(message)

    def honest(name, question):
        try:
            stage.send(stage.ask(name, question))
        except PeerError as error:
            blamed.append(error.culprits)
            stage.send(stage.complaint(name, error))

    for name in "abc":
        stage.send(stage.members[name].advertise)
    with suppress(RoundAborted):
        for phase in PHASES:
            for name in "abc" if phase is not Phase.ADVERTISE else "":
                if name not in stage.aggregator.complaints:
                    honest(name, question_of(stage, phase, name))
            mischief()
            stage.aggregator.close()
    assert all("d" in culprits for culprits in blamed)
    assert stage.aggregator.phase in (Phase.DONE, Phase.ABORTED)
    if stage.aggregator.phase is Phase.DONE:
        assert set("abc") <= set(stage.aggregator.total.survivors)
    else:
        assert stage.aggregator.total is None


def question_of(stage, phase, name):
    answers = {
        Phase.SHARE: stage.aggregator.roster,
        Phase.MASK: lambda: stage.aggregator.inbox(name),
    }
    answers |= {
        Phase.CONSISTENCY: stage.aggregator.survivors,
        Phase.UNMASK: stage.aggregator.endorsements,
    }
    return answers[phase]()


def test_a_member_that_tolerates_another_number_of_colluders_is_refused_when_shares_are_dealt() -> None:
    """Otherwise its shares would not go with the others', and an honest dealer be accused at the end."""
    stage = Stage(7, minimum=5)
    other = replace(stage.parameters, tolerated=3)
    assert other.threshold(7) != stage.parameters.threshold(7)
    stage.members["c"] = stage.member("c", parameters=other)
    roster = stage.to_roster()
    with pytest.raises(PeerError, match="another round") as refused:
        stage.send(stage.ask("c", roster))
    assert refused.value.culprits == ("c",)
    for name in "abdefg":
        stage.send(stage.ask(name, roster))
    stage.aggregator.close()
    assert "c" not in stage.aggregator.received(Phase.SHARE)
