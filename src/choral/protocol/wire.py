"""Messages as canonical CBOR (RFC 8949 §4.2), strict both ways (§7).

A message is a map of its field names plus `kind`. Decoding accepts exactly the bytes that encoding
produces: unknown, missing or repeated keys, trailing bytes, non-minimal integers, tags, floats and
wrong lengths are all one thing, a `WireError`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import struct
import types
import typing
from collections.abc import Hashable
from typing import Any, TypeVar

import cbor2
import numpy as np

from choral.errors import WireError
from choral.protocol.messages import Length, Masked, MaskedVector

T = TypeVar("T")

MOST_ITEMS = 1 << 16  # in one message, lists and maps and what is in them
MOST_MEMBERS = 256  # in a list, unless its type says otherwise: no cohort is larger
LONGEST_KEY = 256  # bytes; in a task the names of arrays are keys
DEEPEST = 8  # levels of lists and maps
_HEAD_LIMIT = 1024
_FEW_ITEMS = 64  # are always looked at: the refusal can say which field is odd


def pack(value: Any) -> bytes:
    """Canonical CBOR of plain values: int, bytes, str, list or tuple, dict."""
    return cbor2.dumps(value, canonical=True)


def plain(message: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A message as the map that is encoded, `kind` included, less the fields in `without`."""
    fields = {
        field.name: _plain(getattr(message, field.name))
        for field in dataclasses.fields(message)
        if field.name not in without
    }
    return {"kind": type(message).__name__.lower(), **fields}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def encode(message: Any) -> bytes:
    """The one encoding of a message."""
    return pack(plain(message))


def decode(kind: type[T], data: bytes) -> T:
    """The message of class `kind` in `data`.

    Raises:
        WireError: anything but the one encoding of such a message.
    """
    most = max(most_items(typing.cast(Any, kind)), _FEW_ITEMS)
    message = _build(kind, unpack(data, kind.__name__, most), kind.__name__)
    if encode(message) != data:
        raise WireError(
            f"a {kind.__name__} that is not in canonical CBOR",
            hint="RFC 8949 §4.2: shortest integers, sorted keys, no duplicates",
            rule="7.1.5",
        )
    return typing.cast(T, message)


def unpack(data: bytes, what: str, most: int = MOST_ITEMS) -> Any:
    """The plain value in `data`: not yet known to be in canonical form, but cheap to look at.

    Raises:
        WireError: not one CBOR item within the bounds of §7.1.
    """
    _within_bounds(data, what, most)
    try:
        with io.BytesIO(data) as stream:
            value = cbor2.CBORDecoder(stream).decode()
            if stream.tell() != len(data) and stream.read(1):
                raise WireError(f"{len(data)} bytes hold more than one {what}", rule="7.1.2")
    except WireError:
        raise
    except Exception as error:  # a decoder of untrusted bytes: whatever it raises means the same
        raise WireError(f"not CBOR, expected a {what} ({type(error).__name__})", rule="7.1.2") from error
    return value


def _within_bounds(data: bytes, where: str, most: int) -> None:
    """Refuse what would be dear to decode before the CBOR library sees it (§7.1).

    Tag 28 and 29 (shared values) as a map's key make a hundred bytes cost exponential time, tag 2 an integer
    that cannot be printed. Integers as keys can be chosen to collide (text cannot: its hash is keyed), and a
    list of empty lists takes 72 times its size. Item heads lie one after the other, so one walk sees all.
    """
    at, items, size = 0, 0, len(data)
    left, in_map = 1, False  # what is still to come on this level, keys and values counted one by one
    above: list[tuple[int, bool]] = []
    while True:
        while not left:
            if not above:
                return  # what follows is not looked at: the decoder stops here, too
            left, in_map = above.pop()
        if at >= size:
            raise WireError(f"not CBOR, expected a {where} (cut off)", rule="7.1.2")
        items += 1
        major, low = data[at] >> 5, data[at] & 31
        if major == 6 or low > 27:
            found = "tag" if major == 6 else "indefinite length"
            raise WireError(
                f"{where}: found a CBOR {found} at byte {at}, expected plain values", rule="7.1.1"
            )
        width = 0 if low < 24 else 1 << (low - 24)
        argument = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else low
        if in_map and not left & 1 and (major != 3 or argument > LONGEST_KEY):
            raise WireError(
                f"{where}: found a key at byte {at} that is not a text of {LONGEST_KEY} bytes at most",
                rule="7.1.1",
            )
        left -= 1
        at += 1 + width
        if major in (2, 3):
            at += argument
        elif major in (4, 5):
            above.append((left, in_map))
            left, in_map = argument * (major - 3), major == 5
            if items + left > most or len(above) > DEEPEST:
                found = f"{items + left} items" if items + left > most else f"{len(above)} levels"
                raise WireError(
                    f"{where}: found {found} at byte {at}, expected {most} items on {DEEPEST} levels at most",
                    rule="7.1.1",
                )


@functools.cache
def most_items(kind: Hashable) -> int:
    """How many CBOR items a message of class `kind` can have: its own map, keys and values."""
    expected, length = _unwrapped(kind)
    if isinstance(expected, types.GenericAlias):
        return min(1 + length.high * most_items(expected.__args__[0]), MOST_ITEMS)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return min(3 + sum(1 + most_items(hint) for hint in _fields(expected).values()), MOST_ITEMS)
    return 1


def _unwrapped(kind: Any) -> tuple[Any, Length]:
    """A type without its annotation, and the bounds that hold for it."""
    if typing.get_origin(kind) is typing.Annotated:
        expected, length = typing.get_args(kind)
        return expected, length
    return kind, Length(0, MOST_MEMBERS)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _build(expected: Any, value: Any, where: str) -> Any:
    """`value` as `expected` says: a dataclass, tuple[X, ...], Annotated[bytes | str, Length], int, bool."""
    expected, length = _unwrapped(expected)
    if isinstance(expected, types.GenericAlias):
        if type(value) is not list:
            raise WireError(f"{where}: found {_found(value)}, expected a list", rule="7.1.4")
        _check_length(value, length, where)
        item = expected.__args__[0]
        return tuple(_build(item, entry, f"{where}[{at}]") for at, entry in enumerate(value))
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return _build_message(expected, value, where)
    if type(value) is not expected:
        raise WireError(f"{where}: found {_found(value)}, expected {expected.__name__}", rule="7.1.4")
    if isinstance(value, str | bytes):
        _check_length(value, length, where)
    if isinstance(value, str) and not length.form(value):
        raise WireError(f"{where}: found {value!r:.80}, expected {length.said}", rule="7.1.4")
    if expected is float and not math.isfinite(value):
        raise WireError(f"{where}: found {value}, expected a finite number", rule="7.1.4")
    if type(value) is int and not 0 <= value < 2**64:
        raise WireError(f"{where}: found {value}, expected an unsigned 64-bit integer", rule="7.1.4")
    return value


def _check_length(value: str | bytes | list[Any], length: Length, where: str) -> None:
    if not length.low <= len(value) <= length.high:
        span = length.low if length.low == length.high else f"{length.low} to {length.high}"
        raise WireError(f"{where}: found {len(value)} {_unit(value)}, expected {span}", rule="7.1.4")


def _build_message(kind: type, value: Any, where: str) -> Any:
    if type(value) is not dict:
        raise WireError(f"{where}: found {_found(value)}, expected a map", rule="7.1.3")
    fields = _fields(kind)
    name = kind.__name__.lower()
    if value.get("kind") != name:
        found = value.get("kind")
        raise WireError(
            f"{where}: found kind {found!r:.40}, expected {name!r}"
            if isinstance(found, str)
            else f"{where}: found no kind, expected {name!r}",
            rule="7.1.3",
        )
    if value.keys() != {"kind", *fields}:
        odd = value.keys() ^ {"kind", *fields}
        raise WireError(f"{where}: missing or unknown fields {sorted(map(str, odd))!s:.200}", rule="7.1.3")
    return kind(**{key: _build(hint, value[key], f"{where}.{key}") for key, hint in fields.items()})


def _found(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _unit(value: Any) -> str:
    return "characters" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "items"


def vector_bytes(d: int, a: int) -> int:
    """Largest body of a masked vector of d main and a auxiliary words."""
    return 4 + _HEAD_LIMIT + 4 * d + 8 * a


def encode_vector(vector: MaskedVector) -> list[bytes | memoryview]:
    """The body of a masked vector in pieces to be sent one after the other; the vector is not copied."""
    head = encode(vector.head)
    return [
        struct.pack("<I", len(head)) + head,
        _little(vector.main).data.cast("B"),
        _little(vector.auxiliary).data.cast("B"),
    ]


def _little(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def decode_vector(body: bytes | bytearray | memoryview, d: int, a: int) -> MaskedVector:
    """A masked vector whose arrays are views into `body`, uint32[d] and uint64[a].

    Raises:
        WireError: a bad head, or a body of another length than this task's vectors have.
    """
    view = memoryview(body)
    if len(view) < 4:
        raise WireError(f"a masked vector of {len(view)} bytes has no head", rule="7.2.1")
    (size,) = struct.unpack("<I", view[:4])
    expected = 4 + size + 4 * d + 8 * a
    if size > _HEAD_LIMIT or len(view) != expected:
        raise WireError(
            f"a masked vector of {len(view)} bytes, expected {expected if size <= _HEAD_LIMIT else 'less'} "
            f"for {d} parameters and {a} totals",
            hint="member and aggregator disagree on the task's model",
            rule="7.2.2" if size <= _HEAD_LIMIT else "7.2.1",
        )
    head = decode(Masked, bytes(view[4 : 4 + size]))
    main = np.frombuffer(view, "<u4", d, 4 + size)
    auxiliary = np.frombuffer(view, "<u8", a, 4 + size + 4 * d)
    # a head of odd length leaves the words unaligned, and numpy slow on them: then, and only then, a copy
    return MaskedVector(head, np.require(main, requirements="A"), np.require(auxiliary, requirements="A"))


def split_vector(body: bytes | bytearray | memoryview) -> tuple[Masked, memoryview]:
    """The head of a masked vector, and what follows it: for a vector that travels sealed (§7.2).

    Raises:
        WireError: a bad head.
    """
    view = memoryview(body)
    size = struct.unpack("<I", view[:4])[0] if len(view) >= 4 else 0
    if not 0 < size <= min(_HEAD_LIMIT, len(view) - 4):
        raise WireError(f"a masked vector of {len(view)} bytes has no head", rule="7.2.1")
    return decode(Masked, bytes(view[4 : 4 + size])), view[4 + size :]
