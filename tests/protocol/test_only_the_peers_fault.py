"""Whatever comes in, a machine raises nothing but an error that says: the other side broke the protocol.

Anything else would be a fault of ours that somebody far away can cause. (The idea is h11's.) Messages are
good ones of this round and of another, with fields changed as their types allow, signed anew by whoever may
sign them, in any order; bytes are messages with bytes changed.
"""

import dataclasses
from contextlib import suppress

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from choral.errors import PeerError, RoundAborted, WireError
from choral.protocol import wire
from choral.protocol.aggregator import Phase
from choral.protocol.member import State
from choral.protocol.messages import Complaint, MaskedVector
from choral.protocol.rounds import PHASES
from choral.protocol.transcript import sign
from stage import A, D, Stage

NAMES = "abcd"
THEIR_FAULT = (PeerError, WireError)
MIXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def play(seed=b"round"):
    """An honest round: what the aggregator said to a, and what everybody said to the aggregator, by phase."""
    stage, said = Stage(4, seed=seed), {phase: {} for phase in PHASES}

    def keep(name, message):
        said[stage.aggregator.phase][name] = message
        return message

    stage.advertise(change=keep)
    told = [stage.aggregator.roster()]
    told.append(stage.share(change=keep)["a"])
    told.append(stage.mask(NAMES, keep))
    told.append(stage.agree(NAMES, keep))
    stage.reveal(NAMES, keep)
    return told, said


TOLD, SAID = play()
TOLD_ELSEWHERE, SAID_ELSEWHERE = play(b"other")
IDENTITIES = Stage(4).identities

names = st.sampled_from([*NAMES, "e", "zoe"])
SHORT = st.sampled_from([bytes(32), b"\xff" * 32, bytes(31) + b"\x80", b"\x01" + bytes(31), bytes(range(32))])
VALUES = {
    bytes: st.binary(max_size=90) | SHORT,
    int: st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    str: names | st.text(max_size=9),
}


def changed(draw, value):
    """`value`, or something else of its type."""
    if isinstance(value, tuple):
        entries = [changed(draw, entry) for entry in value] if draw(st.booleans()) else list(value)
        what = draw(st.sampled_from(["same", "fewer", "more", "more", "order", "none"]))
        if what == "fewer" and entries:
            entries.pop(draw(st.integers(0, len(entries) - 1)))
        if what == "more" and entries:
            entries += [draw(st.sampled_from(entries))] * draw(st.sampled_from([1, 2, 300]))
        if what == "order":
            entries = draw(st.permutations(entries))
        return () if what == "none" else tuple(entries)
    if not draw(st.integers(0, 2)):
        return value
    if dataclasses.is_dataclass(value):
        return mutated(draw, value)
    if isinstance(value, bytes) and draw(st.booleans()):
        return draw(st.binary(min_size=len(value), max_size=len(value)))
    return draw(VALUES[type(value)])


def mutated(draw, message):
    """A message of the same class, perhaps signed again."""
    if isinstance(message, MaskedVector):
        sizes = draw(st.sampled_from([(D, A), (D, A), (0, A), (D + 1, A), (D, 0)]))
        vector = MaskedVector(
            mutated(draw, message.head),
            message.main if sizes[0] == D else np.zeros(sizes[0], np.uint32),
            message.auxiliary if sizes[1] == A else np.zeros(sizes[1], np.uint64),
        )
        return vector if draw(st.booleans()) else message
    fields = [field.name for field in dataclasses.fields(message)]
    for name in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=2)):
        message = dataclasses.replace(message, **{name: changed(draw, getattr(message, name))})
    if hasattr(message, "label") and draw(st.booleans()):
        signer = draw(st.sampled_from([*NAMES, getattr(message, "member", "a")]))
        with suppress(UnicodeEncodeError, KeyError):
            message = sign(IDENTITIES[signer], message)
    return message


def damaged(draw, message):
    """What is decoded from the message's bytes, some of them changed; None if they are refused."""
    vector = isinstance(message, MaskedVector)
    try:
        body = bytearray(b"".join(wire.encode_vector(message)) if vector else wire.encode(message))
    except UnicodeEncodeError:  # a lone surrogate can be nobody's
        return None
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    kind = type(message)
    decode = (lambda data: wire.decode_vector(data, D, A)) if vector else lambda data: wire.decode(kind, data)
    error = refused(decode, bytes(body))
    assert error is None or error.rule is not None
    return None if error else decode(bytes(body))


def refused(machine, message):
    """The error that says that it was the peer's fault, or None; any other error is ours and goes on."""
    try:
        machine(message)
    except THEIR_FAULT as error:
        return error
    return None


def arrives(draw, message):
    """The message as a receiver may get it: from the wire, or made of anything that fits the types."""
    message = mutated(draw, message) if draw(st.integers(0, 3)) else message
    return damaged(draw, message) if draw(st.integers(0, 3)) == 0 else message


@MIXED
@given(st.data())
def test_a_member_blames_the_aggregator_for_whatever_it_is_told(data):
    member, at = Stage(4).members["a"], data.draw(st.sampled_from([0, 0, 1, 1, 2, 3, 4]))
    for message in TOLD[:at]:
        member.receive(message)
    due = TOLD[at : at + 1] * 12  # what it waits for, twice as often as anything else
    for _ in range(data.draw(st.integers(1, 3))):
        message = arrives(data.draw, data.draw(st.sampled_from(due + TOLD + TOLD_ELSEWHERE)))
        error = None if message is None else refused(member.receive, message)
        if error is None:
            continue
        event(f"a member refuses by {error.rule}")
        assert error.rule is not None
        assert member.state in (State.ABORTED, State.DONE)
        complaint = member.complaint(error)
        assert complaint is None or wire.decode(Complaint, wire.encode(complaint)) == complaint


@MIXED
@given(st.data())
def test_the_aggregator_blames_the_sender_for_whatever_it_is_sent(data):
    """When a phase closes, and at no other time, the round may end without a sum."""
    aggregator = Stage(4).aggregator
    upto = data.draw(st.integers(0, len(PHASES)))
    complaint = Complaint("b", SAID[Phase.SHARE]["b"].round_id, "why", ("c",), bytes(64))
    anything = [
        complaint,
        *(m for said in (SAID, SAID_ELSEWHERE) for sent in said.values() for m in sent.values()),
    ]
    for phase in PHASES[: upto + 1]:
        due = list(SAID[phase].values()) * 8
        for name, message in SAID[phase].items() if phase in PHASES[:upto] else ():
            refused(aggregator.receive, mutated(data.draw, message) if name == "d" else message)
        for _ in range(data.draw(st.integers(0, 3))):
            message = arrives(data.draw, data.draw(st.sampled_from(due + anything)))
            error = None if message is None else refused(aggregator.receive, message)
            if error is not None:
                event(f"the aggregator refuses by {error.rule}")
                assert error.rule is not None
                assert aggregator.phase is phase
        try:
            aggregator.close()
        except RoundAborted as abort:
            refusal = abort
        else:
            continue
        assert refusal.rule is not None
        assert aggregator.phase is Phase.ABORTED
        return
