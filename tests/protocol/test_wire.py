"""One message, one encoding; anything else is a WireError and nothing else ever is (PROTOCOL §7)."""

import dataclasses
import functools
import struct
import time
import tracemalloc
import typing
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choral.errors import WireError
from choral.protocol import wire
from choral.protocol.messages import (
    Advertise,
    Complaint,
    Consistency,
    Dealt,
    Endorsement,
    Endorsements,
    Inbox,
    Masked,
    MaskedVector,
    Reveal,
    Roster,
    Shares,
    Survivors,
)

keys = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


def several(strategy):
    return st.lists(strategy, max_size=4).map(tuple)


FIELDS = {
    "member": names,
    "signature": signatures,
    "staleness": st.integers(0, 2**64 - 1),
    "seals": several(st.binary(max_size=90)),
    "reason": st.text(min_size=1, max_size=500).filter(str.isprintable),
    "culprits": several(names),
    "self_shares": several(keys),
    "key_shares": several(keys),
    "dealt": several(st.builds(Dealt, names, keys, signatures)),
    "entries": several(st.builds(Endorsement, names, signatures)),
}
KINDS = [Advertise, Roster, Shares, Inbox, Masked, Survivors, Consistency, Endorsements, Reveal, Complaint]


@functools.cache
def messages(kind):
    fields = {field.name: FIELDS.get(field.name, keys) for field in dataclasses.fields(kind)}
    if kind is Roster:
        fields["members"] = several(messages(Advertise))
    if kind is Survivors:
        fields["members"] = several(names)
    return st.builds(kind, **fields)


def example(kind):
    """A message of `kind`, always the same."""
    values = {"member": "anna", "reason": "why", "culprits": ("b",), "signature": bytes(64)}
    values["staleness"] = 0
    values |= {"seals": (b"", b"sealed"), "self_shares": (bytes(32),), "key_shares": ()}
    values |= {"dealt": (Dealt("b", bytes(32), bytes(64)),), "entries": (Endorsement("b", bytes(64)),)}
    values["members"] = ("anna", "b")
    if kind is Roster:
        values["members"] = (example(Advertise),)
    return kind(**{field.name: values.get(field.name, bytes(32)) for field in dataclasses.fields(kind)})


every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


# ----- an encoder that can be told to do it wrong ------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Raw:
    """Bytes to stand where a value would."""

    data: bytes


WIDTHS = {0: 24, 1: 1 << 8, 2: 1 << 16, 4: 1 << 32, 8: 1 << 64}


def head(major, argument, width=None):
    """Of an item; `width` is the number of bytes after the first, by default the fewest that will do."""
    if width is None:
        width = next(width for width, limit in WIDTHS.items() if argument < limit)
    if width == 0:
        return bytes([major << 5 | argument])
    return bytes([major << 5 | 24 + list(WIDTHS).index(width) - 1]) + argument.to_bytes(width, "big")


def item(value):
    if isinstance(value, Raw):
        return value.data
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(item, value))
    return head(5, len(value)) + b"".join(sorted(item(key) + item(content) for key, content in value.items()))


def refused(kind, data, reason):
    with pytest.raises(WireError, match=reason) as refusal:
        wire.decode(kind, data)
    assert len(refusal.value.reason) < 500
    return refusal.value


# ----- what is right -----------------------------------------------------------------------------


@every_kind
def test_every_message_comes_back_from_its_encoding(kind):
    @settings(max_examples=25, deadline=None)
    @given(messages(kind))
    def comes_back(message):
        data = wire.encode(message)
        assert wire.decode(kind, data) == message
        assert item(wire.plain(message)) == data  # an independent encoder of RFC 8949 §4.2 agrees

    comes_back()


@settings(max_examples=60, deadline=None)
@given(
    messages(Masked),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
)
def test_a_masked_vector_comes_back_word_for_word_whatever_the_heads_length(masked, main, auxiliary):
    vector = MaskedVector(masked, np.array(main, np.uint32), np.array(auxiliary, np.uint64))
    body = b"".join(wire.encode_vector(vector))
    assert len(body) <= wire.vector_bytes(len(main), len(auxiliary))
    for form in (body, bytearray(body), memoryview(body)):
        back = wire.decode_vector(form, len(main), len(auxiliary))
        assert back.head == masked
        assert back.main.tolist() == main
        assert back.auxiliary.tolist() == auxiliary
        assert back.main.flags.aligned
        assert back.auxiliary.flags.aligned


def test_vectors_are_little_endian_on_the_wire():
    vector = MaskedVector(example(Masked), np.array([1, 2**31], np.uint32), np.array([3], np.uint64))
    body = b"".join(wire.encode_vector(vector))
    assert body.endswith(bytes([1, 0, 0, 0, 0, 0, 0, 128, 3, 0, 0, 0, 0, 0, 0, 0]))


def test_an_aligned_vector_is_a_view_and_not_a_copy():
    for extra in range(1, 9):
        masked = dataclasses.replace(example(Masked), member="a" * extra)
        vector = MaskedVector(masked, np.arange(8, dtype=np.uint32), np.arange(2, dtype=np.uint64))
        body = bytearray(b"".join(wire.encode_vector(vector)))
        back = wire.decode_vector(body, 8, 2)
        start = len(body) - 48
        if (np.frombuffer(body, "u1").ctypes.data + start) % 8 == 0:
            assert np.shares_memory(back.main, np.frombuffer(body, "u1"))
            return
    pytest.fail("no head length gave an aligned vector")


# ----- what is damaged ---------------------------------------------------------------------------


@every_kind
def test_trailing_bytes_are_refused(kind):
    data = wire.encode(example(kind))
    for extra in (b"\x00", data, b"\xff"):
        with pytest.raises(WireError):
            wire.decode(kind, data + extra)


@every_kind
def test_a_message_cut_off_anywhere_is_refused(kind):
    data = wire.encode(example(kind))
    for size in range(len(data)):
        with pytest.raises(WireError):
            wire.decode(kind, data[:size])


@every_kind
def test_the_kind_of_another_message_is_refused_by_name(kind):
    for other in KINDS:
        if other is not kind:
            refused(kind, wire.encode(example(other)), f"expected '{kind.__name__.lower()}'")


@every_kind
def test_missing_and_unknown_fields_are_refused_by_name(kind):
    for field in dataclasses.fields(kind):
        content = wire.plain(example(kind))
        del content[field.name]
        refused(kind, item(content), f"missing or unknown fields.*{field.name}")
    refused(kind, item(wire.plain(example(kind)) | {"extra": 1}), "missing or unknown fields.*extra")
    content = wire.plain(example(kind))
    del content["kind"]
    refused(kind, item(content), "found no kind")


@every_kind
def test_duplicate_keys_are_refused(kind):
    content = wire.plain(example(kind))
    first = sorted(item(key) + item(value) for key, value in content.items())
    for entry in first:
        doubled = sorted([*first, entry])
        with pytest.raises(WireError):
            wire.decode(kind, head(5, len(doubled)) + b"".join(doubled))
        # the second value wins in a careless decoder: then nothing but the length tells
        with pytest.raises(WireError):
            wire.decode(kind, head(5, len(first)) + b"".join([*first[:-1], first[0]]))


@every_kind
def test_keys_out_of_order_are_refused(kind):
    content = wire.plain(example(kind))
    entries = sorted(item(key) + item(value) for key, value in content.items())
    refused(kind, head(5, len(entries)) + b"".join(reversed(entries)), "not in canonical")


@every_kind
def test_lengths_that_are_not_in_their_shortest_form_are_refused(kind):
    content = wire.plain(example(kind))
    count, entries = len(content), b"".join(sorted(item(k) + item(v) for k, v in content.items()))
    assert wire.encode(example(kind)) == head(5, count) + entries
    for width in (1, 2, 4, 8):
        refused(kind, head(5, count, width) + entries, "not in canonical")
    for name, value in content.items():
        if isinstance(value, bytes):
            longer = Raw(head(2, len(value), 2) + value)
            refused(kind, item(content | {name: longer}), "not in canonical")
        if isinstance(value, str):
            longer = Raw(head(3, len(value), 1) + value.encode())
            refused(kind, item(content | {name: longer}), "not in canonical")


WRONG = {
    "an integer": 7,
    "a list": [],
    "a map": {},
    "null": Raw(b"\xf6"),
    "undefined": Raw(b"\xf7"),
    "true": Raw(b"\xf5"),
    "a simple value": Raw(b"\xf8\x20"),
    "a half float": Raw(b"\xf9\x3c\x00"),
    "a double": Raw(b"\xfb" + struct.pack(">d", 1.5)),
    "a NaN": Raw(b"\xf9\x7e\x00"),
    "a negative integer": Raw(b"\x20"),
    "a large integer": 2**64 - 1,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@every_kind
def test_a_value_of_another_type_is_refused_by_its_field(kind, wrong):
    content = wire.plain(example(kind))
    for field in dataclasses.fields(kind):
        if type(content[field.name]) is not type(wrong):
            refused(kind, item(content | {field.name: wrong}), f"{kind.__name__}.{field.name}: found")


@every_kind
def test_text_for_bytes_and_bytes_for_text_are_refused(kind):
    content = wire.plain(example(kind))
    for field in dataclasses.fields(kind):
        value = content[field.name]
        if isinstance(value, bytes):
            refused(kind, item(content | {field.name: "x" * len(value)}), "expected bytes")
        if isinstance(value, str):
            refused(kind, item(content | {field.name: value.encode()}), "expected str")


@every_kind
def test_values_of_another_length_are_refused_with_both_lengths(kind):
    content = wire.plain(example(kind))
    for field, hint in typing.get_type_hints(kind, include_extras=True).items():
        if typing.get_origin(hint) is not typing.Annotated:
            continue
        base, length = typing.get_args(hint)
        for size in (length.low - 1, length.high + 1):
            if size >= 0:
                value = base(size) if base is bytes else "x" * size
                refused(
                    kind, item(content | {field: value}), f"{field}: found {size} .*expected {length.low}"
                )


def test_a_list_inside_is_as_strict_as_the_message():
    content = wire.plain(example(Reveal))
    refused(
        Reveal, item(content | {"self_shares": [bytes(32), bytes(31)]}), r"self_shares\[1\]: found 31 bytes"
    )
    refused(Reveal, item(content | {"self_shares": [bytes(32), "x"]}), r"self_shares\[1\]: found a str")
    inner = wire.plain(example(Advertise)) | {"kind": "shares"}
    refused(Roster, item({"kind": "roster", "members": [inner]}), r"members\[0\]: found kind 'shares'")
    refused(Roster, item({"kind": "roster", "members": [inner, 3]}), r"members\[0\]")
    refused(Roster, item({"kind": "roster", "members": [wire.plain(example(Survivors))]}), "found kind")


@every_kind
def test_a_list_longer_than_any_cohort_is_refused(kind):
    content = wire.plain(example(kind))
    lists = [name for name, value in content.items() if type(value) is list and value]
    for name in lists:
        fitting = item(content | {name: content[name][:1] * 256})
        assert len(getattr(wire.decode(kind, fitting), name)) == 256
        refused(kind, item(content | {name: content[name][:1] * 257}), "257 items|found [0-9]+ items at byte")


LARGE = 1 << 20


def heavy(opening, unit, count=None):
    """A body of at most 1 MiB: `opening` (a function of how many follow), then one unit after the other."""
    count = count or (LARGE - 32) // len(unit(0))
    return opening(count) + b"".join(map(unit, range(count)))


HEAVY = {
    "integer keys that collide": lambda: heavy(
        lambda n: head(5, n), lambda at: head(0, (at * (2**61 - 1)) % 2**64, 8) + b"\x00"
    ),
    "integer keys": lambda: heavy(lambda n: head(5, n), lambda at: head(0, at, 4) + b"\x00"),
    "bytes as keys": lambda: heavy(lambda n: head(5, n), lambda at: item(at.to_bytes(4, "big")) + b"\x00"),
    "short text keys": lambda: heavy(lambda n: head(5, n), lambda at: item(f"{at:06}") + b"\x00"),
    "one text key": lambda: head(5, 1) + item("k" * LARGE) + b"\x00",
    "lists as keys": lambda: heavy(lambda n: head(5, n), lambda at: b"\x80\x00"),
    "empty lists": lambda: heavy(lambda n: head(4, n), lambda at: b"\x80"),
    "empty maps": lambda: heavy(lambda n: head(4, n), lambda at: b"\xa0"),
    "empty lists, as many as are allowed": lambda: heavy(
        lambda n: head(4, n), lambda at: b"\x80", wire.MOST_ITEMS - 1
    ),
    "lists in lists": lambda: b"\x81" * LARGE,
    "maps in maps": lambda: b"\xa1\x61k" * (LARGE // 3),
    "pairs of lists": lambda: b"\x82\x80" * (LARGE // 2),
    "small integers": lambda: heavy(lambda n: head(4, n), lambda at: b"\x00"),
    "floats": lambda: heavy(lambda n: head(4, n), lambda at: b"\xf9\x3c\x00"),
    "one text": lambda: item("a" * LARGE),
    "one byte string": lambda: item(bytes(LARGE)),
    "names": lambda: item({"kind": "survivors", "round_id": bytes(32), "members": ["a"] * (LARGE // 2)}),
    "long names": lambda: item({"kind": "survivors", "round_id": bytes(32), "members": ["a" * 999] * 256}),
    "unknown fields": lambda: item({"kind": "survivors"} | {f"k{at}": at for at in range(30)}),
    "a list that says more than comes": lambda: head(4, 2**32) + b"\x80" * LARGE,
    "a map that says more than comes": lambda: head(5, 2**63) + b"\x61a\x00" * (LARGE // 3),
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
@pytest.mark.parametrize("what", ["a message", "any value"])
def test_a_mebibyte_of_anything_costs_a_tenth_of_a_second_and_little_memory(body, what):
    data = body()
    decode = (
        (lambda: wire.decode(Survivors, data)) if what == "a message" else lambda: wire.unpack(data, "it")
    )
    with suppress(WireError):
        decode()  # once before it is measured
    tracemalloc.start()
    try:
        with suppress(WireError):
            decode()
        assert tracemalloc.get_traced_memory()[1] < 8 * LARGE
    finally:
        tracemalloc.stop()
    began = time.process_time()
    with suppress(WireError):
        decode()
    assert time.process_time() - began < 0.3  # 0.05 on a machine that is not busy


@pytest.mark.parametrize("kind", [Roster, Inbox, Endorsements, Reveal, Shares, Complaint])
def test_the_largest_message_of_a_cohort_of_256_fits(kind):
    content = wire.plain(example(kind))
    lists = {name: value[:1] * 256 for name, value in content.items() if type(value) is list and value}
    assert lists
    assert wire.encode(wire.decode(kind, item(content | lists))) == item(content | lists)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "ä", "a\n", "\x1b[2J", "a/b", "a" * 65, "\u202ea"])
def test_a_name_that_nobody_can_have_is_refused_and_printed_harmlessly(name):
    content = wire.plain(example(Survivors)) | {"members": [name]}
    assert refused(Survivors, item(content), r"members\[0\]: found").reason.isprintable()


@pytest.mark.parametrize("reason", ["", "a\nb", "\x1b[2J", "a\tb", "\u202e", "a" * 501, "\x00"])
def test_a_complaints_reason_is_printable_text_on_one_line(reason):
    content = wire.plain(example(Complaint)) | {"reason": reason}
    assert refused(Complaint, item(content), "reason: found").reason.isprintable()


def tagged(number, value):
    return Raw(head(6, number) + item(value))


TAGS = {
    "self-described": lambda value: tagged(55799, value),
    "shared": lambda value: tagged(28, value),
    "reference": lambda value: tagged(29, 0),
    "bignum": lambda value: tagged(2, b"\x01" * 9),
    "negative bignum": lambda value: tagged(3, b"\x01" * 9),
    "date": lambda value: tagged(0, "2013-03-21T20:04:00Z"),
    "epoch": lambda value: tagged(1, 2**64 - 1),
    "decimal": lambda value: tagged(4, [2**31, 1]),
    "big float": lambda value: tagged(5, [2**31, 1]),
    "rational": lambda value: tagged(30, [1, 0]),
    "regular expression": lambda value: tagged(35, "(" * 2000),
    "mime": lambda value: tagged(36, "a: b\n\n"),
    "uuid": lambda value: tagged(37, bytes(16)),
    "string namespace": lambda value: tagged(256, value),
    "set": lambda value: tagged(258, [1, 2]),
    "address": lambda value: tagged(260, b"\x7f\x00\x00\x01"),
    "unknown": lambda value: tagged(2**64 - 1, value),
}


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
@every_kind
def test_tags_are_refused_wherever_they_stand(kind, tag):
    content = wire.plain(example(kind))
    for name, value in content.items():
        refused(kind, item(content | {name: tag(value)}), "tag")
    refused(kind, tag(content).data, "tag")
    entries = [item(tag("kind")), item(content["kind"])]
    refused(kind, head(5, 1) + b"".join(entries), "tag")


@every_kind
def test_indefinite_lengths_are_refused(kind):
    content = wire.plain(example(kind))
    entries = b"".join(sorted(item(k) + item(v) for k, v in content.items()))
    refused(kind, b"\xbf" + entries + b"\xff", "indefinite")
    for name, value in content.items():
        if type(value) is int:
            continue  # has no length
        major = {bytes: 2, str: 3, list: 4}[type(value)]
        chunks = b"".join(map(item, value)) if major == 4 else item(value)
        endless = Raw(bytes([major << 5 | 31]) + chunks + b"\xff")
        refused(kind, item(content | {name: endless}), "indefinite")


@pytest.mark.parametrize("low", [28, 29, 30, 31])
@pytest.mark.parametrize("major", range(8))
def test_reserved_and_indefinite_heads_are_refused_in_every_major_type(major, low):
    with pytest.raises(WireError):
        wire.decode(Survivors, bytes([major << 5 | low]) + bytes(20))


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00", b"\xa1\x81", b"\x82\x00"])
@pytest.mark.parametrize("depth", [30, 1000, 200_000])
def test_deep_nesting_is_refused(opening, depth):
    with pytest.raises(WireError):
        wire.decode(Survivors, opening * depth + b"\x00" * (depth + 1))


@pytest.mark.parametrize("major", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [2**20, 2**32 - 1, 2**63, 2**64 - 1])
def test_a_length_beyond_the_message_costs_nothing(major, size):
    start = time.perf_counter()
    with pytest.raises(WireError):
        wire.decode(Survivors, head(major, size, 8) + b"abc")
    assert time.perf_counter() - start < 0.5


def test_a_key_that_doubles_with_every_shared_reference_costs_nothing():
    """130 bytes whose meaning has 2^30 parts: refused before anything takes them apart."""
    doubling = b"\xd8\x1c\x82\x00\x00"
    for at in range(30):
        doubling = b"\xd8\x1c\x82" + doubling + b"\xd8\x1d" + item(30 - at)
    start = time.perf_counter()
    refused(Survivors, head(5, 2) + item("kind") + item("survivors") + doubling + item(0), "tag")
    assert time.perf_counter() - start < 0.5


def test_a_key_that_is_a_number_of_thousands_of_digits_is_refused():
    key = tagged(2, b"\xff" * 5000)
    refused(Survivors, head(5, 2) + item("kind") + item("survivors") + key.data + item(0), "tag")


@pytest.mark.parametrize("key", [7, b"kind", Raw(b"\xf6"), [1], {}, 2**64 - 1, "k" * 5000])
def test_keys_of_any_type_are_refused_in_few_words(key):
    entries = sorted([item("kind") + item("survivors"), item(key) + item(0)])
    refused(Survivors, head(5, 2) + b"".join(entries), ".")


def test_text_that_is_not_utf_8_is_refused():
    content = wire.plain(example(Survivors)) | {"members": [Raw(b"\x63\xed\xa0\x80")]}
    refused(Survivors, item(content), "not CBOR")


# ----- masked vectors ----------------------------------------------------------------------------


def body_of(d=3, a=2):
    vector = MaskedVector(example(Masked), np.arange(d, dtype=np.uint32), np.arange(a, dtype=np.uint64))
    return b"".join(wire.encode_vector(vector))


@pytest.mark.parametrize("change", [-8, -4, -1, 1, 4, 8])
def test_a_masked_vector_of_another_length_is_refused(change):
    body = body_of()
    body = body[:change] if change < 0 else body + bytes(change)
    with pytest.raises(WireError, match="expected") as refusal:
        wire.decode_vector(body, 3, 2)
    assert refusal.value.hint


@pytest.mark.parametrize(("d", "a"), [(2, 2), (4, 2), (3, 1), (3, 3), (5, 1)])
def test_a_masked_vector_for_another_model_is_refused(d, a):
    """(5, 1) has the same number of bytes: whether those words are right, the length cannot tell."""
    if (d, a) == (5, 1):
        assert wire.decode_vector(body_of(), d, a).main.tolist()[:3] == [0, 1, 2]
    else:
        with pytest.raises(WireError):
            wire.decode_vector(body_of(), d, a)


@pytest.mark.parametrize("size", [1025, 2**31, 2**32 - 1])
def test_a_head_longer_than_any_head_is_refused_before_it_is_read(size):
    body = struct.pack("<I", size) + bytes(1025 + 4 * 3 + 8 * 2)
    with pytest.raises(WireError, match="expected"):
        wire.decode_vector(body, 3, 2)


@pytest.mark.parametrize("size", range(5))
def test_a_body_without_a_head_is_refused(size):
    with pytest.raises(WireError):
        wire.decode_vector(bytes(size), 3, 2)


def test_a_longest_name_still_fits_the_head():
    masked = dataclasses.replace(example(Masked), member="m" * 64)
    vector = MaskedVector(masked, np.zeros(1, np.uint32), np.zeros(1, np.uint64))
    assert wire.decode_vector(b"".join(wire.encode_vector(vector)), 1, 1).head == masked


def test_the_head_is_as_strict_as_any_message():
    body = bytearray(body_of())
    body[4] = 0xBF
    with pytest.raises(WireError, match="indefinite"):
        wire.decode_vector(body, 3, 2)


# ----- whatever comes ----------------------------------------------------------------------------


def only_a_wire_error(kind, data):
    """Whether `data` is refused in few words, or is the one encoding of a message."""
    try:
        message = wire.decode(kind, data)
    except WireError as refusal:
        return len(refusal.reason) < 500
    return wire.encode(message) == data


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_random_bytes_only_ever_raise_a_wire_error(kind, data):
    assert only_a_wire_error(kind, data)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_messages_are_refused_or_still_canonical(data):
    kind = data.draw(st.sampled_from(KINDS))
    body = bytearray(wire.encode(data.draw(messages(kind))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        what = data.draw(st.sampled_from(["flip", "insert", "delete", "repeat"]))
        if what == "flip" and at < len(body):
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        if what == "insert":
            body[at:at] = data.draw(st.binary(max_size=8))
        if what == "delete":
            del body[at : at + data.draw(st.integers(1, 40))]
        if what == "repeat":
            body[at:at] = body[max(0, at - 40) : at]
    assert only_a_wire_error(kind, bytes(body))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 4), st.integers(0, 4))
def test_random_bodies_only_ever_raise_a_wire_error(body, d, a):
    with pytest.raises(WireError):
        wire.decode_vector(body, d, a)


plain_values = st.recursive(
    st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=70), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=8)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_well_formed_values_in_the_wrong_places_only_ever_raise_a_wire_error(data):
    kind = data.draw(st.sampled_from(KINDS))
    content = wire.plain(data.draw(messages(kind)))
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(plain_values)
    assert only_a_wire_error(kind, item(content))
