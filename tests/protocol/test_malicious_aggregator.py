"""An aggregator that lies meets the real member (PROTOCOL §2, §4). Every lie is refused by what it was.

No members collude here unless a test says so; `Stage` plays the honest part of the aggregator.
"""

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from choral.errors import ChoralError, CohortTooSmall, OutOfPhase, PeerError, WireError
from choral.primitives.agreement import public_key
from choral.protocol.member import State
from choral.protocol.messages import (
    Advertise,
    Consistency,
    Dealt,
    Endorsement,
    Endorsements,
    Inbox,
    Reveal,
    Roster,
    Survivors,
)
from choral.protocol.transcript import sign, survivors_digest
from stage import CTX, Stage, enrol, reseal, through_wire


def refuses(stage, name, message, error, reason):
    """`name` refuses `message`, is out of the round for good and has no secret left to give away."""
    member = stage.members[name]
    with pytest.raises(error, match=reason) as refusal:
        stage.ask(name, message)
    assert member.state is State.ABORTED
    for secret in ("_secrets", "_dealing", "_held", "_vector", "_auxiliary"):
        assert not hasattr(member, secret)
    with pytest.raises(OutOfPhase, match="left the round") as later:
        stage.ask(name, message)
    assert refusal.value.reason in later.value.reason
    return refusal.value


def with_entry(roster, at, **changes):
    return Roster((*roster.members[:at], replace(roster.members[at], **changes), *roster.members[at + 1 :]))


# ----- the roster --------------------------------------------------------------------------------


@pytest.fixture
def stage():
    return Stage(5)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_cohort_below_the_members_own_minimum_is_refused(stage, size):
    roster = stage.to_roster()
    refuses(stage, "a", Roster(roster.members[:size]), CohortTooSmall, f"cohort of {size} .*accepts 3")


def test_a_cohort_of_one_is_refused_even_by_the_most_careless_configuration():
    stage = Stage(2, minimum=2)
    roster = stage.to_roster()
    refuses(stage, "a", Roster(roster.members[:1]), CohortTooSmall, "cohort of 1")


def test_the_minimum_is_the_members_and_not_the_aggregators(stage):
    strict = replace(stage.parameters, minimum=5)
    stage.members["a"] = stage.member("a", parameters=strict)
    roster = stage.advertise(["a", "b", "c", "d"])
    refuses(stage, "a", roster, CohortTooSmall, "cohort of 4 .*accepts 5")


def test_a_cohort_too_large_for_the_ring_is_refused():
    stage = Stage(5, enrolled=8)
    roster = stage.to_roster()
    extra = tuple(
        sign(identity, replace(roster.members[0], member=name, seal_key=bytes([at]) * 32))
        for at, (name, identity) in enumerate(stage.identities.items())
        if name not in stage.names
    )
    refusal = refuses(stage, "a", Roster(roster.members + extra), PeerError, "cohort of 8.*planned for 5")
    assert refusal.rule == "4.2.1"  # the aggregator's fault, and no reason for a process to end


def test_a_stranger_is_refused_by_name(stage):
    roster = stage.to_roster()
    identity = enrol(1, b"stranger")["a"]
    stranger = sign(identity, replace(roster.members[2], member="stranger"))
    refusal = refuses(
        stage, "a", Roster((*roster.members[:2], stranger, *roster.members[3:])), PeerError, "not enrolled"
    )
    assert refusal.culprits == ("stranger",)


def test_a_name_twice_is_refused(stage):
    roster = stage.to_roster()
    doubled = Roster((*roster.members[:3], roster.members[2], *roster.members[4:]))
    assert refuses(stage, "a", doubled, PeerError, "twice").culprits == ("c",)


def test_members_out_of_order_are_refused(stage):
    roster = stage.to_roster()
    refuses(stage, "a", Roster(roster.members[::-1]), PeerError, "ascending order")


def test_a_member_of_another_model_is_refused(stage):
    """PFA22: with different models, what does not cancel singles out one member's update."""
    roster = stage.to_roster()
    elsewhere = stage.member("c", ctx=bytes(32)).advertise
    mixed = Roster((*roster.members[:2], elsewhere, *roster.members[3:]))
    assert refuses(stage, "a", mixed, PeerError, "another model or task").culprits == ("c",)


def test_a_whole_roster_of_another_model_is_refused(stage):
    other = Stage(5, ctx=bytes(32))
    refuses(stage, "a", other.to_roster(), PeerError, "another model or task")


@pytest.mark.parametrize("field", ["seal_key", "mask_key", "nonce", "signature"])
def test_a_changed_advertisement_of_another_member_is_refused(stage, field):
    roster = stage.to_roster()
    value = b"\x09" * (64 if field == "signature" else 32)
    refusal = refuses(stage, "a", with_entry(roster, 3, **{field: value}), PeerError, "not signed")
    assert refusal.culprits == ("d",)


def test_a_key_swapped_between_two_members_is_refused(stage):
    roster = stage.to_roster()
    swapped = with_entry(roster, 3, mask_key=roster.members[2].mask_key)
    refuses(stage, "a", swapped, PeerError, "d is not signed")


@pytest.mark.parametrize("field", ["seal_key", "mask_key", "nonce"])
def test_a_change_to_the_members_own_entry_is_refused(stage, field):
    roster = stage.to_roster()
    refuses(stage, "a", with_entry(roster, 0, **{field: b"\x09" * 32}), PeerError, "a is not signed")


def test_the_members_own_entry_of_an_earlier_round_is_refused(stage):
    """Its signature is good, its secrets are gone or, worse, were revealed."""
    old = Stage(5, seed=b"yesterday").members["a"].advertise
    roster = stage.to_roster()
    refuses(stage, "a", Roster((old, *roster.members[1:])), PeerError, "own entry")


def test_a_roster_without_the_member_is_refused(stage):
    roster = stage.to_roster()
    refuses(stage, "a", Roster(roster.members[1:]), PeerError, "own entry")


def test_a_replayed_roster_of_an_earlier_round_is_refused(stage):
    refuses(stage, "a", Stage(5, seed=b"yesterday").to_roster(), PeerError, "own entry")


def test_a_roster_of_colluders_with_equal_keys_is_refused(stage):
    """Signed by their owners, so the signatures are good."""
    roster = stage.to_roster()
    same = roster.members[1].mask_key
    for field in ("mask_key", "seal_key"):
        fresh = Stage(5)
        entry = fresh.signed("c", replace(roster.members[2], **{field: same}))
        forged = Roster((*roster.members[:2], entry, *roster.members[3:]))
        refuses(fresh, "a", forged, PeerError, "equal")


@pytest.mark.parametrize(("field", "after"), [("seal_key", "roster"), ("mask_key", "inbox")])
def test_a_small_order_key_of_a_colluder_is_refused_by_its_owners_name(stage, field, after):
    entry = stage.signed("c", replace(stage.members["c"].advertise, **{field: bytes([1]) + bytes(31)}))
    roster = Roster(tuple(entry if e.member == "c" else e for e in stage.to_roster().members))
    if after == "roster":
        assert refuses(stage, "a", roster, PeerError, "all-zero.*of c").culprits == ("c",)
        return
    sent = {name: stage.ask(name, roster) for name in "abd"}
    sent["e"] = stage.ask("e", roster)
    stage.members["c"].advertise = entry  # the colluder follows the protocol with its bad key
    sent["c"] = stage.ask("c", roster)
    stage.aggregator._received[stage.aggregator.phase].update(sent)
    dealt = tuple(entry for entry in deal_entries(sent))
    inbox = Inbox(stage.members["a"].round_id, dealt, tuple(sent[e.member].seals[0] for e in dealt))
    assert refuses(stage, "a", inbox, PeerError, "all-zero.*of c").culprits == ("c",)


def deal_entries(sent):
    return [Dealt(name, sent[name].commitment, sent[name].signature) for name in sorted(sent)]


# ----- the inbox ---------------------------------------------------------------------------------


def test_an_inbox_of_another_round_is_refused(stage):
    stage.to_inboxes()
    replayed = Stage(5, seed=b"yesterday").to_inboxes()["a"]
    refuses(stage, "a", replayed, PeerError, "a message of round")


def test_an_old_inbox_under_the_new_rounds_name_is_refused(stage):
    stage.to_inboxes()
    old = Stage(5, seed=b"yesterday").to_inboxes()["b"]
    renamed = replace(old, round_id=stage.members["b"].round_id)
    refuses(stage, "b", renamed, PeerError, "own commitment|not signed")


def test_too_few_dealers_are_refused(stage):
    inbox = stage.to_inboxes()["a"]
    assert stage.members["a"]._cohort.threshold == 4
    few = replace(inbox, dealt=inbox.dealt[:3], seals=inbox.seals[:3])
    refuses(stage, "a", few, CohortTooSmall, "3 of 5 members dealt shares, the threshold is 4")


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_list_of_another_length_is_refused(stage, extra):
    inbox = stage.to_inboxes()["a"]
    seals = inbox.seals[:-1] if extra < 0 else (*inbox.seals, b"")
    refuses(stage, "a", replace(inbox, seals=seals), PeerError, f"holds {5 + extra} seals for 5")


def test_an_inbox_without_the_member_is_refused(stage):
    inbox = stage.to_inboxes()["a"]
    refuses(stage, "a", replace(inbox, dealt=inbox.dealt[1:], seals=inbox.seals[1:]), PeerError, "not among")


def test_a_dealer_twice_or_from_outside_or_out_of_order_is_refused():
    for change, reason in [
        (lambda d: (*d[:2], d[1], *d[3:]), "twice"),
        (lambda d: (*d[:4], replace(d[4], member="z")), "not among the roster"),
        (lambda d: (d[1], d[0], *d[2:]), "not in roster order"),
    ]:
        stage = Stage(5)
        inbox = stage.to_inboxes()["a"]
        refuses(stage, "a", replace(inbox, dealt=change(inbox.dealt)), PeerError, reason)


def test_a_changed_commitment_of_the_member_is_refused(stage):
    inbox = stage.to_inboxes()["a"]
    changed = (replace(inbox.dealt[0], commitment=bytes(32)), *inbox.dealt[1:])
    refuses(stage, "a", replace(inbox, dealt=changed), PeerError, "own commitment was changed")


@pytest.mark.parametrize("change", [{"commitment": bytes(32)}, {"signature": bytes(64)}])
def test_a_changed_commitment_of_another_member_is_refused(stage, change):
    inbox = stage.to_inboxes()["a"]
    changed = (*inbox.dealt[:2], replace(inbox.dealt[2], **change), *inbox.dealt[3:])
    refusal = refuses(stage, "a", replace(inbox, dealt=changed), PeerError, "commitment of c is not signed")
    assert refusal.culprits == ("c",)


def test_seals_swapped_between_senders_are_refused(stage):
    inbox = stage.to_inboxes()["a"]
    one, two, three, four, five = inbox.seals
    swapped = replace(inbox, seals=(one, three, two, four, five))
    assert refuses(stage, "a", swapped, PeerError, "seal from b does not open").culprits == ("b",)


def test_seals_swapped_between_recipients_are_refused(stage):
    inboxes = stage.to_inboxes()
    swapped = replace(inboxes["a"], seals=(b"", b"", *inboxes["b"].seals[2:]))
    refuses(stage, "a", swapped, PeerError, "seal from b does not open")
    third = (*inboxes["c"].seals[:1], b"", inboxes["b"].seals[2], *inboxes["c"].seals[3:])
    refuses(stage, "c", replace(inboxes["c"], seals=third), PeerError, "seal from b does not open")


def test_a_members_own_seal_does_not_come_back_as_another_members(stage):
    """A reflection: both directions of a pair have keys of their own."""
    inboxes = stage.to_inboxes()
    reflected = (b"", inboxes["b"].seals[0], *inboxes["a"].seals[2:])
    refuses(stage, "a", replace(inboxes["a"], seals=reflected), PeerError, "seal from b does not open")


def test_seals_replayed_from_another_round_are_refused(stage):
    inbox = stage.to_inboxes()["a"]
    old = Stage(5, seed=b"yesterday").to_inboxes()["a"]
    mixed = replace(inbox, seals=(b"", old.seals[1], *inbox.seals[2:]))
    refuses(stage, "a", mixed, PeerError, "seal from b does not open")


@pytest.mark.parametrize("piece", [b"", bytes(32), bytes(65)])
def test_a_seal_of_another_size_is_refused(stage, piece):
    inboxes = stage.to_inboxes()
    lying = reseal(stage, "b", stage.sent["b"][0], {"a": piece})
    seals = (b"", lying.seals[0], *inboxes["a"].seals[2:])
    refusal = refuses(stage, "a", replace(inboxes["a"], seals=seals), PeerError, "seal from b does not open")
    assert refusal.culprits == ("b",)


# ----- survivors ---------------------------------------------------------------------------------


def test_survivors_below_the_threshold_are_refused(stage):
    survivors = stage.to_survivors()
    few = replace(survivors, members=survivors.members[:3])
    refuses(stage, "a", few, CohortTooSmall, "sum would be over 3 members, this member accepts 4")


def test_survivors_below_the_members_own_minimum_are_refused():
    stage = Stage(5, minimum=5)
    survivors = stage.to_survivors()
    few = replace(survivors, members=survivors.members[:4])
    refuses(stage, "a", few, CohortTooSmall, "over 4 members, this member accepts 5")


def test_a_survivor_set_of_one_is_refused(stage):
    survivors = stage.to_survivors()
    refuses(stage, "a", replace(survivors, members=("a",)), CohortTooSmall, "over 1 members")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ("bcde", "not among the survivors"),
        ("aabcde", "named twice"),
        ("abcdd", "named twice"),
        ("abcdz", "not among who dealt"),
        ("bacde", "not in roster order"),
        ("", "not among the survivors"),
    ],
)
def test_a_survivor_list_that_cannot_be_is_refused(stage, members, reason):
    survivors = stage.to_survivors()
    refuses(stage, "a", replace(survivors, members=tuple(members)), PeerError, reason)


def test_survivors_who_never_dealt_shares_are_refused():
    stage = Stage(5)
    stage.advertise()
    stage.share("abcd")
    stage.mask("abcd")
    survivors = Survivors(stage.members["a"].round_id, tuple("abcde"))
    refuses(stage, "a", survivors, PeerError, "not among who dealt shares")


def test_survivors_of_another_round_are_refused(stage):
    stage.to_survivors()
    refuses(stage, "a", Stage(5, seed=b"yesterday").to_survivors(), PeerError, "a message of round")


def test_a_long_list_of_names_is_refused_at_once(stage):
    """It does not even arrive; and if it did, repeated names would not cost their square."""
    stage.to_survivors()
    names = tuple(str(at) for at in range(30_000)) * 2
    survivors = Survivors(stage.members["a"].round_id, names)
    with pytest.raises(WireError, match="found 60005 items"):
        through_wire(survivors)
    with pytest.raises(PeerError, match="named twice"):
        stage.members["a"].receive(survivors)


def test_asking_twice_with_different_survivors_ends_the_round(stage):
    """Once a member dropped and once it is there: the difference would be its update."""
    survivors = stage.to_survivors()
    stage.ask("a", replace(survivors, members=tuple("abcd")))
    refuses(stage, "a", survivors, OutOfPhase, "second, different Survivors")


def test_asking_again_with_the_same_survivors_gives_the_same_signature(stage):
    survivors = stage.to_survivors()
    assert stage.ask("a", survivors) == stage.ask("a", survivors)


# ----- endorsements ------------------------------------------------------------------------------


def endorsed(stage, members, signers, **changes):
    """What `signers` would sign for a survivor set of `members`, whatever they were asked."""
    victim = stage.members["a"]
    content = {
        "round_id": victim.round_id,
        "r2": victim._held.r2,
        "survivors": survivors_digest(members),
    } | changes
    entries = []
    for name in signers:
        message = Consistency(member=name, signature=bytes(64), **content)
        entries.append(Endorsement(name, stage.signed(name, message).signature))
    return Endorsements(victim.round_id, tuple(entries))


def test_two_survivor_lists_leave_both_sides_without_enough_signatures(stage):
    survivors = stage.to_survivors()
    sides = {
        "a": tuple("abcd"),
        "b": tuple("abcde"),
        "c": tuple("abcd"),
        "d": tuple("abcde"),
        "e": tuple("abcde"),
    }
    signatures = {
        name: Endorsement(name, stage.ask(name, replace(survivors, members=side)).signature)
        for name, side in sides.items()
    }
    for name, side in sides.items():
        same = tuple(signatures[other] for other in side if sides[other] == side)
        message = Endorsements(survivors.round_id, same)
        refuses(stage, name, message, CohortTooSmall, "signed the survivor set, the threshold is 4")


def test_signatures_over_another_survivor_set_are_refused(stage):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    refusal = refuses(stage, "a", endorsed(stage, "abcd", "bcd"), PeerError, "b signed another survivor set")
    assert refusal.culprits == ("b",)
    assert "single updates" in refusal.hint


@pytest.mark.parametrize("changes", [{"r2": bytes(32)}, {"round_id": bytes(32)}])
def test_signatures_over_other_dealers_or_another_round_are_refused(stage, changes):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    message = endorsed(stage, survivors.members, "abcde", **changes)
    refuses(stage, "a", message, PeerError, "a signed another survivor set")


def test_forged_signatures_are_refused(stage):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    good = endorsed(stage, survivors.members, "abcde")
    forged = replace(good.entries[4], signature=bytes(64))
    message = replace(good, entries=(*good.entries[:4], forged))
    assert refuses(stage, "a", message, PeerError, "e signed another").culprits == ("e",)


def test_a_signature_under_another_name_is_refused(stage):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    good = endorsed(stage, survivors.members, "abcd").entries
    message = Endorsements(survivors.round_id, (*good[:3], replace(good[2], member="d")))
    refuses(stage, "a", message, PeerError, "d signed another")


def test_a_signature_of_another_kind_of_message_is_no_endorsement(stage):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    good = endorsed(stage, survivors.members, "abcd").entries
    masked = stage.sent["d"][-1].head.signature
    message = Endorsements(survivors.round_id, (*good[:3], replace(good[3], signature=masked)))
    refuses(stage, "a", message, PeerError, "d signed another")


def test_duplicates_do_not_count_toward_the_threshold(stage):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    good = endorsed(stage, survivors.members, "abc").entries
    message = Endorsements(survivors.round_id, (*good, good[2]))
    assert refuses(stage, "a", message, PeerError, "twice").culprits == ("c",)


def test_a_signer_who_did_not_survive_does_not_count(stage):
    survivors = stage.to_survivors()
    four = replace(survivors, members=tuple("abcd"))
    stage.ask("a", four)
    message = endorsed(stage, four.members, "abce")
    assert refuses(stage, "a", message, PeerError, "not among the survivors").culprits == ("e",)


@pytest.mark.parametrize("signers", ["", "a", "abc"])
def test_fewer_signatures_than_the_threshold_are_refused(stage, signers):
    survivors = stage.to_survivors()
    stage.ask("a", survivors)
    message = endorsed(stage, survivors.members, signers)
    refuses(stage, "a", message, CohortTooSmall, f"{len(signers)} members signed .*threshold is 4")


def test_endorsements_of_another_round_are_refused(stage):
    stage.to_endorsements()
    refuses(stage, "a", Stage(5, seed=b"yesterday").to_endorsements(), PeerError, "a message of round")


def test_a_second_set_of_endorsements_gets_nothing_more(stage):
    endorsements = stage.to_endorsements()
    first = stage.ask("a", endorsements)
    assert stage.ask("a", endorsements) == first
    with pytest.raises(OutOfPhase, match="second, different"):
        stage.ask("a", replace(endorsements, entries=endorsements.entries[:4]))
    assert stage.members["a"].state is State.DONE


# ----- one member in both lists ------------------------------------------------------------------


def test_no_reveal_holds_both_kinds_of_share_of_anybody(stage):
    """There is no message that names two lists: a member derives the second from the first."""
    stage.to_inboxes()
    survivors = stage.mask("abcd")
    endorsements = stage.agree("abcd")
    reveal = stage.ask("a", endorsements)
    held = Stage(5)
    held.to_inboxes()
    held.ask("a", held.aggregator.inbox("a"))
    shares = held.members["a"]._held.shares
    assert reveal.self_shares == tuple(shares[name][0] for name in survivors.members)
    assert reveal.key_shares == (shares["e"][1],)
    revealed = {*reveal.self_shares, *reveal.key_shares}
    for name in "abcd":
        assert shares[name][1] not in revealed
    assert shares["e"][0] not in revealed


# ----- out of order ------------------------------------------------------------------------------


def genuine(stage):
    """One round's messages to `a`, as an honest aggregator would have sent them."""
    roster = stage.to_roster()
    inbox = stage.share()["a"]
    survivors = stage.mask(stage.names)
    endorsements = stage.agree(stage.names)
    return [roster, inbox, survivors, endorsements]


@pytest.mark.parametrize("done", range(4))
@pytest.mark.parametrize("then", range(4))
def test_a_message_out_of_its_turn_ends_the_round(done, then):
    messages = genuine(Stage(5))
    stage = Stage(5)
    for message in messages[:done]:
        stage.ask("a", message)
    if then == done:
        stage.ask("a", messages[then])
    elif then < done:
        assert stage.ask("a", messages[then]) == stage.sent["a"][then]  # a retry, answered as before
    else:
        refuses(stage, "a", messages[then], OutOfPhase, "came while waiting for")


@pytest.mark.parametrize("done", range(1, 4))
def test_a_second_different_message_of_any_kind_ends_the_round(done):
    messages, others = genuine(Stage(5)), genuine(Stage(5, seed=b"other"))
    for kind in range(done):
        stage = Stage(5)
        for message in messages[:done]:
            stage.ask("a", message)
        refuses(stage, "a", others[kind], OutOfPhase, "second, different")


def test_nothing_is_answered_again_after_an_abort():
    messages = genuine(Stage(5))
    stage = Stage(5)
    for message in messages[:3]:
        stage.ask("a", message)
    stage.members["a"].abort("the user stopped it")
    for message in messages:
        with pytest.raises(OutOfPhase, match="the user stopped it"):
            stage.ask("a", message)


def test_a_step_that_breaks_in_the_middle_is_not_taken_again(stage, monkeypatch):
    """Masking is in place: a second pass would send a vector under two masks, or under none."""
    inbox = stage.to_inboxes()["a"]

    def out_of_memory(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("choral.protocol.phases.add_keystreams", out_of_memory)
        with pytest.raises(MemoryError):
            stage.ask("a", inbox)
    assert stage.members["a"].state is State.ABORTED
    with pytest.raises(OutOfPhase, match="MemoryError"):
        stage.ask("a", inbox)


# ----- whatever it sends -------------------------------------------------------------------------


@st.composite
def plays(draw):
    """Genuine messages of two rounds, tampered with, in any order."""
    rounds = (genuine(Stage(4)), genuine(Stage(4, seed=b"other")))
    messages = []
    for _ in range(draw(st.integers(1, 7))):
        message = draw(st.sampled_from(rounds))[draw(st.integers(0, 3))]
        field = draw(st.sampled_from(sorted(vars(message))))
        value = getattr(message, field)
        if isinstance(value, tuple) and draw(st.booleans()):
            what = draw(st.sampled_from(["drop", "double", "reverse", "empty"]))
            at = draw(st.integers(0, max(0, len(value) - 1)))
            value = {
                "drop": value[:at] + value[at + 1 :],
                "double": value[:at] + value[at : at + 1] + value[at:],
                "reverse": value[::-1],
                "empty": (),
            }[what]
            message = replace(message, **{field: value})
        elif draw(st.integers(0, 4)) == 0:
            message = replace(message, round_id=bytes(32)) if hasattr(message, "round_id") else message
        messages.append(message)
    return messages


@settings(max_examples=60, deadline=None)
@given(plays())
def test_whatever_comes_only_choral_errors_come_out_and_an_abort_is_final(messages):
    stage = Stage(4)
    revealed = set()
    for message in messages:
        before = stage.members["a"].state
        try:
            answer = stage.ask("a", message)
        except ChoralError:
            assert stage.members["a"].state in (State.ABORTED, State.DONE)
        else:
            assert before is not State.ABORTED
            if isinstance(answer, Reveal):
                revealed.add(answer)
    assert len(revealed) <= 1


# ----- the theorem of §4 -------------------------------------------------------------------------


@st.composite
def attacks(draw):
    """A cohort with its colluders, and what the aggregator tells each honest member."""
    n = draw(st.integers(3, 7))
    c = draw(st.integers(0, n - 2))
    names = "abcdefg"[:n]
    colluders = set(draw(st.permutations(names))[:c])

    def subset(of):
        gone = draw(st.sets(st.sampled_from(of), max_size=n - (n + c) // 2))
        return tuple(name for name in of if name not in gone)

    dealers = [names, *(subset(names) for _ in range(draw(st.integers(0, 1))))]
    sets = [subset(draw(st.sampled_from(dealers))) for _ in range(draw(st.integers(1, 3)))]
    told = {
        name: (draw(st.sampled_from(dealers)), draw(st.sampled_from(sets)))
        for name in names
        if name not in colluders
    }
    return n, c, names, colluders, told


@settings(max_examples=120, deadline=None)
@given(attacks())
def test_at_most_one_survivor_set_comes_out_and_it_holds_t_minus_c_honest_vectors(attack):
    """Whatever the aggregator shows whom, with c members on its side (§4, why t).

    The secrets that t shares give are counted: honest members' reveals plus everything the colluders hold.
    """
    n, c, names, colluders, told = attack
    stage = Stage(n, tolerated=c, d=1, a=1, minimum=c + 2)
    roster = stage.advertise()
    dealt = {name: stage.ask(name, roster) for name in names}
    for message in dealt.values():
        stage.send(message)
    stage.aggregator.close()
    threshold = stage.members["a"]._cohort.threshold
    statements = {}
    for name, (dealers, survivors) in told.items():
        inbox = stage.aggregator.inbox(name)
        keep = [at for at, entry in enumerate(inbox.dealt) if entry.member in dealers]
        inbox = replace(
            inbox, dealt=tuple(inbox.dealt[at] for at in keep), seals=tuple(inbox.seals[at] for at in keep)
        )
        try:
            vector = stage.ask(name, inbox)
            signature = stage.ask(name, Survivors(inbox.round_id, survivors)).signature
        except PeerError:
            continue
        statements[name] = (vector.head.r2, survivors, signature)

    self_shares, key_shares, summed = {}, {}, []
    for name, (r2, survivors, _) in statements.items():
        entries = []
        for other in survivors:
            if other in colluders:
                digest = survivors_digest(survivors)
                message = Consistency(other, roster_id(stage), r2, digest, bytes(64))
                entries.append(Endorsement(other, stage.signed(other, message).signature))
            elif other in statements and statements[other][:2] == (r2, survivors):
                entries.append(Endorsement(other, statements[other][2]))
        try:
            stage.ask(name, Endorsements(roster_id(stage), tuple(entries)))
        except PeerError:
            continue
        summed.append((r2, survivors))
        for other in survivors:
            self_shares.setdefault(other, set()).add(name)
        for other in set(told[name][0]) - set(survivors):
            key_shares.setdefault(other, set()).add(name)

    for name in set(names) - colluders:
        seed_known = len(self_shares.get(name, ())) + c >= threshold
        key_known = len(key_shares.get(name, ())) + c >= threshold
        assert not (seed_known and key_known), f"both secrets of {name}"
    event(f"members who revealed: {len(summed)}")
    assert len(set(summed)) <= 1
    for _, survivors in summed:
        assert len(set(survivors) - colluders) >= threshold - c >= 2


def roster_id(stage):
    return next(iter(stage.members.values())).round_id


def test_the_attacks_of_the_property_test_do_reach_a_reveal():
    """Or the theorem would hold for want of reveals."""
    stage = Stage(4, tolerated=0, d=1, a=1, minimum=2)
    endorsements = stage.to_endorsements("abc")
    assert isinstance(stage.ask("a", endorsements), Reveal)


def test_advertised_keys_are_those_whose_halves_the_member_keeps(stage):
    message = stage.members["a"].advertise
    secrets = stage.members["a"]._secrets
    assert isinstance(message, Advertise)
    assert message.ctx == CTX
    assert message.seal_key == public_key(secrets.seal_key)
    assert message.mask_key == public_key(secrets.mask_key)
    assert secrets.mask_key.hex() not in repr(secrets)
