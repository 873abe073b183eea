"""Local training: the built-in models over the plain numpy loop that anybody would write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from choral.data import synthetic_digits
from choral.learning import MLP, Softmax
from figures import Figure, ratio

FEATURES, CLASSES, HIDDEN, BATCH, RATE = 784, 10, 64, 32, 0.1


def _batches(y: Any, rng: np.random.Generator) -> Any:
    order = rng.permutation(len(y))
    return (order[at : at + BATCH] for at in range(0, len(y), BATCH))


def _slope(z: Any, targets: Any) -> Any:
    z -= z.max(1, keepdims=True)
    e = np.exp(z)
    return (e / e.sum(1, keepdims=True) - targets) * np.float32(RATE / len(z))


def plain_softmax(X: Any, y: Any, rng: np.random.Generator) -> None:  # noqa: N803
    W, b = np.zeros((FEATURES, CLASSES), np.float32), np.zeros(CLASSES, np.float32)  # noqa: N806
    T = np.eye(CLASSES, dtype=np.float32)[y]  # noqa: N806
    for rows in _batches(y, rng):
        x = X[rows]
        g = _slope(x @ W + b, T[rows])
        W -= x.T @ g  # noqa: N806
        b -= g.sum(0)


def plain_mlp(X: Any, y: Any, rng: np.random.Generator) -> None:  # noqa: N803
    W = rng.standard_normal((FEATURES, HIDDEN), dtype=np.float32) * np.float32(0.05)  # noqa: N806
    V = rng.standard_normal((HIDDEN, CLASSES), dtype=np.float32) * np.float32(0.1)  # noqa: N806
    b, c = np.zeros(HIDDEN, np.float32), np.zeros(CLASSES, np.float32)
    T = np.eye(CLASSES, dtype=np.float32)[y]  # noqa: N806
    for rows in _batches(y, rng):
        x = X[rows]
        a = np.maximum(x @ W + b, 0)
        g = _slope(a @ V + c, T[rows])
        d = (g @ V.T) * (a > 0)
        V -= a.T @ g  # noqa: N806
        c -= g.sum(0)
        W -= x.T @ d  # noqa: N806
        b -= d.sum(0)


def train_over_loop(times: int) -> dict[str, Figure]:
    """One epoch over 6,000 images, `train` over the loop; from pixels as a shard holds them, and floats."""
    pixels, y = synthetic_digits(6000, seed=0)
    floats = pixels.astype(np.float32) / 255
    found: dict[str, Figure] = {}
    peers: list[tuple[str, Any, Callable[[Any, Any, np.random.Generator], None]]] = [
        ("softmax", Softmax(FEATURES), plain_softmax),
        ("mlp", MLP(FEATURES), plain_mlp),
    ]
    for name, model, loop in peers:
        start = model.initial(np.random.default_rng(0))

        def plain(loop: Any = loop) -> None:
            loop(floats, y, np.random.default_rng(1))

        for kind, X in (("float", floats), ("pixels", pixels)):  # noqa: N806

            def product(model: Any = model, start: Any = start, X: Any = X) -> None:  # noqa: N803
                model.train(start, X, y, np.random.default_rng(1))

            found[f"{name}, {kind}"] = ratio(product, plain, times)
    return found
