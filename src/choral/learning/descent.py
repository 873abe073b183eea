# ruff: noqa: N803, N806  (X is a matrix, and is written so)
"""Minibatch stochastic gradient descent, for every model that can give its gradient.

What changes a step without changing the gradient is here: weight decay, FedProx, the order of the
examples, the way from stored pixels to numbers.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from choral.errors import ParameterError
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters
from choral.learning.update import Schema, flatten, own_copy

Matrix: TypeAlias = NDArray[np.float32]

_MOST = 1_000_000_000  # of anything that is counted or multiplied

_BLOCK = 4096
"""Rows evaluated at once: bounds the memory, and changes no count and (nearly) no loss."""

_GATHER = 1 << 18
"""Values gathered at once, a megabyte: stays in the cache, and an epoch needs no copy of the data."""


class Model(Protocol):
    """What there is to descend on. The names in `decayed` are those that `l2` holds."""

    @property
    def features(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def l2(self) -> float: ...
    @property
    def mu(self) -> float: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def decayed(self) -> tuple[str, ...]: ...

    def logits(self, parameters: Parameters, X: Matrix) -> Matrix:
        """Scores (n, classes), an array of its own."""
        ...

    def steps(self, parameters: Parameters, X: Matrix, targets: Matrix) -> Parameters:
        """`rate` times the gradient of the mean cross entropy, by name."""
        ...


def check(model: Model, counts: dict[str, int]) -> None:
    """Raises `ParameterError` for options out of range. `counts`: of each whole number, the least."""
    for name, least in {"features": 1, "classes": 2, "epochs": 1, "batch": 1, **counts}.items():
        value = getattr(model, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            _refuse(name, value, f"a whole number of at least {least}", f"for example {name}={max(least, 2)}")
    for name in ("rate", "l2", "mu"):
        value = getattr(model, name)
        # a whole number beyond all floats would fail where it is multiplied
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _MOST:
            _refuse(name, value, "a number", f"for example {name}=0.1")
    if not 0 < model.rate <= 1e6:
        _refuse("rate", model.rate, "a number above 0, at most 1e6", "0.01 to 1 are usual")
    if not 0 <= model.l2 * model.rate < 1:  # at 1, a step forgets the whole weight
        _refuse("l2", model.l2, "at least 0 and below 1 / rate", "0 is none, 0.0001 is usual")
    if not model.mu >= 0 or not (model.l2 + model.mu) * model.rate < 1:
        _refuse(
            "mu", model.mu, "at least 0 and, with l2, below 1 / rate", "0 is none, 0.001 to 0.1 are usual"
        )


def _refuse(name: str, value: object, expected: str, hint: str) -> NoReturn:
    found = (
        repr(value) if not isinstance(value, int) or abs(value) <= _MOST else "a number of too many digits"
    )
    raise ParameterError(f"{name} is {found}, expected {expected}", hint=hint)


def descend(
    model: Model,
    parameters: Parameters,
    X: Examples,
    y: Labels,
    rng: np.random.Generator,
) -> Parameters:
    """Descend from `parameters` on X float32 or uint8 (n, features), y integer (n,); new arrays.

    Raises `UpdateError` for parameters of another model and `ParameterError` for examples of the
    wrong shape or labels outside `0 .. classes - 1`.
    """
    images, y = _examples(model, X, y)
    if not y.size:
        raise ParameterError("there are no examples to train on, expected at least one")
    parameters = own_copy(parameters, model.schema)
    one_hot = np.eye(model.classes, dtype=np.float32)
    keep = {
        name: 1 - model.rate * (model.mu + (model.l2 if name in model.decayed else 0)) for name in parameters
    }
    # FedProx (Li et al. 2020, eq. 2): the gradient of mu / 2 * |w - global|² is mu * (w - global)
    pull = {name: array * np.float32(model.rate * model.mu) for name, array in parameters.items()}
    batches = max(1, _GATHER // (model.batch * model.features))
    rows = min(len(y), batches * model.batch)
    gathered = np.empty((rows, model.features), np.float32)
    raw = np.empty(gathered.shape, np.uint8) if images.dtype == np.uint8 else gathered
    for _ in range(model.epochs):
        order = rng.permutation(len(y))
        for first in range(0, len(y), rows):
            some = order[first : first + rows]
            # "raise" would buffer the output
            np.take(images, some, axis=0, out=raw[: len(some)], mode="clip")
            if raw is not gathered:
                np.divide(raw[: len(some)], np.float32(255), out=gathered[: len(some)])
            targets = one_hot[y[some]]
            for start in range(0, len(some), model.batch):
                stop = min(start + model.batch, len(some))
                steps = model.steps(parameters, gathered[start:stop], targets[start:stop])
                for name, step in steps.items():
                    array = parameters[name]
                    if keep[name] != 1:
                        array *= np.float32(keep[name])
                    if model.mu:
                        array += pull[name]
                    array -= step
    return parameters


def slope(logits: Matrix, targets: Matrix, rate: float) -> Matrix:
    """`rate` times the gradient of the mean cross entropy by the logits; overwrites them.

    (softmax(z) - target) / batch: Bishop 2006, eq. 4.109.
    """
    logits -= logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    logits -= targets
    logits *= np.float32(rate / len(logits))
    return logits


def evaluate(model: Model, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
    """Correct predictions and summed cross entropy, in nats. Raises as `descend` does."""
    images, y = _examples(model, X, y)
    flatten(parameters, model.schema)  # refuses the parameters of another model
    total = Evaluation(0, 0, 0.0)
    for start in range(0, len(y), _BLOCK):
        labels = y[start : start + _BLOCK]
        block = images[start : start + _BLOCK]
        if block.dtype == np.uint8:
            block = np.divide(block, np.float32(255), dtype=np.float32)
        logits = model.logits(parameters, block)
        correct = int((logits.argmax(axis=1) == labels).sum())
        logits -= logits.max(axis=1, keepdims=True)
        told = logits[np.arange(len(labels)), labels]
        losses = np.log(np.exp(logits).sum(axis=1)) - told
        total += Evaluation(len(labels), correct, float(losses.sum(dtype=np.float64)))
    return total


def _examples(model: Model, X: Any, y: Labels) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """X as float32, or as it is if it is pixels; y as indices; neither is copied if it is that already."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or X.shape[1] != model.features:
        raise ParameterError(f"X has shape {X.shape}, expected (n, {model.features})")
    if y.shape != X.shape[:1] or y.dtype.kind not in "iu":
        raise ParameterError(
            f"y is {y.dtype} {y.shape}, expected whole numbers ({X.shape[0]},), one an example"
        )
    if outside := np.flatnonzero((y < 0) | (y >= model.classes)).tolist():
        raise ParameterError(
            f"label {y[outside[0]]} of example {outside[0]} is outside 0..{model.classes - 1}"
        )
    if X.dtype != np.uint8:
        X = X.astype(np.float32, copy=False)
    return X, y.astype(np.intp, copy=False)
