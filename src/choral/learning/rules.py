"""Server rules: how the mean of a round's updates moves the model.

A rule is a pure function `(model, mean_update, state) -> (model, state)`, as in optax. The mean
is all it gets, because under secure aggregation the sum is all that the aggregator has.

FedAdagrad, FedYogi and FedAdam are Algorithm 2 of Reddi et al. 2021 (arXiv 2003.00295), with the
weighted mean of the updates in the place of the plain one. Every operation is on one coordinate
and in float32, so the same log gives the same model, bit for bit, on every machine.
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
        model or state would have a number that is not finite; `ParameterError` for the state of
        another rule or of a model of another size.
        """
        for what, vector in (("model", model), ("mean update", mean_update)):
            if vector.dtype != np.float32 or vector.shape != (model.size,):
                raise UpdateError(
                    f"the {what} is {vector.dtype} {vector.shape}, expected float32 ({model.size},)"
                )
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            after, new_state = self.step(model, mean_update, state)
        for what, vector in (("model", after), *new_state.items()):
            if _finite(vector):
                continue
            if wrong := np.flatnonzero(~np.isfinite(vector)).tolist():
                raise UpdateError(
                    f"after rule {self.name!r}, {len(wrong)} of {vector.size} coordinates of the {what} "
                    f"are not finite, the first at {wrong[0]}: {vector[wrong[0]]}"
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


def fedavgm(rate: float = 1.0, momentum: float = 0.9) -> Rule:
    """Federated averaging with server momentum (Hsu, Qi and Brown 2019, arXiv 1909.06335, §4.3).

    `velocity = momentum * velocity + mean_update`, then `model + rate * velocity`. A steady update
    is in the end taken `1 / (1 - momentum)` times as far as FedAvg takes it.
    """
    _expect_above_zero("rate", rate)
    _expect_fraction("momentum", momentum)

    def step(model: Vector, mean_update: Vector, state: Mapping[str, Vector]) -> tuple[Vector, State]:
        before = _kept("fedavgm", state, model, velocity=0.0)
        velocity = before["velocity"] * np.float32(momentum)
        velocity += mean_update
        after = velocity * np.float32(rate)
        after += model
        return after, {"velocity": velocity}

    return Rule("fedavgm", (("momentum", float(momentum)), ("rate", float(rate))), step)


def fedadagrad(rate: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> Rule:
    """FedAdagrad: `v + mean_update ** 2` (Reddi et al. 2021, Algorithm 2, line 13).

    `rate`, `beta1` and `tau` are the paper's η, β1 and τ; its experiments have β1 = 0 here.
    """
    return _adaptive("fedadagrad", lambda v, square: v + square, rate, beta1, tau)


def fedyogi(rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Rule:
    """FedYogi: `v - (1 - β2) * mean_update ** 2 * sign(v - mean_update ** 2)` (Algorithm 2, line 14).

    Unlike FedAdam it lets v fall only slowly after a large update.
    """
    _expect_fraction("beta2", beta2)

    def second(v: Vector, square: Vector) -> Vector:
        change: Vector = np.float32(1 - beta2) * square
        change *= np.sign(v - square)
        return v - change

    return _adaptive("fedyogi", second, rate, beta1, tau, ("beta2", float(beta2)))


def fedadam(rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Rule:
    """FedAdam: `β2 * v + (1 - β2) * mean_update ** 2` (Algorithm 2, line 15). No bias correction.

    The paper tunes η for every task, over powers of ten: 0.01 suits its deep networks, 0.1 models as small as
    the built-in ones.
    """
    _expect_fraction("beta2", beta2)

    def second(v: Vector, square: Vector) -> Vector:
        return np.float32(beta2) * v + np.float32(1 - beta2) * square

    return _adaptive("fedadam", second, rate, beta1, tau, ("beta2", float(beta2)))


def _adaptive(
    name: str,
    second: Callable[[Vector, Vector], Vector],
    rate: float,
    beta1: float,
    tau: float,
    *more: tuple[str, float],
) -> Rule:
    """Algorithm 2 but for its line on v: m, and `model + rate * m / (sqrt(v) + tau)`; v begins at tau²."""
    _expect_above_zero("rate", rate)
    _expect_fraction("beta1", beta1)
    _expect_above_zero("tau", tau)
    if not tau >= 1e-6:  # its square is where v begins, and must be a number in float32
        raise ParameterError(f"tau is {tau!r}, expected 1e-6 or more")

    def step(model: Vector, mean_update: Vector, state: Mapping[str, Vector]) -> tuple[Vector, State]:
        before = _kept(name, state, model, m=0.0, v=tau * tau)
        m = np.float32(beta1) * before["m"]
        m += np.float32(1 - beta1) * mean_update
        v = second(before["v"], np.square(mean_update))
        after = np.sqrt(v)
        after += np.float32(tau)
        np.divide(m, after, out=after)
        after *= np.float32(rate)
        after += model
        return after, {"m": m, "v": v}

    options = sorted([("rate", float(rate)), ("beta1", float(beta1)), ("tau", float(tau)), *more])
    return Rule(name, tuple(options), step)


def _kept(name: str, state: Mapping[str, Vector], model: Vector, **begin: float) -> Mapping[str, Vector]:
    """The state, or that of the first round: each array filled with the number where it begins.

    Raises `ParameterError` if it is another rule's, or for a model of another size.
    """
    if not state:
        return {array: np.full_like(model, value) for array, value in begin.items()}
    if state.keys() != begin.keys():
        raise ParameterError(f"rule {name!r} keeps {sorted(begin)}, found {sorted(state)}")
    for array, vector in state.items():
        if vector.dtype != np.float32 or vector.shape != model.shape:
            raise ParameterError(
                f"rule {name!r} kept {array!r} as {vector.dtype} {vector.shape}, "
                f"expected float32 {model.shape}"
            )
    return state


_RULES: dict[str, tuple[Callable[..., Rule], frozenset[str]]] = {
    "fedavg": (fedavg, frozenset({"rate"})),
    "fedavgm": (fedavgm, frozenset({"rate", "momentum"})),
    "fedadagrad": (fedadagrad, frozenset({"rate", "beta1", "tau"})),
    "fedyogi": (fedyogi, frozenset({"rate", "beta1", "beta2", "tau"})),
    "fedadam": (fedadam, frozenset({"rate", "beta1", "beta2", "tau"})),
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
            hint="keep the federation to members you trust not to poison it: docs/threats.md",
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


def _finite(vector: Vector) -> bool:
    """Without a mask as long as the vector: NaN and infinity both show in the extremes."""
    return bool(np.isfinite(vector.min(initial=0.0)) and np.isfinite(vector.max(initial=0.0)))


def _number(n: int) -> bytes:
    return n.to_bytes(8, "little")


def _expect_above_zero(option: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e6:
        raise ParameterError(f"{option} is {value!r}, expected a number above 0, at most 1e6")


def _expect_fraction(option: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ParameterError(f"{option} is {value!r}, expected a number from 0 to below 1")
