# ruff: noqa: N803  (X is a matrix, and is written so)
"""The two built-in models: softmax regression and a network with one hidden layer.

Plain NumPy, float32, minibatch stochastic gradient descent on the cross entropy. Both fill
`Trainer`; a task names them `softmax` and `mlp`. Their loss is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from choral.errors import ParameterError
from choral.learning import descent
from choral.learning.descent import Matrix
from choral.learning.personal import Personal
from choral.learning.schedule import factor
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters, Trainer
from choral.learning.update import Schema


@dataclass(frozen=True)
class Softmax:
    """Softmax regression: `weight` (features, classes) and `bias` (classes,), from zeros.

    `epochs` passes over the examples in shuffled batches of `batch`, with step size `rate`, on
    the mean cross entropy of the batch plus `l2 / 2` times the squared norm of the weight, plus
    `mu / 2` times the squared distance to the global model (FedProx, Li et al. 2020). `schedule`
    changes the rate from one model version to the next: see `choral.learning.schedule`.
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
    mu: float = 0.0
    schedule: str = "constant"

    takes_pixels: ClassVar = True

    def __post_init__(self) -> None:
        descent.check(self, {})
        factor(self.schedule, 0)

    def at(self, version: int) -> Softmax:
        """The same model with the rate that its schedule has for a version."""
        return replace(self, rate=self.rate * factor(self.schedule, version), schedule="constant")

    @property
    def schema(self) -> Schema:
        """The names and shapes of the arrays."""
        return (("bias", (self.classes,)), ("weight", (self.features, self.classes)))

    @property
    def decayed(self) -> tuple[str, ...]:
        """The arrays that `l2` holds."""
        return ("weight",)

    def initial(self, rng: np.random.Generator) -> Parameters:
        """Zeros; the generator is not used."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.schema}

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Descend from `parameters` on X float32 (n, features), y integer (n,); new arrays.

        Raises `UpdateError` for parameters of another model and `ParameterError` for examples
        of the wrong shape or labels outside `0 .. classes - 1`.
        """
        return descent.descend(self, parameters, X, y, rng)

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions and summed cross entropy. Raises as `train` does."""
        return descent.evaluate(self, parameters, X, y)

    def predict(self, parameters: Parameters, X: Examples) -> Labels:
        """The likeliest class of each example, (n,)."""
        labels: Labels = np.argmax(self.logits(parameters, X), axis=1)
        return labels

    def logits(self, parameters: Parameters, X: Matrix) -> Matrix:
        """Scores (n, classes); their exponentials are the probabilities, but for a factor."""
        logits: Matrix = X @ parameters["weight"]
        logits += parameters["bias"]
        return logits

    def steps(self, parameters: Parameters, X: Matrix, targets: Matrix) -> Parameters:
        """`rate` times the gradient. The rate is multiplied in where it is cheapest, at the logits."""
        slope = descent.slope(self.logits(parameters, X), targets, self.rate)
        return {"weight": X.T @ slope, "bias": slope.sum(axis=0)}


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
    mu: float = 0.0
    schedule: str = "constant"

    takes_pixels: ClassVar = True

    def __post_init__(self) -> None:
        descent.check(self, {"hidden": 1})
        factor(self.schedule, 0)

    def at(self, version: int) -> MLP:
        """The same model with the rate that its schedule has for a version."""
        return replace(self, rate=self.rate * factor(self.schedule, version), schedule="constant")

    @property
    def schema(self) -> Schema:
        """The names and shapes of the arrays."""
        return (
            ("hidden.bias", (self.hidden,)),
            ("hidden.weight", (self.features, self.hidden)),
            ("output.bias", (self.classes,)),
            ("output.weight", (self.hidden, self.classes)),
        )

    @property
    def decayed(self) -> tuple[str, ...]:
        """The arrays that `l2` holds."""
        return ("hidden.weight", "output.weight")

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
        return descent.descend(self, parameters, X, y, rng)

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions and summed cross entropy. Raises as `train` does."""
        return descent.evaluate(self, parameters, X, y)

    def predict(self, parameters: Parameters, X: Examples) -> Labels:
        """The likeliest class of each example, (n,)."""
        labels: Labels = np.argmax(self.logits(parameters, X), axis=1)
        return labels

    def _activations(self, parameters: Parameters, X: Matrix) -> Matrix:
        active: Matrix = X @ parameters["hidden.weight"]
        active += parameters["hidden.bias"]
        return np.maximum(active, 0, out=active)

    def _scores(self, parameters: Parameters, active: Matrix) -> Matrix:
        logits: Matrix = active @ parameters["output.weight"]
        logits += parameters["output.bias"]
        return logits

    def logits(self, parameters: Parameters, X: Matrix) -> Matrix:
        """Scores (n, classes); their exponentials are the probabilities, but for a factor."""
        return self._scores(parameters, self._activations(parameters, X))

    def steps(self, parameters: Parameters, X: Matrix, targets: Matrix) -> Parameters:
        """`rate` times the gradient. The rate is multiplied in where it is cheapest, at the logits."""
        active = self._activations(parameters, X)
        slope = descent.slope(self._scores(parameters, active), targets, self.rate)
        behind = slope @ parameters["output.weight"].T
        behind *= active > 0
        return {
            "output.weight": active.T @ slope,
            "output.bias": slope.sum(axis=0),
            "hidden.weight": X.T @ behind,
            "hidden.bias": behind.sum(axis=0),
        }


def built_in(name: str, features: int, classes: int, options: Mapping[str, Any]) -> Trainer:
    """The model that a task names, from the task's plain values.

    `name` is `softmax` (options `epochs`, `batch`, `rate`, `l2`, `mu`, `schedule`) or `mlp` (the
    same and `hidden`). With the option `personal`, shell patterns separated by commas, the arrays
    that they fit stay with their member: `choral.learning.Personal`.

    Raises `ParameterError` for another name, another option, or a value out of range.

    >>> built_in("softmax", 64, 10, {"epochs": 5})
    Softmax(features=64, classes=10, epochs=5, batch=32, rate=0.1, l2=0.0, mu=0.0, schedule='constant')
    """
    models: dict[str, type[Softmax] | type[MLP]] = {"softmax": Softmax, "mlp": MLP}
    if name not in models:
        raise ParameterError(
            f"model {name!r} is not built in, expected one of {sorted(models)}",
            hint="any other model is an object with the methods of choral.learning.Trainer",
        )
    known = {field.name for field in fields(models[name])} - {"features", "classes"}
    for option in options:
        if option not in known | {"personal"}:
            raise ParameterError(
                f"model {name!r} has no option {option!r}, expected some of {sorted(known | {'personal'})}",
                hint="options are NAME=VALUE, as in epochs=5",
            )
    own = {option: value for option, value in options.items() if option != "personal"}
    model = models[name](features=features, classes=classes, **own)
    if "personal" not in options:
        return model
    return Personal(model, *(pattern.strip() for pattern in str(options["personal"]).split(",")))
