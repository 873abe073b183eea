"""The vector file is what the code says, bit for bit, and the code does what the vector file says."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from choral import errors
from choral.primitives.entropy import seeded
from choral.primitives.identity import Identity
from choral.protocol import messages, phases, transcript, wire
from choral.protocol.aggregator import AggregatorRound, Phase
from choral.protocol.member import MemberRound
from choral.protocol.parameters import Parameters

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "round.json").read_text())
SETTING = VECTORS["setting"]
ANSWERS = {"share": "Shares", "mask": "MaskedVector", "consistency": "Consistency", "unmask": "Reveal"}
QUESTIONS = {"share": "Roster", "mask": "Inbox", "consistency": "Survivors", "unmask": "Endorsements"}
PHASES = ["advertise", *ANSWERS]


def generator():
    spec = importlib.util.spec_from_file_location("vector_generator", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decode(kind, text):
    data = bytes.fromhex(text)
    if kind == "MaskedVector":
        return wire.decode_vector(data, SETTING["dimension"], SETTING["auxiliary"])
    return wire.decode(getattr(messages, kind), data)


def encode(message):
    if isinstance(message, messages.MaskedVector):
        return b"".join(wire.encode_vector(message)).hex()
    return wire.encode(message).hex()


def parameters():
    sizes = SETTING["dimension"], SETTING["auxiliary"]
    return Parameters(SETTING["n_max"], *sizes, SETTING["minimum"], SETTING["tolerated"])


def pinned():
    return {name: bytes.fromhex(m["identity_public"]) for name, m in SETTING["members"].items()}


def member(name):
    """A machine made of nothing but what stands in the file."""
    known = SETTING["members"][name]
    identity = Identity.from_private_bytes(bytes.fromhex(known["identity_private"]))
    me = phases.Member(name, identity, pinned(), parameters(), bytes.fromhex(SETTING["ctx"]))
    main = np.array(known["main"], np.uint32)
    auxiliary = np.array(list(map(int, known["auxiliary"])), np.uint64)
    return MemberRound(me, main, auxiliary, seeded(bytes.fromhex(known["source"])))


def good(phase):
    return [case for case in VECTORS["good"] if case["phase"] == phase]


def aggregator_in(phase):
    """An aggregator that has heard every good message of the phases before."""
    aggregator = AggregatorRound(pinned(), parameters(), bytes.fromhex(SETTING["ctx"]))
    for earlier in PHASES[: PHASES.index(phase)]:
        for case in good(earlier):
            aggregator.receive(decode(ANSWERS.get(earlier, "Advertise"), case["answer"]))
        aggregator.close()
    return aggregator


def test_the_file_is_what_its_generator_writes():
    assert generator().text() == (FOLDER / "round.json").read_text()


def test_the_setting_derives_as_the_specification_says():
    task, base = bytes.fromhex(SETTING["task_digest"]), bytes.fromhex(SETTING["base"])
    assert transcript.context(task, base).hex() == SETTING["ctx"]
    assert SETTING["threshold"] == (6 + SETTING["tolerated"]) // 2 + 1
    roster = decode("Roster", good("share")[0]["question"])
    ctx = bytes.fromhex(SETTING["ctx"])
    assert transcript.round_id(ctx, roster, SETTING["threshold"]).hex() == SETTING["round_id"]


@pytest.mark.parametrize("name", list(SETTING["members"]))
def test_every_member_answers_as_in_the_file(name):
    machine = member(name)
    cases = [case for case in VECTORS["good"] if case["member"] == name]
    assert encode(machine.advertise) == cases[0]["answer"]
    for case in cases[1:]:
        question = decode(QUESTIONS[case["phase"]], case["question"])
        assert encode(question) == case["question"]
        assert encode(machine.receive(question)) == case["answer"]


def test_the_aggregator_asks_and_sums_as_in_the_file():
    aggregator = aggregator_in("unmask")
    for phase, question in [
        ("share", lambda name: aggregator.roster()),
        ("mask", aggregator.inbox),
        ("unmask", lambda name: aggregator.endorsements()),
    ]:
        for case in good(phase):
            assert encode(question(case["member"])) == case["question"]
    for case in good("unmask"):
        aggregator.receive(decode("Reveal", case["answer"]))
    aggregator.close()
    assert aggregator.phase is Phase.DONE
    assert list(aggregator.total.survivors) == VECTORS["total"]["survivors"]
    assert aggregator.total.main.tolist() == VECTORS["total"]["main"]
    assert list(map(str, aggregator.total.auxiliary.tolist())) == VECTORS["total"]["auxiliary"]


def test_the_total_in_the_file_is_the_plain_sum():
    members = [SETTING["members"][name] for name in VECTORS["total"]["survivors"]]
    main = [sum(words) % 2**32 for words in zip(*(m["main"] for m in members), strict=True)]
    auxiliary = [
        sum(map(int, words)) % 2**64 for words in zip(*(m["auxiliary"] for m in members), strict=True)
    ]
    assert main == VECTORS["total"]["main"]
    assert list(map(str, auxiliary)) == VECTORS["total"]["auxiliary"]


def refusal(case):
    """The named error and nothing broader, with the named part of its reason."""
    return getattr(errors, case["error"]), case["reason"]


@pytest.mark.parametrize("case", VECTORS["bad_bytes"], ids=lambda case: f"{case['kind']}: {case['what']}")
def test_bad_bytes_are_refused_as_in_the_file(case):
    error, reason = refusal(case)
    with pytest.raises(error) as found:
        decode(case["kind"], case["bytes"])
    assert type(found.value) is error
    assert found.value.rule == case["rule"]
    assert reason in found.value.reason


@pytest.mark.parametrize(
    "case", VECTORS["bad_to_member"], ids=lambda case: f"{case['rule']}: {case['reason']}"
)
def test_a_member_refuses_as_in_the_file(case):
    error, reason = refusal(case)
    machine = member(case["member"])
    answered = [good for good in VECTORS["good"] if good["member"] == case["member"]][1:]
    for earlier in answered[: case["after"]]:
        machine.receive(decode(QUESTIONS[earlier["phase"]], earlier["question"]))
    with pytest.raises(error) as found:
        machine.receive(decode(case["kind"], case["message"]))
    assert type(found.value) is error
    assert found.value.rule == case["rule"]
    assert reason in found.value.reason


@pytest.mark.parametrize(
    "case", VECTORS["bad_to_aggregator"], ids=lambda case: f"{case['rule']}: {case['reason']}"
)
def test_the_aggregator_refuses_as_in_the_file(case):
    error, reason = refusal(case)
    aggregator = aggregator_in(case["phase"])
    for earlier in good(case["phase"]):
        if earlier["member"] in case["heard"]:
            aggregator.receive(decode(ANSWERS.get(case["phase"], "Advertise"), earlier["answer"]))
    with pytest.raises(error) as found:
        aggregator.receive(decode(case["kind"], case["message"]))
    assert type(found.value) is error
    assert found.value.rule == case["rule"]
    assert reason in found.value.reason


def test_every_message_has_bad_vectors_too():
    kinds = {case["kind"] for case in VECTORS["bad_bytes"]}
    assert kinds == {
        "Advertise", "Roster", "Shares", "Inbox", "Masked", "Survivors", "Consistency", "Endorsements",
        "Reveal", "Complaint", "MaskedVector",
    }  # fmt: skip
