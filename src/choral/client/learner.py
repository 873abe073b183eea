"""Local learning: this member's examples and model in, an encoded update out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from choral.client.events import NotMeasured, Tell, Trained
from choral.client.journal import NOTHING
from choral.data.examples import Examples, floats
from choral.errors import ParameterError
from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.learning import step
from choral.learning.trainer import Evaluation, Parameters, Trainer
from choral.vectors.totals import Totals

_COLUMNS = 1024


@dataclass(frozen=True)
class Update:
    """What one local training gave, encoded: never leaves this process unmasked."""

    vector: NDArray[np.uint32]
    totals: Totals
    nothing: bool = False

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal updates, 32 bytes. Over sums of columns: a tenth of the time of hashing it all.

        Two updates that only share it are taken for one, and the later one is held back: harmless.
        `NOTHING` for one that says nothing.
        """
        if self.nothing:
            return NOTHING
        folded = len(self.vector) // _COLUMNS * _COLUMNS
        columns = self.vector[:folded].reshape(-1, _COLUMNS).sum(axis=0, dtype=np.uint32)
        return hashlib.sha256(columns.tobytes() + self.vector[folded:].tobytes()).digest()


def nothing_new(dimension: int) -> Update:
    """What is sent when there is nothing to add to a model: zeros, of the smallest weight, unmeasured (§5.1).

    It does not depend on this member's data, so it may be sent again and tells nothing when it is.
    """
    return Update(np.zeros(dimension, np.uint32), Totals(1), nothing=True)


def discounted(update: Update, staleness: int) -> Update:
    """An update for a cohort that stands `staleness` versions after its base.

    The weight stays: it is what the sum is divided by. What the base was measured to be is left out,
    because a record speaks of its anchor.
    """
    if not staleness:
        return update
    totals = replace(update.totals, examples=0.0, correct=0.0, loss=0.0)
    return Update(step.discounted(update.vector, staleness), totals, update.nothing)


class Learner:
    """One member's trainer and data. The same seed, data and version give the same updates.

    Args:
        trainer: its arrays must be the task's.
        examples: a part of them, `task.holdout`, only measures the model.
        seed: by default one of this member's own, from the task's.
    """

    def __init__(
        self, me: Participant, trainer: Trainer, examples: Examples, seed: int | None, tell: Tell
    ) -> None:
        self._task = me.task
        self._trainer = trainer
        self._tell = tell
        self._seed = seed if seed is not None else _own_seed(me)
        pixels = bool(getattr(trainer, "takes_pixels", False))
        self._training, self._held_out = _hold_out(examples, me.task.holdout, self._seed, pixels=pixels)

    def train(self, model: Parameters, base: Record, attempt: int, again: int = 0) -> Update:
        """An update of `base`'s model.

        Args:
            attempt: how many vectors were sent from this very model before, under whatever version. The first
                is trained on all examples; every other on nine tenths of them, its own, and says nothing of
                how good the model is: a round that was claimed to be aborted, and one without this member,
                would give its figures away (§5.1).
            again: other nine tenths for the same attempt.

        Raises:
            UpdateError: arrays that are not the task's, or not finite: nothing of them is masked.
        """
        measured = Evaluation(0, 0, 0.0)
        X, y = self._training  # noqa: N806
        if attempt:
            # seeded by the model itself: no two attempts from one model have their part in common
            words = [int(word) for word in np.frombuffer(base.parameters, "<u4")]
            rng = np.random.default_rng([self._seed, *words, attempt, again])
            keep = np.sort(rng.permutation(len(y))[: max(1, len(y) * 9 // 10)])
            X, y = X[keep], y[keep]  # noqa: N806
        else:
            rng = np.random.default_rng([self._seed, base.version, 0])
            measured = self.measure(model)
        mine = step.contribution(
            self._trainer, model, X, y, rng,
            version=base.version, schema=self._task.arrays, plan=self._task.plan,
        )  # fmt: skip
        known = measured.examples and measured.classified
        self._tell(
            Trained(
                version=base.version,
                examples=len(y),
                accuracy=measured.accuracy if known else None,
                clipped=mine.clipped,
                capped=mine.capped,
            )
        )
        totals = Totals(
            mine.weight, measured.examples, measured.correct, measured.loss, mine.clipped, int(mine.capped)
        )
        return Update(mine.vector, totals)

    def measure(self, model: Parameters) -> Evaluation:
        """A model on this member's held-out examples; nothing if its figures cannot be (§6.1)."""
        X, y = self._held_out  # noqa: N806
        if not len(y):
            return Evaluation(0, 0, 0.0)
        found = self._trainer.evaluate(model, X, y)
        if np.isfinite(found.loss) and found.loss >= 0 and 0 <= found.correct <= found.examples:
            return found
        self._tell(
            NotMeasured(
                f"the model's loss on this member's data is {float(found.loss):g}, with {found.correct} of"
                f" {found.examples} right: expected a finite loss of 0 or more"
            )
        )
        return Evaluation(0, 0, 0.0)


def _own_seed(me: Participant) -> int:
    """A seed of this member's own, from the task's."""
    return int.from_bytes(hashlib.sha256(f"{me.task.seed}/{me.name}".encode()).digest()[:8], "little")


def _hold_out(examples: Examples, part: float, seed: int, *, pixels: bool) -> tuple[Examples, Examples]:
    """Training and held-out examples. The same every time, or a member would test on what it trained on.

    Args:
        pixels: uint8 stays uint8, a quarter of the memory; otherwise each part is converted once, here.
    """
    order = np.random.default_rng([seed, 0xB0]).permutation(len(examples.y))
    cut = len(order) - int(len(order) * part)
    if cut < 1:
        raise ParameterError(f"{len(order)} examples leave none to train on")

    def of(rows: NDArray[np.int64]) -> Examples:
        X, y = examples.X[rows], examples.y[rows]  # noqa: N806
        if X.dtype == np.uint8 and not pixels:
            X = floats(X)  # noqa: N806
        return Examples(X, y)

    return of(np.sort(order[:cut])), of(np.sort(order[cut:]))
