"""Server rules: how the mean of a round's updates moves the model.

A rule is a pure function `(model, mean_update, state) -> (model, state)`, as in optax. The mean
is all it gets, because under secure aggregation the sum is all that the aggregator has. FedAvgM,
FedAdam, FedYogi and FedAdagrad (Reddi et al. 2021, Algorithm 2) fit that shape: each is one more
function here, its momenta in `state`, and one more entry in `_RULES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from choral.errors import ParameterError, UpdateError
from choral.learning.trainer import Parameters, Vector

State: TypeAlias = Parameters
"""What a rule remembers between rounds: float32 arrays by name. Empty before the first round."""

Step: TypeAlias = Callable[[Vector, Vector, Mapping[str, Vector]], tuple[Vector, State]]


@dataclass(frozen=True)
class Rule:
    """A server rule with its options filled in. Two rules are equal by name and options."""

    name: str
    options: tuple[tuple[str, float], ...]
    step: Step = field(repr=False, compare=False)

    def __call__(
        self, model: Vector, mean_update: Vector, state: Mapping[str, Vector]
    ) -> tuple[Vector, State]:
        """The next model, float32[d], and the next state; the arguments stay as they were.

        `mean_update` is float32[d], the weighted mean of `trained model - model`. `state` is
        what the round before returned; the first round gets an empty one.

        Raises `UpdateError` if the vectors are not float32[d] of one length, or if the next
        model would have a number that is not finite.
        """
        for what, vector in (("model", model), ("mean update", mean_update)):
            if vector.dtype != np.float32 or vector.shape != (model.size,):
                raise UpdateError(
                    f"the {what} is {vector.dtype} {vector.shape}, expected float32 ({model.size},)"
                )
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            after, new_state = self.step(model, mean_update, state)
        if wrong := np.flatnonzero(~np.isfinite(after)).tolist():
            raise UpdateError(
                f"after rule {self.name!r}, {len(wrong)} of {after.size} coordinates of the model "
                f"are not finite, the first at {wrong[0]}: {after[wrong[0]]}"
            )
        return after, new_state


def fedavg(rate: float = 1.0) -> Rule:
    """Federated averaging: `model + rate * mean_update` (McMahan et al. 2017, Algorithm 1).

    At rate 1 the next model is the weighted mean of the members' models. Keeps no state, and
    refuses one (`ParameterError`): it would be another rule's.

    >>> step = fedavg()
    >>> step(np.float32([1, 2]), np.float32([0.5, -1]), {})
    (array([1.5, 1. ], dtype=float32), {})
    """
    _expect_above_zero("rate", rate)

    def step(model: Vector, mean_update: Vector, state: Mapping[str, Vector]) -> tuple[Vector, State]:
        if state:
            raise ParameterError(f"rule 'fedavg' keeps no state, found {sorted(state)}")
        after = mean_update * np.float32(rate)
        after += model
        return after, {}

    return Rule("fedavg", (("rate", float(rate)),), step)


_RULES: dict[str, tuple[Callable[..., Rule], frozenset[str]]] = {
    "fedavg": (fedavg, frozenset({"rate"})),
}

_NEED_SINGLE_UPDATES = frozenset(
    {"median", "geometric_median", "trimmed_mean", "krum", "multi_krum", "bulyan"}
)


def rule(name: str, options: Mapping[str, Any]) -> Rule:
    """The rule that a task names, from the task's plain values.

    Raises `ParameterError` for an unknown name or option, a value out of range, and a rule that
    secure aggregation rules out.

    >>> rule("fedavg", {"rate": 0.5})
    Rule(name='fedavg', options=(('rate', 0.5),))
    """
    if name in _NEED_SINGLE_UPDATES:
        raise ParameterError(
            f"rule {name!r} compares single updates, and the aggregator only ever has their sum; "
            f"expected one of {sorted(_RULES)}",
            hint="a member's clipping range bounds what one member can do to the sum",
        )
    if name not in _RULES:
        raise ParameterError(f"rule {name!r} is unknown, expected one of {sorted(_RULES)}")
    make, known = _RULES[name]
    for option in options:
        if option not in known:
            raise ParameterError(f"rule {name!r} has no option {option!r}, expected some of {sorted(known)}")
    return make(**options)


def state_digest(state: Mapping[str, Vector]) -> bytes:
    """SHA-256, 32 bytes, over a rule's state: names, shapes, type and values, in one way only.

    The number of arrays; then, by name, for each: length and UTF-8 of the name, length and text
    of the type, number of dimensions, dimensions, values (C order). Numbers are 8 bytes, all
    little-endian. Raises `UpdateError` for an array that is not float32.
    """
    hashed = hashlib.sha256(b"choral/rule-state/v1\0")
    hashed.update(_number(len(state)))
    for name in sorted(state):
        array = state[name]
        if array.dtype != np.float32:
            raise UpdateError(f"state array {name!r} is {array.dtype}, expected float32")
        for text in (name.encode(), b"<f4"):
            hashed.update(_number(len(text)) + text)
        hashed.update(b"".join(_number(n) for n in (array.ndim, *array.shape)))
        hashed.update(np.ascontiguousarray(array, "<f4").tobytes())
    return hashed.digest()


def _number(n: int) -> bytes:
    return n.to_bytes(8, "little")


def _expect_above_zero(option: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e6:
        raise ParameterError(f"{option} is {value!r}, expected a number above 0, at most 1e6")
