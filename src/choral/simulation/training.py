"""A whole federated training in one process: many members, cohorts drawn from them, round by round.

Everything random comes from one seed, so the same arguments give the same model, bit for bit, and the
same members drop in the same phases. That also means that whoever knows the seed knows every key: nothing
in here is for real participants.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from choral.data.examples import Examples
from choral.errors import ParameterError
from choral.learning import model_file
from choral.learning.rules import Rule, State, fedavg
from choral.learning.step import contribution, next_model
from choral.learning.trainer import Evaluation, Trainer
from choral.learning.update import flatten, schema_of, unflatten
from choral.primitives.entropy import RandomBytes, seeded
from choral.primitives.identity import Identity
from choral.protocol import phases
from choral.protocol.aggregator import AggregatorRound, Total
from choral.protocol.member import MemberRound
from choral.protocol.parameters import Parameters
from choral.protocol.transcript import context
from choral.simulation.cohort import Drops, Outcome, draw_drops, run_round
from choral.simulation.population import Population
from choral.simulation.report import Report
from choral.vectors.fixed_point import LARGEST_COHORT, RingPlan, decode
from choral.vectors.totals import Totals

_PURPOSES = ("cohort", "drops", "training")


class Simulation:
    """A federation of members that exist only as long as they are needed.

    Args:
        trainer: the model that all train.
        population: the members' data; all of a member's examples are trained on.
        test: what every model is measured on.
        cohort: members drawn anew for every round, 2 to 256.
        drop: probability that a member of a cohort vanishes somewhere in the round.
        seed: of everything.
        minimum: n_min; None is 3, or 2 in a federation of two.
        tolerated: c; None is floor((n - 1) / 4).
        clip: range of an update's coordinates.
        rule: from the mean update to the next model.
        encoded: every message passes through its encoding, and its bytes are counted.

    Attributes:
        parameters: the protocol's frame; the weight cap is the largest member's number of examples.
        rounds: how many there were.
        version: of the newest model: how many of them gave a sum.

    Raises:
        ParameterError: a federation that cannot be.
    """

    def __init__(
        self,
        trainer: Trainer,
        population: Population,
        test: Examples,
        *,
        cohort: int,
        drop: float = 0.0,
        seed: int = 0,
        minimum: int | None = None,
        tolerated: int | None = None,
        clip: float = 8.0,
        rule: Rule | None = None,
        encoded: bool = True,
    ) -> None:
        members = len(population.sizes)
        if not 2 <= cohort <= min(members, LARGEST_COHORT):
            raise ParameterError(
                f"cohorts of {cohort} from {members} members, expected 2 to {min(members, LARGEST_COHORT)}"
            )
        if not 0 <= drop <= 1:
            raise ParameterError(f"the probability to drop is {drop}, expected 0 to 1")
        minimum = minimum or min(3, members)
        if minimum < 3 and members > 2:
            raise ParameterError(
                "a smallest cohort of two is for federations of two only", hint="raise it to 3 or more"
            )
        self._trainer = trainer
        self._population = population
        self._test = test
        self.cohort = cohort
        self._drop = drop
        self._seed = seed
        self._rule = rule or fedavg()
        self._encoded = encoded
        self._numbers = {f"member-{i + 1}": i for i in range(members)}
        self._pinned = {name: self._identity(name).public for name in self._numbers}
        initial = trainer.initial(np.random.default_rng(seed))
        self._schema = schema_of(initial)
        self._model = flatten(initial, self._schema)
        self._state: State = {}
        plan = RingPlan(n_max=cohort, clip=clip, weight_cap=max(population.sizes))
        self.plan = plan
        self.parameters = Parameters(plan.n_max, len(self._model), Totals.WORDS, minimum, tolerated)
        self.rounds = 0
        self.version = 0

    # ----- what is known ----------------------------------------------------------------------

    @property
    def model_bytes(self) -> bytes:
        """The newest model as safetensors."""
        return model_file.encode(unflatten(self._model, self._schema))

    @property
    def model_digest(self) -> bytes:
        """SHA-256 of `model_bytes`, 32 bytes."""
        return model_file.digest(self.model_bytes)

    def evaluate(self) -> Evaluation:
        """The newest model on the test set."""
        return self._trainer.evaluate(unflatten(self._model, self._schema), *self._test)

    def invited(self) -> list[str]:
        """The cohort of the next round."""
        names = list(self._numbers)
        chosen = self._rng("cohort").choice(len(names), self.cohort, replace=False)
        return [names[member] for member in sorted(chosen)]

    def update_of(self, name: str) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """What a member would contribute to the next round, encoded and not masked.

        A pure function of the seed, the round and the newest model: uint32[d] and uint64[6].

        Raises:
            UpdateError: local training diverged.
        """
        member = self._numbers[name]
        X, y = self._population.examples(member)  # noqa: N806
        base = unflatten(self._model, self._schema)
        mine = contribution(
            self._trainer, base, X, y, self._rng("training", member),
            version=self.version, schema=self._schema, plan=self.plan,
        )  # fmt: skip
        return mine.vector, Totals(mine.weight, clipped=mine.clipped).encode()

    # ----- rounds -----------------------------------------------------------------------------

    def run(self, rounds: int) -> Iterator[Report]:
        """So many rounds, one after the other; an aborted one leaves the model as it was.

        Raises:
            UpdateError: training diverged.
        """
        for _ in range(rounds):
            yield self.round()

    def round(self, drops: Drops | None = None) -> Report:
        """One round, and what came of it.

        Args:
            drops: who vanishes when, instead of chance; a member that does not advertise is absent.

        Raises:
            UpdateError: training diverged.
        """
        began = time.perf_counter()
        outcome = self._play(self.invited(), drops)
        if outcome.total is not None:
            self._learn(outcome.total)
            self.version += 1
        self.rounds += 1
        seconds = time.perf_counter() - began
        return Report.of(
            outcome,
            number=self.rounds,
            version=self.version,
            invited=self.cohort,
            measured=self.evaluate(),
            seconds=seconds,
        )

    def _play(self, invited: list[str], drops: Drops | None = None) -> Outcome:
        ctx = self._context()
        # an aggregator that invites: whoever is not in this cohort is not missing from it
        aggregator = AggregatorRound({name: self._pinned[name] for name in invited}, self.parameters, ctx)

        def member(name: str) -> MemberRound:
            me = phases.Member(name, self._identity(name), self._pinned, self.parameters, ctx)
            return MemberRound(me, *self.update_of(name), self._random(name))

        if drops is None:
            drops = draw_drops(invited, self._drop, self._rng("drops"))
        return run_round(invited, member, aggregator, drops=drops, encoded=self._encoded)

    def _context(self) -> bytes:
        # nobody keeps a log here: the newest model stands for the record that names it
        return context(hashlib.sha256(b"choral/1 simulation").digest(), self.model_digest)

    def _learn(self, total: Total) -> None:
        weight = Totals.decode(total.auxiliary).weight
        mean = decode(total.main, weight, self.plan)
        self._model, self._state = next_model(self._rule, self._model, self._state, mean)

    # ----- everything random, from the seed ---------------------------------------------------

    def _rng(self, purpose: str, member: int = 0) -> np.random.Generator:
        """For data and choices: its own stream for every purpose, round and member."""
        return np.random.default_rng([self._seed, _PURPOSES.index(purpose), self.rounds, member])

    def _random(self, name: str) -> RandomBytes:
        """For a member's keys and shares of one round."""
        return seeded(f"choral simulation {self._seed} round {self.rounds} {name}".encode())

    def _identity(self, name: str) -> Identity:
        return Identity.generate(seeded(f"choral simulation {self._seed} identity {name}".encode()))
