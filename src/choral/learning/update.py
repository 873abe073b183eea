"""Named arrays to one float32 vector and back (PROTOCOL §6 starts from the vector).

The order is the schema's: arrays sorted by name (by code point), each in C order. Both ends
derive it from the names alone, so it never travels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from choral.errors import UpdateError
from choral.learning.trainer import Parameters, Vector

Schema: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""The names and shapes of a model's arrays, sorted by name."""


def schema_of(parameters: Mapping[str, Any]) -> Schema:
    """The names and shapes of a model.

    Raises `UpdateError` for a model without arrays and for an array that is not of floats.

    >>> schema_of({"weight": np.zeros((4, 2)), "bias": np.zeros(2)})
    (('bias', (2,)), ('weight', (4, 2)))
    """
    if not parameters:
        raise UpdateError("the model has no arrays, expected at least one")
    for name, array in parameters.items():
        _expect_floats(name, array)
    return tuple((name, tuple(parameters[name].shape)) for name in sorted(parameters))


def size(schema: Schema) -> int:
    """d, the number of coordinates of a vector in this schema.

    >>> size((("bias", (2,)), ("weight", (4, 2))))
    10
    """
    return sum(math.prod(shape) for _, shape in schema)


def flatten(parameters: Mapping[str, Any], schema: Schema) -> Vector:
    """The arrays as one new vector, float32[d]; other floats are rounded to float32.

    Raises `UpdateError`, with the array's name, what was found and what was expected, for a
    missing or an extra array, a wrong shape, a type that is not of floats, NaN, infinity, and a
    number too large for float32.
    """
    _expect_names(parameters, schema)
    vector = np.empty(size(schema), np.float32)
    start = 0
    with np.errstate(over="ignore"):  # reported below, with the array's name
        for name, shape in schema:
            array = _expect_array(parameters, name, shape)
            vector[start : start + array.size] = array.reshape(-1)
            start += array.size
    _expect_finite(vector, schema, parameters)
    return vector


def unflatten(vector: Vector, schema: Schema) -> Parameters:
    """The vector's arrays by name: copies, float32, C order. The inverse of `flatten`.

    Raises `UpdateError` if `vector` is not float32[d] with the schema's d.
    """
    d = size(schema)
    if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.shape != (d,):
        raise UpdateError(f"the vector is {_described(vector)}, expected float32 ({d},)")
    parameters: Parameters = {}
    start = 0
    for name, shape in schema:
        stop = start + math.prod(shape)
        parameters[name] = vector[start:stop].reshape(shape).copy()
        start = stop
    return parameters


def difference(new: Mapping[str, Any], base: Mapping[str, Any], schema: Schema) -> Vector:
    """An update, `new - base` as float32[d]: what a member adds to the sum.

    Raises `UpdateError` as `flatten` does, for either model and for the difference itself.
    """
    vector = flatten(new, schema)
    _expect_names(base, schema)
    start = 0
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, with the array's name
        for name, shape in schema:
            stop = start + _expect_array(base, name, shape).size
            vector[start:stop] -= base[name].reshape(-1)  # as it is: no second vector
            start = stop
    if not np.isfinite(vector).all():
        flatten(base, schema)  # says so, if it is the base's fault
    _expect_finite(vector, schema, {})
    return vector


def own_copy(parameters: Mapping[str, Any], schema: Schema) -> Parameters:
    """The same model in arrays that nobody else holds: float32, C order, checked.

    Raises `UpdateError` as `flatten` does.
    """
    return unflatten(flatten(parameters, schema), schema)


def _expect_names(parameters: Mapping[str, Any], schema: Schema) -> None:
    expected = [name for name, _ in schema]
    if missing := [name for name in expected if name not in parameters]:
        raise UpdateError(f"array {missing[0]!r} is missing: {_names(parameters, expected)}")
    if extra := [name for name in parameters if name not in set(expected)]:
        raise UpdateError(f"array {extra[0]!r} is not expected: {_names(parameters, expected)}")


def _expect_array(parameters: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Any:
    array = parameters[name]
    _expect_floats(name, array)
    if array.shape != shape:
        raise UpdateError(f"array {name!r} has shape {array.shape}, expected {shape}")
    return array


def _names(parameters: Mapping[str, Any], expected: list[str]) -> str:
    return f"found {sorted(parameters, key=str)}, expected {expected}"


def _expect_floats(name: object, array: object) -> None:
    if not isinstance(name, str):
        raise UpdateError(f"array name {name!r} is a {type(name).__name__}, expected a string")
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise UpdateError(f"array {name!r} is {_described(array)}, expected an array of floats")


def _described(thing: object) -> str:
    if isinstance(thing, np.ndarray):
        return f"{thing.dtype} {thing.shape}"
    return f"a {type(thing).__name__}"


def _expect_finite(vector: Vector, schema: Schema, source: Mapping[str, Any]) -> None:
    if np.isfinite(vector).all():
        return
    start = 0
    for name, shape in schema:
        part = vector[start : start + math.prod(shape)]
        start += part.size
        wrong = np.flatnonzero(~np.isfinite(part))
        if not wrong.size:
            continue
        first = tuple(int(i) for i in np.unravel_index(wrong[0], shape))
        # As the caller had it: 1e300 says more than the infinity that float32 makes of it.
        value = source[name][first] if source else part[wrong[0]]
        raise UpdateError(
            f"array {name!r} has {wrong.size} of {part.size} values that are not finite in float32, "
            f"the first at {first}: {value}; expected finite numbers",
            hint="a lower learning rate often cures a model that diverges",
        )
