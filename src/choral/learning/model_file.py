"""A model as bytes: safetensors, float32 only, the same bytes for the same arrays.

Members fetch a model by its digest, so the bytes must not depend on the order of a dictionary.
The format (https://huggingface.co/docs/safetensors, "Format") runs no code when it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from choral.errors import RecordError, UpdateError
from choral.learning.trainer import Parameters
from choral.learning.update import Schema, flatten, own_copy, schema_of, size, unflatten


def encode(parameters: Mapping[str, Any]) -> bytes:
    """The model as a safetensors file: sorted names, no metadata, float32.

    Raises `UpdateError` for whatever `decode` would not read back: no arrays, arrays that are
    not of floats, NaN, infinity, a name that the format keeps for itself.
    """
    arrays = own_copy(parameters, schema_of(parameters))
    for name in arrays:
        # The header is JSON in UTF-8 and keeps one key for itself.
        if name == "__metadata__" or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UpdateError(f"{name!r} is not a name that safetensors can hold, expected another")
    return save(arrays)


def pack(parameters: Mapping[str, Any]) -> bytearray:
    """What `encode` gives, for finite float32 arrays, each of them copied once: into the file.

    The values are the last `4 d` bytes, in the order of a vector (PROTOCOL §6.1).
    """
    schema = schema_of(parameters)
    head = _head(schema)
    file = bytearray(len(head) + 4 * size(schema))
    file[: len(head)] = head
    values, at = np.frombuffer(file, "<f4", offset=len(head)), 0
    for name, _ in schema:
        part = parameters[name].reshape(-1)
        values[at : at + part.size] = part
        at += part.size
    return file


class NotCanonical(UpdateError):
    """A file that holds a model, but not as `encode` writes it."""


def decode(data: bytes, schema: Schema | None = None, *, canonical: bool = False) -> Parameters:
    """The arrays in a safetensors file, as copies of their own.

    With a `schema`, names and shapes must be exactly those. Raises `UpdateError` for bytes that
    are no safetensors file (truncated, with bytes left over), for types other than float32, for
    other names or shapes, and for NaN or infinity. If `canonical`, raises `NotCanonical` for any
    bytes but those that `encode` gives: one model has one digest.
    """
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]  # its stub has no types
    except SafetensorError as error:
        raise UpdateError(f"the model file of {len(data)} bytes is not safetensors: {error}") from error
    found = {}
    for name, entry in entries:
        if entry["dtype"] != "F32":
            raise UpdateError(f"array {name!r} in the model file is {entry['dtype']}, expected F32")
        found[name] = np.frombuffer(entry["data"], "<f4").reshape(entry["shape"])
    schema = schema_of(found) if schema is None else schema
    vector = flatten(found, schema)
    entries, entry, found = (), None, {}  # one copy of a large model less while the last one is made
    if canonical and not (
        data.startswith(head := _head(schema)) and len(data) == len(head) + 4 * size(schema)
    ):
        raise NotCanonical(
            f"a model file of {len(data)} bytes that is not the one encoding of its arrays",
            hint="arrays sorted by name and in that order, no metadata, no other spacing (§7.3)",
        )
    return unflatten(vector, schema)


def _head(schema: Schema) -> bytes:
    """What `encode` puts before the numbers: the arrays' places as JSON, its length in front.

    With the head fixed the rest is fixed, too: the numbers in the schema's order, and nothing else.
    """
    entries, start = {}, 0
    for name, shape in schema:
        stop = start + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def named(data: bytes, wanted: bytes, version: int) -> bytes:
    """`data`, if it is the file that the record of a version names by `wanted`, 32 bytes.

    Raises:
        RecordError: it is another.
    """
    if digest(data) != wanted:
        raise RecordError(
            f"the model of version {version} is not the one that its record names",
            hint="do not train on it: the aggregator, its disk or something on the way gives other bytes",
        )
    return data


def digest(data: bytes | bytearray) -> bytes:
    """SHA-256 of a model file's bytes, 32 bytes: the model's name in the log."""
    return hashlib.sha256(data).digest()
