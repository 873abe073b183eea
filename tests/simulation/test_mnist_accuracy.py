# ruff: noqa: N806  (X is a matrix)
"""FedAvg on the real MNIST files, against the table that design was made by: each within a point of it.

Minutes of work, so only where CHORAL_MNIST names the folder of the four files.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from choral.learning import Softmax
from choral.simulation import Divided, Examples, Simulation

FOLDER = os.environ.get("CHORAL_MNIST")
pytestmark = pytest.mark.skipif(not FOLDER, reason="CHORAL_MNIST names no folder with the MNIST files")


@pytest.fixture(scope="module")
def mnist():
    pytest.importorskip("mnist", reason="python-mnist is not installed: pip install choral[mnist]")
    from choral.data.mnist import load  # noqa: PLC0415

    return load(Path(FOLDER), "train"), load(Path(FOLDER), "t10k")


@pytest.mark.parametrize(
    ("members", "split", "expected"),
    [
        (2, "iid", 92.5),
        (2, "dirichlet:0.5", 91.4),
        (10, "iid", 92.3),
        (10, "dirichlet:0.5", 91.8),
        (10, "dirichlet:0.1", 87.6),
        (100, "iid", 92.2),
        (100, "dirichlet:0.5", 91.4),
    ],
)
def test_softmax_reaches_what_the_plain_mean_reaches(mnist, members, split, expected):
    """K=2, 10: everybody, batch 32, rate 0.1, 60 rounds. K=100: a tenth a round, batch 10, rate 0.05, 200."""
    from choral.data.partition import split as divided  # noqa: PLC0415

    (X, y), (X_test, y_test) = mnist
    many = members == 100
    model = Softmax(784, batch=10, rate=0.05) if many else Softmax(784, batch=32, rate=0.1)
    scores = []
    for seed in range(3):
        population = Divided(X, y, divided(split, y, members, np.random.default_rng(seed)))
        test = Examples(X_test / np.float32(255), y_test)
        cohort = 10 if many else members
        simulation = Simulation(model, population, test, cohort=cohort, seed=seed, encoded=False)
        last = [100 * report.measured.accuracy for report in simulation.run(200 if many else 60)]
        scores.append(float(np.mean(last[-5:])) if many else last[-1])
    print(f"K={members} {split}: {', '.join(f'{score:.1f}' for score in scores)}")
    assert np.mean(scores) == pytest.approx(expected, abs=1)
