# ruff: noqa: N803, N806  (X is a matrix, and is written so)
"""A linear model of scikit-learn as trainer (extra `choral[sklearn]`).

    trainer = SklearnTrainer(SGDClassifier(loss="log_loss"), features=64, classes=10)
    participate("fed/member-1", "client_1_data.npy", trainer)

Two arrays are in the federation, `coef` and `intercept`. So only estimators that keep all they know there
can be trained, and others are refused by name. Members need not have examples of every class.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, NoReturn

import numpy as np
from sklearn import linear_model
from sklearn.base import clone, is_regressor
from sklearn.exceptions import ConvergenceWarning

from choral.errors import ParameterError, UpdateError
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters

_STEPS = (
    "SGDClassifier",
    "SGDRegressor",
    "Perceptron",
    "PassiveAggressiveClassifier",  # not in every scikit-learn to come: SGDClassifier does the same
    "PassiveAggressiveRegressor",
)
_WORK = f"{', '.join(_STEPS)}, and LogisticRegression(warm_start=True)"


class SklearnTrainer:
    """An estimator that goes on from `coef_` and `intercept_`.

    A decaying `learning_rate`, "optimal" or "invscaling", is counted on from version to version, as if each
    version before had been trained on as many examples as there are here: see `at`.

    Args:
        estimator: `SGDClassifier`, `SGDRegressor`, `Perceptron` or another one with `partial_fit`, which
            makes `epochs` passes; or `LogisticRegression(warm_start=True)`, whose solver makes at most
            `max_iter` steps.
        features, classes: those of the task; a regressor has no classes.
        epochs: passes over the examples; of no meaning to `LogisticRegression`.

    Raises:
        ParameterError: an estimator that knows more than its coefficients, or forgets what it is given.
    """

    def __init__(self, estimator: Any, features: int, classes: int = 10, *, epochs: int = 1) -> None:
        _check(estimator)
        self._estimator = estimator
        self._partial = hasattr(estimator, "partial_fit")
        self._regressor = bool(is_regressor(estimator))
        self._features = features
        self._classes = classes
        self._epochs = epochs
        self._version = 0
        try:
            self._fitted(self.initial(np.random.default_rng(0)), 0)
        except ValueError as error:
            raise ParameterError(
                f"{type(estimator).__name__}: {error}", hint="see its documentation"
            ) from error

    def at(self, version: int) -> SklearnTrainer:
        """The same with the rate that a schedule of the estimator's own has by that version."""
        other = copy.copy(self)
        other._version = version
        return other

    def initial(self, rng: np.random.Generator) -> Parameters:
        """Zeros; the generator is not used."""
        if self._regressor:
            return {"coef": np.zeros(self._features, np.float32), "intercept": np.zeros(1, np.float32)}
        rows = 1 if self._classes == 2 else self._classes
        return {
            "coef": np.zeros((rows, self._features), np.float32),
            "intercept": np.zeros(rows, np.float32),
        }

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Local training; X float32 (n, features), y integer (n,).

        Raises:
            UpdateError: the estimator gives up, mostly because its numbers grow beyond all bounds.
        """
        X = np.asarray(X, np.float32)
        fitted = self._fitted(parameters, int(rng.integers(2**31)))
        try:
            if self._partial:
                fitted.t_ = 1.0 + self._version * self._epochs * len(y)
                for _ in range(self._epochs):
                    fitted.partial_fit(X, y)
            else:
                self._solve(fitted, X, y)
        except ValueError as error:
            raise UpdateError(
                f"{type(fitted).__name__}: {error}", hint="scale the features, or lower the learning rate"
            ) from error
        return {
            "coef": fitted.coef_.astype(np.float32),
            "intercept": np.atleast_1d(fitted.intercept_).astype(np.float32),
        }

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions, and the log loss, or the number of errors without probabilities.

        A regressor has no correct ones; its loss is the squared error.
        """
        fitted = self._fitted(parameters, 0)
        y = np.asarray(y)
        found = fitted.predict(np.asarray(X, np.float32))
        if self._regressor:
            squares = (found.astype(np.float64) - y) ** 2
            return Evaluation(len(y), 0, float(squares.sum()), classified=False)
        correct = int((found == y).sum())
        if not hasattr(fitted, "predict_proba"):
            return Evaluation(len(y), correct, float(len(y) - correct))
        told = fitted.predict_proba(X)[np.arange(len(y)), y.astype(np.intp)]
        losses = -np.log(np.maximum(told, np.finfo(np.float32).tiny))
        return Evaluation(len(y), correct, float(losses.sum(dtype=np.float64)))

    def _solve(self, fitted: Any, X: Examples, y: Labels) -> None:
        # examples of no weight: whoever lacks a class would otherwise fit another number of them
        X = np.concatenate([X, np.zeros((self._classes, self._features), X.dtype)])
        y = np.concatenate([y, np.arange(self._classes)])
        weight = np.ones(len(y))
        weight[-self._classes :] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps a round are the idea
            fitted.fit(X, y, sample_weight=weight)

    def _fitted(self, parameters: Parameters, seed: int) -> Any:
        """A fresh estimator that stands where the parameters say."""
        fitted = clone(self._estimator)
        if "random_state" in fitted.get_params():
            # with a plain number every epoch would go through the examples in the same order
            fitted.set_params(random_state=np.random.RandomState(seed))
        if self._partial:  # makes room for every class; what it learns here is replaced
            classes = {} if self._regressor else {"classes": np.arange(self._classes)}
            fitted.partial_fit(np.zeros((1, self._features), np.float32), np.zeros(1, np.int64), **classes)
            fitted.set_params(random_state=np.random.RandomState(seed))
        if not self._regressor:
            fitted.classes_ = np.arange(self._classes)
        fitted.n_features_in_ = self._features
        # what goes on by `partial_fit` must have the type of X
        fitted.coef_ = parameters["coef"].astype(np.float32 if self._partial else np.float64)
        fitted.intercept_ = parameters["intercept"].astype(fitted.coef_.dtype)
        return fitted


def _check(estimator: Any) -> None:
    """Refuse whatever keeps more than coefficients, or would begin anew with every training."""
    kind = type(estimator)
    name = getattr(estimator, "__name__", kind.__name__)
    known = {getattr(linear_model, one, None) for one in (*_STEPS, "LogisticRegression")}
    if kind not in known:  # nor one derived from them: it may keep anything
        _refuse(f"{name} keeps what it learns in more places than coef_ and intercept_, or is no model")
    if hasattr(estimator, "coef_"):
        _refuse(f"this {name} is fitted already, and every member would forget that", "sklearn.base.clone(…)")
    settings = estimator.get_params()
    if kind is linear_model.LogisticRegression and not settings["warm_start"]:
        _refuse(f"{name} without warm_start would start from nothing every time", f"{name}(warm_start=True)")
    if settings.get("solver") == "liblinear":
        _refuse("the solver liblinear starts from nothing every time", 'solver="lbfgs"')
    if settings.get("average"):
        _refuse("average is set: two sets of coefficients would have to be averaged", "average=False")
    if settings.get("early_stopping"):
        _refuse("early_stopping is set: it counts over epochs of one fit", "--stop-after ends the federation")
    if settings.get("class_weight") == "balanced":
        _refuse("class_weight is balanced: that differs from member to member", "give weights: {0: 1, 1: 5}")
    if settings.get("learning_rate") == "adaptive":
        _refuse(
            "learning_rate is adaptive: it counts over epochs of one fit",
            'learning_rate="constant", "optimal" or "invscaling"',
        )


def _refuse(found: str, hint: str = "choose another estimator, or write a trainer") -> NoReturn:
    raise ParameterError(f"{found}; expected one of {_WORK}", hint=hint)
