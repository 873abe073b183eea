# ruff: noqa: N803, N806  (X is a matrix, and is written so)
"""A linear classifier of scikit-learn as trainer (extra `choral[sklearn]`).

    trainer = SklearnTrainer(SGDClassifier(loss="log_loss"), features=64, classes=10)
    participate("fed/member-1", "client_1_data.npy", trainer)

Two arrays are in the federation, `coef` and `intercept`; what else an estimator counts starts anew with
every training. Members need not have examples of every class.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from choral.errors import ParameterError
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters


class SklearnTrainer:
    """An estimator with `coef_` and `intercept_` that goes on from where they are.

    Args:
        estimator: `SGDClassifier`, `Perceptron` or another one with `partial_fit`, which makes `epochs`
            passes; or `LogisticRegression(warm_start=True)`, whose solver makes at most `max_iter` steps.
        features, classes: those of the task.
        epochs: passes over the examples; of no meaning to `LogisticRegression`.

    Raises:
        ParameterError: an estimator that forgets what it is given.
    """

    def __init__(self, estimator: Any, features: int, classes: int = 10, *, epochs: int = 1) -> None:
        settings = estimator.get_params()
        self._partial = hasattr(estimator, "partial_fit")
        if not self._partial and not settings.get("warm_start"):
            raise ParameterError(
                f"{type(estimator).__name__} has no partial_fit and would start from nothing every time",
                hint="LogisticRegression(warm_start=True), or SGDClassifier",
            )
        if settings.get("average"):
            raise ParameterError("average is set: two sets of coefficients would have to be averaged")
        self._estimator = estimator
        self._features = features
        self._classes = classes
        self._epochs = epochs

    def initial(self, rng: np.random.Generator) -> Parameters:
        """Zeros; the generator is not used."""
        rows = 1 if self._classes == 2 else self._classes
        return {
            "coef": np.zeros((rows, self._features), np.float32),
            "intercept": np.zeros(rows, np.float32),
        }

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Local training; X float32 (n, features), y integer (n,)."""
        X = np.asarray(X, np.float32)
        fitted = self._fitted(parameters, int(rng.integers(2**31)))
        if self._partial:
            for _ in range(self._epochs):
                fitted.partial_fit(X, y)
        else:
            # examples of no weight: whoever lacks a class would otherwise fit another number of them
            X = np.concatenate([X, np.zeros((self._classes, self._features), X.dtype)])
            y = np.concatenate([y, np.arange(self._classes)])
            weight = np.ones(len(y))
            weight[-self._classes :] = 0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps a round are the idea
                fitted.fit(X, y, sample_weight=weight)
        return {
            "coef": fitted.coef_.astype(np.float32),
            "intercept": np.atleast_1d(fitted.intercept_).astype(np.float32),
        }

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions; the loss is the log loss, or the number of errors without probabilities."""
        fitted = self._fitted(parameters, 0)
        correct = int((fitted.predict(X) == y).sum())
        if not hasattr(fitted, "predict_proba"):
            return Evaluation(len(y), correct, float(len(y) - correct))
        told = fitted.predict_proba(X)[np.arange(len(y)), np.asarray(y, np.intp)]
        losses = -np.log(np.maximum(told, np.finfo(np.float32).tiny))
        return Evaluation(len(y), correct, float(losses.sum(dtype=np.float64)))

    def _fitted(self, parameters: Parameters, seed: int) -> Any:
        """A fresh estimator that stands where the parameters say."""
        fitted = clone(self._estimator)
        if "random_state" in fitted.get_params():
            fitted.set_params(random_state=seed)
        classes = np.arange(self._classes)
        if self._partial:  # makes room for every class; what it learns here is replaced
            fitted.partial_fit(np.zeros((1, self._features), np.float32), classes[:1], classes=classes)
            fitted.t_ = 1.0
        fitted.classes_ = classes
        fitted.n_features_in_ = self._features
        # what goes on by `partial_fit` must have the type of X
        fitted.coef_ = parameters["coef"].astype(np.float32 if self._partial else np.float64)
        fitted.intercept_ = parameters["intercept"].astype(fitted.coef_.dtype)
        return fitted
