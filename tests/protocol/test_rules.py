"""Every numbered check of PROTOCOL §4 and §7 has a refusal with its number, and no other number is used.

Another implementation need not match our English: it must refuse by the same number.
"""

import ast
import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import choral.protocol
from choral.errors import ChoralError, OutOfPhase, PeerError, RoundAborted
from choral.protocol import messages, rounds
from choral.protocol.messages import Complaint, MaskedVector, Survivors
from choral.protocol.rounds import ROUND
from choral.protocol.sealing import broken
from choral.protocol.transcript import sign
from stage import Stage

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "round.json").read_text())
CODE = Path(choral.protocol.__file__).parent
SYFT = CODE.parent / "integrations/syft/sealing.py"
SECTIONS = ("4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "7.1", "7.2")


def section(number):
    return re.search(rf"^### {re.escape(number)} .*?(?=^##)", TEXT, re.MULTILINE | re.DOTALL).group()


def numbered(number):
    """The numbers of a section's checks, in the order of the text."""
    return [int(found) for found in re.findall(r"^(\d+)\. ", section(number), re.MULTILINE)]


CHECKS = {f"{number}.{at}" for number in SECTIONS for at in numbered(number)}
IN_VECTORS = {
    case["rule"] for kind in ("bad_bytes", "bad_to_member", "bad_to_aggregator") for case in VECTORS[kind]
}


# ----- refusals that one message to one machine cannot show --------------------------------------


def advertised_too_late():
    stage = Stage(4, enrolled=5)
    stage.to_roster()
    late = sign(stage.identities["e"], replace(stage.members["a"].advertise, member="e"))
    stage.send(late)


def no_room():
    stage = Stage(3, enrolled=4)
    for name in "abc":
        stage.send(stage.members[name].advertise)
    stage.send(sign(stage.identities["d"], replace(stage.members["a"].advertise, member="d")))


def shares_from_outside_the_cohort():
    stage = Stage(4, enrolled=5)
    shares = stage.ask("a", stage.to_roster())
    stage.send(stage.signed("e", replace(shares, member="e")))


def a_vector_of_another_length():
    stage = Stage(4)
    vector = stage.ask("b", stage.to_inboxes()["b"])
    stage.aggregator.receive(MaskedVector(vector.head, np.zeros(9, np.uint32), vector.auxiliary))


def a_secret_that_does_not_come_out():
    stage = Stage(4)
    stage.to_endorsements()

    def lie(name, message):
        return stage.signed(name, replace(message, self_shares=(bytes(32),) * 4))

    stage.reveal("abcd", lie)


def a_complaint_from_outside_the_cohort():
    stage = Stage(4, enrolled=5)
    stage.to_roster()
    stage.send(stage.signed("e", Complaint("e", stage.aggregator.round_id, "why", (), bytes(64))))


def a_member_that_has_left():
    stage = Stage(4)
    survivors = stage.to_survivors()
    stage.members["a"].abort("its user said so")
    stage.ask("a", survivors)


def too_few_messages():
    Stage(4).advertise("ab")


def an_envelope_that_does_not_open():
    """Over real envelopes: tests/integrations/test_sealed_by_syft.py."""
    raise broken("b", "masked vector")


ELSEWHERE = {
    "4.1.3": (advertised_too_late, OutOfPhase),
    "4.1.7": (no_room, OutOfPhase),
    "4.2.11": (shares_from_outside_the_cohort, OutOfPhase),
    "4.3.15": (a_vector_of_another_length, PeerError),
    "4.5.12": (a_secret_that_does_not_come_out, RoundAborted),
    "4.6.4": (a_complaint_from_outside_the_cohort, OutOfPhase),
    "4.6.6": (a_member_that_has_left, OutOfPhase),
    "4.6.9": (too_few_messages, RoundAborted),
    "7.2.3": (an_envelope_that_does_not_open, PeerError),
}


@pytest.mark.parametrize("rule", ELSEWHERE)
def test_what_needs_more_than_one_message_is_refused_by_its_number(rule):
    play, error = ELSEWHERE[rule]
    with pytest.raises(error) as refusal:
        play()
    assert refusal.value.rule == rule


def test_the_checks_of_a_section_are_counted_without_a_gap():
    for number in SECTIONS:
        assert numbered(number) == list(range(1, len(numbered(number)) + 1)), number
    assert len(CHECKS) > 70


def test_every_numbered_check_has_a_refusal():
    assert CHECKS - IN_VECTORS - ELSEWHERE.keys() == set()


def test_no_refusal_carries_a_number_that_is_not_in_the_text():
    assert (IN_VECTORS | ELSEWHERE.keys()) - CHECKS == {"3.2"}  # an all-zero secret: an item of §3


def test_every_refusal_in_the_code_says_its_rule():
    """An error of the protocol that is raised without `rule` is one that nobody can look up."""
    kinds = {"PeerError", "OutOfPhase", "CohortTooSmall", "WireError", "RoundAborted"}
    silent = [
        (file.name, ast.unparse(node)[:60])
        for file in [*sorted(CODE.glob("*.py")), SYFT]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in kinds
        and not any(keyword.arg == "rule" for keyword in node.keywords)
    ]
    # wrapped at once in a refusal that names the check; and the caller's own mistake
    assert [file for file, _ in silent] == ["aggregator.py", "sealing.py", "sealing.py"], silent


# ----- the table of §4.6 -------------------------------------------------------------------------


def table_of_phases():
    """§4.6's table as `rounds.ROUND` says it."""
    rows = ["| phase | message | expected from | fewest to close | answer |", "|---|---|---|---|---|"]
    for step in ROUND:
        sent = "`Masked` and the vector" if step.message is MaskedVector else f"`{step.message.__name__}`"
        fewest = f"`{step.fewest}`"
        answer = step.answer.__name__ if step.answer else "Record"
        rows.append(f"| {step.phase.value} | {sent} | {step.cohort} | {fewest} | `{answer}` |")
    return "\n".join(rows)


def test_the_table_of_phases_in_the_text_is_drawn_from_the_code():
    assert table_of_phases() in section("4.6")


def test_the_aggregators_checks_start_where_the_table_says():
    """After the member's own, if the section has any: the first is always whether the sender is enrolled."""
    for step in ROUND:
        assert re.search(rf"^{step.checks}\. the sender is enrolled;$", section(step.section), re.MULTILINE)


def test_each_phase_follows_the_one_whose_members_it_asks():
    assert [step.of for step in ROUND] == [None, *rounds.PHASES[:-1]]
    assert rounds.after(ROUND[-1].phase) is rounds.Phase.DONE
    assert all(rounds.STEP_OF[step.message] is rounds.STEP_IN[step.phase] for step in ROUND)


def test_every_message_of_the_text_is_a_message_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| (?:member|aggregator|in)[^|]*\| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 12
    for name, fields in rows:
        listed = re.findall(r"(?:^|, )`(\w+)`", fields)
        kind = getattr(messages, name)
        assert listed == [field.name for field in dataclasses.fields(kind)], name


def test_a_refusal_is_an_error_of_the_tree():
    with pytest.raises(ChoralError) as refusal:
        Stage(4).members["a"].receive(Survivors(bytes(32), ()))
    assert refusal.value.rule == "4.6.8"
