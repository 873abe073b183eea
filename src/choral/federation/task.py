"""The task: what is being learned and under which rules. Immutable; its digest is `task_digest` (§1)."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from choral.disk import write_whole
from choral.errors import ParameterError, WireError
from choral.federation.files import HEX32, NAME, checked, read_toml
from choral.primitives.identity import labelled
from choral.protocol.parameters import Parameters
from choral.protocol.wire import pack, unpack
from choral.vectors.fixed_point import RingPlan
from choral.vectors.totals import Totals

Options = dict[str, bool | int | float | str]
EDITED = "undo what was changed in it by hand, or get it anew from whoever ran `choral init`"
Hex32 = Annotated[str, Field(pattern=HEX32)]
Tolerated = Annotated[int, Field(ge=0)] | Literal["quarter"]
"""c as people say it: a number, or "quarter" for floor((n - 1) / 4)."""
Shape = tuple[Annotated[int, Field(ge=1)], ...]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Strict):
    """Which model, and the arrays that it consists of.

    `name` is a built-in one, or "custom" for a trainer that the members bring along.
    """

    name: str
    features: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=1, le=256)]
    arrays: dict[str, Shape]
    initial: Hex32  # SHA-256 of the first model's safetensors
    options: Options = {}


def colluding(tolerated: int | str) -> int | None:
    """`Tolerated` as `Parameters` takes it."""
    return tolerated if isinstance(tolerated, int) else None


class Rule(_Strict):
    """How the aggregator turns a mean update into the next model."""

    name: str = "fedavg"
    options: Options = {}


class Task(_Strict):
    """What every participant agrees on before the first round.

    `verify` and `privacy` hold the places of §6.5 and §6.6, which this version does not have.
    """

    name: Annotated[str, Field(pattern=NAME)]
    model: Model
    rule: Rule = Rule()
    rounds: Annotated[int, Field(ge=1, le=10**6)] = 20
    largest_cohort: int
    clip: float = 8.0
    weight_cap: int
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    patience: Annotated[int, Field(ge=0, le=10**6)] = 0  # versions without a better one; 0: never stop early
    max_staleness: Annotated[int, Field(ge=0, le=100)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    sealing: Literal["aes-gcm", "syft"] = "aes-gcm"
    verify: Literal[False] = False
    privacy: Literal["none"] = "none"

    @model_validator(mode="after")
    def _plan_is_possible(self) -> Task:
        try:
            _ = self.plan
        except ParameterError as error:
            raise ValueError(error.reason) from error
        if self.patience and not self.holdout:
            raise ValueError("patience goes by held-out examples, and holdout is 0")
        return self

    @cached_property
    def plan(self) -> RingPlan:
        return RingPlan(self.largest_cohort, self.clip, self.weight_cap)

    @cached_property
    def dimension(self) -> int:
        """Number of parameters d."""
        return sum(math.prod(shape) for shape in self.model.arrays.values())

    @cached_property
    def arrays(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The model's arrays in the order of the flattened vector: by name."""
        return tuple(sorted(self.model.arrays.items()))

    def parameters(self, minimum: int, tolerated: int | str) -> Parameters:
        """The protocol's frame: the task's sizes, and one participant's own floors."""
        return Parameters(
            largest=self.largest_cohort,
            dimension=self.dimension,
            auxiliary=Totals.WORDS,
            minimum=minimum,
            tolerated=colluding(tolerated),
            staleness=self.max_staleness,
        )

    @cached_property
    def digest(self) -> bytes:
        """`task_digest`: SHA-256 over the label "choral/1 task" and the canonical CBOR. 32 bytes."""
        return labelled("choral/1 task", self.encode())

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return pack(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes) -> Task:
        """The task in `data`.

        Raises:
            WireError: not the canonical CBOR of a task.
        """
        try:
            task = checked(cls, unpack(data, "task"), "the task")
        except Exception as error:
            raise WireError(f"not a task: {error}") from error
        if task.encode() != data:
            raise WireError("a task that is not in canonical CBOR")
        return task

    @classmethod
    def load(cls, path: Path) -> Task:
        """Read `task.toml`.

        Raises:
            ParameterError: missing, not TOML, or not a possible task.
        """
        return checked(cls, read_toml(path), str(path), hint=EDITED)

    def save(self, path: Path) -> None:
        write_whole(path, tomli_w.dumps(self.model_dump(mode="json")).encode())
