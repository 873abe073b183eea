"""A cohort stands on one record; its members may have started a few versions earlier, if all allow it."""

from dataclasses import replace

import pytest

from choral.errors import PeerError
from choral.protocol.aggregator import Phase
from choral.protocol.transcript import round_id, sign
from stage import Stage


def stage_with(allowed, staleness, n=5):
    """Members a, b, … with what they say about their base; `allowed` is everybody's own limit."""
    stage = Stage(n)
    stage.parameters = replace(stage.parameters, staleness=allowed)
    stage.aggregator.parameters = stage.parameters
    stage.members = {
        name: stage.member(name, parameters=stage.parameters, staleness=staleness.get(name, 0))
        for name in stage.names
    }
    return stage


def joined(stage):
    for member in stage.members.values():
        stage.aggregator.receive(member.advertise)
    stage.aggregator.close()
    return stage.aggregator.roster()


@pytest.mark.parametrize("staleness", [{}, {"b": 1}, {"a": 2, "d": 1}])
def test_members_within_the_limit_get_the_sum_of_all(staleness):
    stage = stage_with(2, staleness)
    endorsements = stage.to_endorsements()
    assert len(endorsements.entries) == len(stage.names)
    stage.reveal(stage.names)
    assert stage.total() == stage.expected(stage.names)
    said = {entry.member: entry.staleness for entry in stage.aggregator.roster().members}
    assert said == {name: staleness.get(name, 0) for name in stage.names}


@pytest.mark.parametrize("allowed", [0, 1])
def test_every_member_refuses_a_base_that_is_older_than_its_own_task_allows(allowed):
    """The aggregator lets it through: it is malicious, or its task differs."""
    stage = stage_with(5, {"c": allowed + 1})
    roster = joined(stage)
    for name in stage.names:
        member = stage.member(
            name,
            parameters=replace(stage.parameters, staleness=allowed),
            staleness=stage.members[name].me.staleness,
        )
        with pytest.raises(
            PeerError, match=f"c starts from a model that is {allowed + 1} versions old"
        ) as caught:
            member.receive(roster)
        assert caught.value.culprits == ("c",)


def test_the_aggregator_turns_such_a_member_away_and_the_others_go_on():
    stage = stage_with(1, {"c": 2})
    with pytest.raises(PeerError, match="c starts from a model that is 2 versions old"):
        stage.aggregator.receive(stage.members["c"].advertise)
    assert stage.aggregator.received(Phase.ADVERTISE) == []
    assert stage.aggregator.awaited == stage.names


def test_an_aggregator_cannot_change_what_a_member_said_about_its_base():
    stage = stage_with(3, {"b": 2})
    roster = joined(stage)
    lying = replace(
        roster,
        members=tuple(
            replace(entry, staleness=0) if entry.member == "b" else entry for entry in roster.members
        ),
    )
    with pytest.raises(PeerError, match="advertisement of b is not signed"):
        stage.members["a"].receive(lying)
    with pytest.raises(PeerError, match="b"):
        stage.members["b"].receive(lying)


def test_a_cohort_still_stands_on_one_record():
    """PFA22: a limit above 0 does not let two logs, or two heads of one, meet in a sum."""
    stage = stage_with(5, {})
    roster = joined(stage)
    other = sign(stage.identities["e"], replace(roster.members[4], ctx=bytes(32)))
    with pytest.raises(PeerError, match="e starts from another model or task"):
        stage.members["a"].receive(replace(roster, members=(*roster.members[:4], other)))


def test_what_was_said_about_bases_is_in_the_rounds_name_and_so_in_every_mask():
    fresh, stale = (joined(stage_with(2, staleness)) for staleness in ({}, {"b": 1}))
    assert round_id(bytes(32), fresh, 3) != round_id(bytes(32), stale, 3)
