# ruff: noqa: N803  (X is a matrix, and is written so)
"""Arrays that stay with their member: a personal head, a normalisation of one's own.

They are no part of the task: not in the vector, not in the model log, never sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from choral.disk import write_whole
from choral.errors import ParameterError
from choral.learning import model_file
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters, Trainer, trainer_at
from choral.learning.update import own_copy, schema_of

FILE = "personal.safetensors"
"""In a member's state folder: its own arrays."""


class Personal:
    """A trainer that shares the arrays of another one, but for those whose name fits a pattern.

    The member's own arrays begin as in the inner trainer's initial model, the same for everybody, and
    are what the last training made of them from then on, whether or not its update got into a sum.

    Args:
        trainer: the whole model.
        patterns: shell patterns, each of which fits some array, as in `Personal(MLP(64), "output.*")`.
        keep: file that holds the member's own arrays over a restart. `participate` gives one in the
            member's state folder if there is none.

    Raises:
        ParameterError: patterns that fit nothing, or leave nothing to share.
    """

    def __init__(self, trainer: Trainer, *patterns: str, keep: str | os.PathLike[str] | None = None) -> None:
        self.trainer = trainer
        self.patterns = patterns
        self.keep = Path(keep) if keep is not None else None
        self.takes_pixels = bool(getattr(trainer, "takes_pixels", False))
        self._own: dict[str, Any] = {}
        whole = trainer.initial(np.random.default_rng(0))
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in whole):
                raise ParameterError(
                    f"no array of the model is called {pattern!r}, there are {sorted(whole)}",
                    hint="patterns as in a shell: output.*",
                )
        own = {name: array for name, array in whole.items() if self.is_personal(name)}
        if not own or len(own) == len(whole):
            raise ParameterError(
                f"personal arrays {', '.join(patterns) or '(none)'} of {sorted(whole)}:"
                " expected some to be personal and some to be shared",
                hint="patterns as in a shell: output.*",
            )
        self._schema = schema_of(own)
        self._own.update(own_copy(own, self._schema))

    def is_personal(self, name: str) -> bool:
        """Whether an array of this name stays with the member."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def at(self, version: int) -> Personal:
        """The same with the inner trainer of a version. Both have the same arrays of the member's own."""
        other = object.__new__(Personal)
        other.__dict__.update(self.__dict__, trainer=trainer_at(self.trainer, version))
        return other

    def kept_in(self, file: Path) -> Personal:
        """The same, with the member's own arrays in `file`, and read from there if they are there.

        Raises:
            UpdateError: what is there is not this model's.
        ParameterError: it cannot be read.
        """
        other = object.__new__(Personal)
        other.__dict__.update(self.__dict__, keep=file, _own=dict(self._own))
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return other
        except OSError as error:
            raise ParameterError(
                f"{file}: cannot be read ({error.strerror or error}), expected this member's own arrays",
                hint="whoever runs the member must be able to read and write its state folder",
            ) from error
        other._own.update(model_file.decode(data, self._schema))
        return other

    def initial(self, rng: np.random.Generator) -> Parameters:
        """The shared arrays of the inner trainer's initial model."""
        return self._shared(self.trainer.initial(rng))

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Train the whole model, keep what is personal, return what is shared.

        Raises:
            ParameterError: what is personal cannot be written.
        """
        whole = self.trainer.train({**parameters, **self._own}, X, y, rng)
        own = own_copy({name: array for name, array in whole.items() if self.is_personal(name)}, self._schema)
        self._own.update(own)  # in place: `at` shares it
        if self.keep is not None:
            try:
                write_whole(self.keep, model_file.encode(own), mode=0o600)
            except OSError as error:
                raise ParameterError(
                    f"{self.keep}: cannot be written ({error.strerror or error})",
                    hint="check that the folder is there, is writable and has room",
                ) from error
        return self._shared(whole)

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Measure the shared arrays together with this member's own."""
        return self.trainer.evaluate({**parameters, **self._own}, X, y)

    def predict(self, parameters: Parameters, X: Examples) -> Labels:
        """What the inner trainer says, with this member's own arrays; it must have a `predict`."""
        labels: Labels = self.trainer.predict({**parameters, **self._own}, X)  # type: ignore[attr-defined]
        return labels

    def _shared(self, whole: Mapping[str, Any]) -> Parameters:
        return {name: array for name, array in whole.items() if not self.is_personal(name)}
