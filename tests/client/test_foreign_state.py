"""A member that finds the state of another federation says whose it is, and touches nothing."""

from __future__ import annotations

import pytest

from choral.client.journal import Journal
from choral.client.model_log import ModelLog
from choral.errors import RecordError
from choral.federation import records
from choral.federation.enrolment import Participant
from choral.learning import rules
from house import make_folder


def first(aggregator: Participant):
    return records.first(aggregator.identity, aggregator.task.digest, bytes(32), rules.state_digest({}))


@pytest.mark.parametrize("other", ["another task", "another aggregator", "none"])
def test_a_journal_of_another_federation_is_named(tmp_path, other) -> None:
    here = make_folder(tmp_path / "here", 3)
    there = make_folder(tmp_path / "there", 3, **({"rounds": 99} if other == "another task" else {}))
    theirs = Participant.load((here if other == "none" else there) / "aggregator")
    me = Participant.load(here / "m1")
    journal = Journal(tmp_path / "state")
    journal.saw(first(theirs))
    try:
        if other == "none":
            ModelLog(me, None, journal, print)  # type: ignore[arg-type]
            return
        with pytest.raises(RecordError, match="that of a member of another federation") as refused:
            ModelLog(me, None, journal, print)  # type: ignore[arg-type]
        assert str(tmp_path / "state") in refused.value.reason
        assert me.task.digest.hex()[:12] in refused.value.reason
        assert "move away" in (refused.value.hint or "")
        assert journal.head() == first(theirs)
    finally:
        journal.close()
