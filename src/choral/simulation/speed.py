"""Slow members: how soon a federation learns, by what it does about them, on a clock that is simulated.

Three ways to run the same members:

- `synchronous`: a cohort is drawn, and its round ends when the slowest of it has trained;
- `deadline`: a cohort is drawn, and whoever has not trained by then is left out;
- `stale`: as many members as a cohort has are always training; when enough updates are ready they make
  the next version, also those that start from one up to `max_staleness` versions old, discounted.

A member takes as long for every training as it takes for one, and sending takes no time. Sums are taken
over the encoded updates, in the open: masks cancel to the bit, so they would change no version.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from choral.data.examples import Examples
from choral.errors import ParameterError
from choral.learning.rules import Rule, State, fedavg
from choral.learning.step import contribution, next_model
from choral.learning.trainer import Trainer, Vector
from choral.learning.update import flatten, schema_of, unflatten
from choral.simulation.population import Population
from choral.vectors.fixed_point import RingPlan, decode


class Point(NamedTuple):
    """A version and when it was there."""

    seconds: float
    version: int
    accuracy: float
    updates: int  # that are in it
    stale: int  # of them, how many started from an older version


@dataclass(frozen=True)
class Way:
    """What is done about slow members. `ready` is the part of a cohort that is enough, 0 to 1."""

    name: str
    ready: float = 1.0
    max_staleness: int = 0


def speeds(text: str, members: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds that a training takes each member: `lognormal:SIGMA`, of median 1; or `constant`.

    Raises:
        ParameterError: another form.
    """
    name, _, number = text.partition(":")
    if text == "constant":
        return np.ones(members)
    try:
        sigma = float(number)
    except ValueError:
        sigma = math.nan
    if name != "lognormal" or not 0 < sigma <= 5:
        raise ParameterError(
            f"found the speed {text!r}, expected constant or lognormal:SIGMA with SIGMA up to 5",
            hint="lognormal:1.5 makes one member in twenty eleven times as slow as the median",
        )
    return rng.lognormal(0.0, sigma, members)


class Race:
    """The same members and first model for every way that is tried.

    Args:
        seconds: a training takes each member so long.
        cohort: members that train at once.
        seed: of the first model, of who is drawn, and of training.

    Raises:
        ParameterError: a cohort larger than the federation.
    """

    def __init__(
        self,
        trainer: Trainer,
        population: Population,
        test: Examples,
        seconds: Sequence[float] | NDArray[np.float64],
        *,
        cohort: int,
        seed: int = 0,
        clip: float = 8.0,
        rule: Rule | None = None,
    ) -> None:
        if not 2 <= cohort <= len(seconds):
            raise ParameterError(f"cohorts of {cohort} from {len(seconds)} members")
        self._trainer = trainer
        self._population = population
        self._test = test
        self._seconds = [float(one) for one in seconds]
        self._cohort = cohort
        self._seed = seed
        self._rule = rule or fedavg()
        initial = trainer.initial(np.random.default_rng(seed))
        self._schema = schema_of(initial)
        self._initial = flatten(initial, self._schema)
        self._plan = RingPlan(min(256, max(2, cohort)), clip, max(population.sizes))

    def run(self, way: Way, until: float) -> Iterator[Point]:
        """The versions that there are by `until`, in simulated seconds; the first is version 0.

        Raises:
            UpdateError: training diverged.
        """
        rng = np.random.default_rng([self._seed, 1])
        self._models: dict[int, Vector] = {0: self._initial}
        self._state: State = {}
        yield Point(0.0, 0, self._accuracy(0), 0, 0)
        yield from self._rounds(way, until, rng) if way.max_staleness == 0 else self._flow(way, until, rng)

    def _rounds(self, way: Way, until: float, rng: np.random.Generator) -> Iterator[Point]:
        now, version = 0.0, 0
        enough = max(2, math.ceil(way.ready * self._cohort))
        while True:
            drawn = rng.choice(len(self._seconds), self._cohort, replace=False)
            first = sorted((int(one) for one in drawn), key=self._seconds.__getitem__)[:enough]
            now += self._seconds[first[-1]]
            if now > until:
                return
            self._learn(version, [(member, version) for member in first])
            version += 1
            yield Point(now, version, self._accuracy(version), len(first), 0)

    def _flow(self, way: Way, until: float, rng: np.random.Generator) -> Iterator[Point]:
        version, enough = 0, max(2, math.ceil(way.ready * self._cohort))
        training: list[tuple[float, int, int]] = []  # when it is ready, who, from which version
        ready: list[tuple[int, int]] = []

        def start(now: float) -> None:
            busy = {member for _, member, _ in training} | {member for member, _ in ready}
            free = [member for member in range(len(self._seconds)) if member not in busy]
            member = int(rng.choice(free)) if free else ready[-1][0]
            heapq.heappush(training, (now + self._seconds[member], member, version))

        for _ in range(self._cohort):
            start(0.0)
        while True:
            now, member, base = heapq.heappop(training)
            if now > until:
                return
            if version - base > way.max_staleness:  # too old: from the newest, again
                heapq.heappush(training, (now + self._seconds[member], member, version))
                continue
            ready.append((member, base))
            if len(ready) < enough:
                start(now)
                continue
            self._learn(version, ready)
            stale = sum(base < version for _, base in ready)
            version += 1
            count, ready = len(ready), []
            start(now)
            yield Point(now, version, self._accuracy(version), count, stale)

    def _learn(self, version: int, updates: Sequence[tuple[int, int]]) -> None:
        """Version + 1 from the updates of members that started from the versions named."""
        total = np.zeros(len(self._initial), np.uint32)
        weights = 0
        for member, base in updates:
            X, y = self._population.examples(member)  # noqa: N806
            model = unflatten(self._models[base], self._schema)
            rng = np.random.default_rng([self._seed, 2, base, member])
            mine = contribution(
                self._trainer, model, X, y, rng, version=base, schema=self._schema, plan=self._plan
            ).discounted(version - base)
            total += mine.vector
            weights += mine.weight
        mean = decode(total, weights, self._plan)
        new, self._state = next_model(self._rule, self._models[version], self._state, mean)
        self._models[version + 1] = new
        self._models.pop(version - 101, None)  # the largest staleness of a task is 100

    def _accuracy(self, version: int) -> float:
        return self._trainer.evaluate(unflatten(self._models[version], self._schema), *self._test).accuracy


def reached(points: Sequence[Point], accuracy: float) -> float | None:
    """When a version was that good for the first time, in simulated seconds."""
    return next((point.seconds for point in points if point.accuracy >= accuracy), None)
