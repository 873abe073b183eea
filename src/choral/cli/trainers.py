"""The model that a command was given: built in by name, or a person's own as FILE.py:NAME."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from choral.errors import ParameterError
from choral.learning.softmax import built_in
from choral.learning.trainer import Trainer


def trainer_for(model: str, features: int, classes: int, options: dict[str, Any]) -> tuple[str, Trainer]:
    """The task's name for the model, and the trainer.

    Raises:
        ParameterError: unknown model, no such file or name, or an object that is no trainer.
    """
    if ":" not in model:
        return model, built_in(model, features, classes, options)
    path, _, name = model.rpartition(":")
    return "custom", _from_file(Path(path), name)


def _from_file(path: Path, name: str) -> Trainer:
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ParameterError(f"{path}: no such Python file", hint="--model FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    trainer: Any = found() if isinstance(found, type) else found
    lacking = [
        what for what in ("initial", "train", "evaluate") if not callable(getattr(trainer, what, None))
    ]
    if lacking:
        raise ParameterError(
            f"{path}: {name!r} has no {', '.join(lacking)}",
            hint="a trainer has initial(rng), train(parameters, X, y, rng) and evaluate(parameters, X, y)",
        )
    return trainer  # type: ignore[no-any-return]


def parse_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs as plain values.

    Raises:
        ParameterError: a pair without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ParameterError(f"found {pair!r}, expected NAME=VALUE", hint="for example epochs=5")
        options[name] = _value(text)
    return options


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
