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
from typing import Any, TypeVar

import cbor2
import numpy as np

from choral.errors import WireError
from choral.protocol.messages import Length, Masked, MaskedVector

T = TypeVar("T")

MOST_ITEMS = 1 << 16
_HEAD_LIMIT = 1024


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
    _plain_items_only(data, kind.__name__)
    try:
        with io.BytesIO(data) as stream:
            value = cbor2.CBORDecoder(stream).decode()
            if stream.tell() != len(data) and stream.read(1):
                raise WireError(f"{len(data)} bytes hold more than one {kind.__name__}")
    except WireError:
        raise
    except Exception as error:  # a decoder of untrusted bytes: whatever it raises means the same
        raise WireError(f"not CBOR, expected a {kind.__name__} ({type(error).__name__})") from error
    message = _build(kind, value, kind.__name__)
    if encode(message) != data:
        raise WireError(
            f"a {kind.__name__} that is not in canonical CBOR",
            hint="RFC 8949 §4.2: shortest integers, sorted keys, no duplicates",
        )
    return typing.cast(T, message)


def _plain_items_only(data: bytes, where: str) -> None:
    """Refuse tags and indefinite lengths before the CBOR library acts on them.

    Tag 28 and 29 (shared values) as a map's key make a hundred bytes cost exponential time, tag 2 an
    integer that cannot be printed. Item heads lie one after the other, so nothing is nested here.
    """
    at = 0
    while at < len(data):
        major, low = data[at] >> 5, data[at] & 31
        if major == 6 or low > 27:
            found = "tag" if major == 6 else "indefinite length"
            raise WireError(f"{where}: found a CBOR {found} at byte {at}, expected plain values")
        width = 0 if low < 24 else 1 << (low - 24)
        argument = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else low
        at += 1 + width + (argument if major in (2, 3) else 0)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _build(expected: Any, value: Any, where: str) -> Any:
    """`value` as `expected` says: a dataclass, tuple[X, ...], Annotated[bytes | str, Length], int, bool."""
    if isinstance(expected, types.GenericAlias) and expected.__origin__ is tuple:
        item = expected.__args__[0]
        if type(value) is not list or len(value) > MOST_ITEMS:
            raise WireError(f"{where}: found {_found(value)}, expected a list")
        return tuple(_build(item, entry, f"{where}[{at}]") for at, entry in enumerate(value))
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return _build_message(expected, value, where)
    length = None
    if typing.get_origin(expected) is typing.Annotated:
        expected, length = typing.get_args(expected)
    if type(value) is not expected:
        raise WireError(f"{where}: found {_found(value)}, expected {expected.__name__}")
    if isinstance(length, Length) and not length.low <= len(value) <= length.high:
        span = length.low if length.low == length.high else f"{length.low} to {length.high}"
        raise WireError(f"{where}: found {len(value)} {_unit(value)}, expected {span}")
    if expected is float and not math.isfinite(value):
        raise WireError(f"{where}: found {value}, expected a finite number")
    if type(value) is int and not 0 <= value < 2**64:
        raise WireError(f"{where}: found {value}, expected an unsigned 64-bit integer")
    return value


def _build_message(kind: type, value: Any, where: str) -> Any:
    if type(value) is not dict:
        raise WireError(f"{where}: found {_found(value)}, expected a map")
    fields = _fields(kind)
    name = kind.__name__.lower()
    if value.get("kind") != name:
        found = value.get("kind")
        raise WireError(
            f"{where}: found kind {found!r:.40}, expected {name!r}"
            if isinstance(found, str)
            else f"{where}: found no kind, expected {name!r}"
        )
    if value.keys() != {"kind", *fields}:
        odd = value.keys() ^ {"kind", *fields}
        raise WireError(f"{where}: missing or unknown fields {sorted(map(str, odd))!s:.200}")
    return kind(**{key: _build(hint, value[key], f"{where}.{key}") for key, hint in fields.items()})


def _found(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _unit(value: Any) -> str:
    return "characters" if isinstance(value, str) else "bytes"


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
        raise WireError(f"a masked vector of {len(view)} bytes has no head")
    (size,) = struct.unpack("<I", view[:4])
    expected = 4 + size + 4 * d + 8 * a
    if size > _HEAD_LIMIT or len(view) != expected:
        raise WireError(
            f"a masked vector of {len(view)} bytes, expected {expected if size <= _HEAD_LIMIT else 'less'} "
            f"for {d} parameters and {a} totals",
            hint="member and aggregator disagree on the task's model",
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
        raise WireError(f"a masked vector of {len(view)} bytes has no head")
    return decode(Masked, bytes(view[4 : 4 + size])), view[4 + size :]
