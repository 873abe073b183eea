# ruff: noqa: N803, N806  (X is a matrix, and is written so)
"""The two built-in models: softmax regression and a network with one hidden layer.

Plain NumPy, float32, minibatch stochastic gradient descent on the cross entropy. Both fill
`Trainer`; a task names them `softmax` and `mlp`. Their loss is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from choral.errors import ParameterError
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters, Trainer
from choral.learning.update import Schema, flatten, own_copy

_Matrix: TypeAlias = NDArray[np.float32]

_BLOCK = 4096
"""Rows evaluated at once: bounds the memory, and changes no count and (nearly) no loss."""


@dataclass(frozen=True)
class Softmax:
    """Softmax regression: `weight` (features, classes) and `bias` (classes,), from zeros.

    `epochs` passes over the examples in shuffled batches of `batch`, with step size `rate`, on
    the mean cross entropy of the batch plus `l2 / 2` times the squared norm of the weight.
    Zeros are a fine beginning, because the loss is convex (Bishop 2006, §4.3.4).

    Raises `ParameterError` for a parameter out of its range.
    """

    features: int
    classes: int = 10
    _: KW_ONLY
    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def schema(self) -> Schema:
        """The names and shapes of the arrays."""
        return (("bias", (self.classes,)), ("weight", (self.features, self.classes)))

    def initial(self, rng: np.random.Generator) -> Parameters:
        """Zeros; the generator is not used."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.schema}

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Descend from `parameters` on X float32 (n, features), y integer (n,); new arrays.

        Raises `UpdateError` for parameters of another model and `ParameterError` for examples
        of the wrong shape or labels outside `0 .. classes - 1`.
        """
        return _descend(self, parameters, X, y, rng)

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions and summed cross entropy. Raises as `train` does."""
        return _evaluate(self, parameters, X, y)

    def _logits(self, parameters: Parameters, X: Examples) -> _Matrix:
        logits: _Matrix = X @ parameters["weight"]
        logits += parameters["bias"]
        return logits

    def _step(self, parameters: Parameters, X: _Matrix, targets: _Matrix) -> None:
        # One step, in place, on a batch and its one-hot labels. The rate is multiplied in where
        # it is cheapest, in the (batch, classes) gradient by the logits.
        slope = _slope(self._logits(parameters, X), targets, self.rate)
        if self.l2:
            parameters["weight"] *= np.float32(1 - self.rate * self.l2)
        parameters["weight"] -= X.T @ slope
        parameters["bias"] -= slope.sum(axis=0)


@dataclass(frozen=True)
class MLP:
    """One hidden layer of ReLU units under a softmax.

    Arrays: `hidden.weight` (features, hidden), `hidden.bias` (hidden,), `output.weight`
    (hidden, classes), `output.bias` (classes,). The weights begin as in He et al. 2015, §2.2
    (normal, variance 2 / inputs), the biases at zero. The other parameters are those of
    `Softmax`; `l2` holds both weights.

    Raises `ParameterError` for a parameter out of its range.
    """

    features: int
    hidden: int = 64
    classes: int = 10
    _: KW_ONLY
    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def schema(self) -> Schema:
        """The names and shapes of the arrays."""
        return (
            ("hidden.bias", (self.hidden,)),
            ("hidden.weight", (self.features, self.hidden)),
            ("output.bias", (self.classes,)),
            ("output.weight", (self.hidden, self.classes)),
        )

    def initial(self, rng: np.random.Generator) -> Parameters:
        """He initialisation: every seed another model, so all members must begin from one."""
        parameters = {name: np.zeros(shape, np.float32) for name, shape in self.schema}
        for name in ("hidden.weight", "output.weight"):
            weight = parameters[name]
            rng.standard_normal(out=weight, dtype=np.float32)
            weight *= np.float32(math.sqrt(2 / weight.shape[0]))
        return parameters

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Descend from `parameters` on X float32 (n, features), y integer (n,); new arrays.

        Raises `UpdateError` for parameters of another model and `ParameterError` for examples
        of the wrong shape or labels outside `0 .. classes - 1`.
        """
        return _descend(self, parameters, X, y, rng)

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions and summed cross entropy. Raises as `train` does."""
        return _evaluate(self, parameters, X, y)

    def _activations(self, parameters: Parameters, X: Examples) -> _Matrix:
        active: _Matrix = X @ parameters["hidden.weight"]
        active += parameters["hidden.bias"]
        return np.maximum(active, 0, out=active)

    def _logits_from(self, parameters: Parameters, active: _Matrix) -> _Matrix:
        logits: _Matrix = active @ parameters["output.weight"]
        logits += parameters["output.bias"]
        return logits

    def _logits(self, parameters: Parameters, X: Examples) -> _Matrix:
        return self._logits_from(parameters, self._activations(parameters, X))

    def _step(self, parameters: Parameters, X: _Matrix, targets: _Matrix) -> None:
        active = self._activations(parameters, X)
        slope = _slope(self._logits_from(parameters, active), targets, self.rate)
        # Backwards through the output layer before that layer moves.
        behind = slope @ parameters["output.weight"].T
        behind *= active > 0
        if self.l2:
            for name in ("hidden.weight", "output.weight"):
                parameters[name] *= np.float32(1 - self.rate * self.l2)
        parameters["output.weight"] -= active.T @ slope
        parameters["output.bias"] -= slope.sum(axis=0)
        parameters["hidden.weight"] -= X.T @ behind
        parameters["hidden.bias"] -= behind.sum(axis=0)


def built_in(name: str, features: int, classes: int, options: Mapping[str, Any]) -> Trainer:
    """The model that a task names, from the task's plain values.

    `name` is `softmax` (options `epochs`, `batch`, `rate`, `l2`) or `mlp` (the same and
    `hidden`). Raises `ParameterError` for another name, another option, or a value out of range.

    >>> built_in("softmax", 64, 10, {"epochs": 5})
    Softmax(features=64, classes=10, epochs=5, batch=32, rate=0.1, l2=0.0)
    """
    models: dict[str, type[Softmax] | type[MLP]] = {"softmax": Softmax, "mlp": MLP}
    if name not in models:
        raise ParameterError(
            f"model {name!r} is not built in, expected one of {sorted(models)}",
            hint="any other model is an object with the methods of choral.learning.Trainer",
        )
    known = {"epochs", "batch", "rate", "l2"} | ({"hidden"} if name == "mlp" else set())
    for option in options:
        if option not in known:
            raise ParameterError(f"model {name!r} has no option {option!r}, expected some of {sorted(known)}")
    return models[name](features=features, classes=classes, **options)


def _check(model: Softmax | MLP) -> None:
    counts = {"features": 1, "classes": 2, "epochs": 1, "batch": 1}
    if isinstance(model, MLP):
        counts["hidden"] = 1
    for name, least in counts.items():
        value = getattr(model, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ParameterError(f"{name} is {value!r}, expected a whole number of at least {least}")
    for name in ("rate", "l2"):
        value = getattr(model, name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ParameterError(f"{name} is {value!r}, expected a number")
    if not 0 < model.rate <= 1e6:
        raise ParameterError(f"rate is {model.rate!r}, expected a number above 0, at most 1e6")
    if not 0 <= model.l2 * model.rate < 1:  # at 1, a step forgets the whole weight
        raise ParameterError(f"l2 is {model.l2!r}, expected at least 0 and below 1 / rate")


def _examples(model: Softmax | MLP, X: Examples, y: Labels) -> tuple[Examples, NDArray[np.intp]]:
    """X as float32, y as indices; neither is copied if it is that already."""
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
    return X.astype(np.float32, copy=False), y.astype(np.intp, copy=False)


def _descend(
    model: Softmax | MLP,
    parameters: Parameters,
    X: Examples,
    y: Labels,
    rng: np.random.Generator,
) -> Parameters:
    X, y = _examples(model, X, y)
    if not y.size:
        raise ParameterError("there are no examples to train on, expected at least one")
    parameters = own_copy(parameters, model.schema)
    one_hot = np.eye(model.classes, dtype=np.float32)
    shuffled = np.empty(X.shape, np.float32)
    for _ in range(model.epochs):
        # One gather an epoch; the batches are then views of contiguous rows.
        order = rng.permutation(len(X))
        np.take(X, order, axis=0, out=shuffled, mode="clip")  # "raise" would buffer the output
        targets = one_hot[y[order]]
        for start in range(0, len(X), model.batch):
            stop = start + model.batch
            model._step(parameters, shuffled[start:stop], targets[start:stop])
    return parameters


def _slope(logits: _Matrix, targets: _Matrix, rate: float) -> _Matrix:
    """`rate` times the gradient of the mean cross entropy by the logits; overwrites them.

    (softmax(z) - target) / batch: Bishop 2006, eq. 4.109.
    """
    logits -= logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    logits -= targets
    logits *= np.float32(rate / len(logits))
    return logits


def _evaluate(
    model: Softmax | MLP,
    parameters: Parameters,
    X: Examples,
    y: Labels,
) -> Evaluation:
    X, y = _examples(model, X, y)
    flatten(parameters, model.schema)  # refuses the parameters of another model
    total = Evaluation(0, 0, 0.0)
    for start in range(0, len(X), _BLOCK):
        labels = y[start : start + _BLOCK]
        logits = model._logits(parameters, X[start : start + _BLOCK])
        correct = int((logits.argmax(axis=1) == labels).sum())
        logits -= logits.max(axis=1, keepdims=True)
        told = logits[np.arange(len(labels)), labels]
        losses = np.log(np.exp(logits).sum(axis=1)) - told
        total += Evaluation(len(labels), correct, float(losses.sum(dtype=np.float64)))
    return total
