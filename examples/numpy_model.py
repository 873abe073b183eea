r"""Your own model in ten lines of numpy, and your own data.

The model is `Centroids`: one mean a class, and an example belongs to the class whose mean is nearest.
The data are made up: four measurements of three kinds of flowers, in three gardens. No garden grows
all three kinds, so none of them can learn to tell them apart alone.

    ./run data --help                                  # makes the environment, if it is not there yet
    .venv/bin/python examples/numpy_model.py shards/   # writes client_1_data.npy … and test_data.npy
    ./run init fed/ --members 3 --shards shards/ --classes 3 --rounds 6 \
        --model examples/numpy_model.py:Centroids
    ./run serve fed/aggregator
    ./run join fed/member-1 --data shards/client_1_data.npy --model examples/numpy_model.py:Centroids
    …                                                  # member-2 and member-3, each in its own terminal
    ./run predict fed/aggregator --data shards/test_data.npy --model examples/numpy_model.py:Centroids

The file with the model stays with the people: it is never sent. Every member brings its own copy.
"""
# ruff: noqa: N803  (X is a matrix, and is written so)

import sys
from pathlib import Path

import numpy as np

from choral.data import save_shard
from choral.learning import Evaluation


class Centroids:
    """What every model needs: `initial`, `train`, `evaluate`. Nothing to inherit from."""

    def initial(self, rng):
        return {"means": np.zeros((3, 4), np.float32)}

    def train(self, parameters, X, y, rng):
        means = parameters["means"].copy()
        for kind in np.unique(y):  # a kind that this member has not got stays as it is
            means[kind] = X[y == kind].mean(axis=0)
        return {"means": means}

    def evaluate(self, parameters, X, y):
        distance = ((X[:, None] - parameters["means"]) ** 2).sum(axis=2)
        return Evaluation(len(y), int((distance.argmin(1) == y).sum()), float(distance.min(1).sum()))


def flowers(kinds, count, rng):
    """Your own arrays: X float (count, 4), y integer (count,) from 0."""
    typical = np.array([[5.0, 3.4, 1.5, 0.3], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]])
    y = rng.choice(kinds, count)
    return typical[y] + rng.normal(0, 0.3, (count, 4)), y


def main(folder):
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for garden, kinds in enumerate([(0, 1), (1, 2), (2, 0)], 1):
        save_shard(folder / f"client_{garden}_data.npy", *flowers(kinds, 200, rng))
    save_shard(folder / "test_data.npy", *flowers((0, 1, 2), 300, rng))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "shards"))
