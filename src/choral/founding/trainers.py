"""The model that a command was given: built in by name, or a person's own as FILE.py:NAME."""

from __future__ import annotations

import importlib.util
import math
import traceback
from pathlib import Path
from typing import Any

from choral.errors import ChoralError, ParameterError
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
        raise ParameterError(
            f"{path}: no such Python file",
            hint="--model FILE.py:CLASS, FILE.py:NAME of an object, softmax or mlp",
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name, None)
        trainer: Any = found() if isinstance(found, type) else found
    except ChoralError:
        raise
    except Exception as error:
        raise ParameterError(
            f"{_line(path, error)} raised {type(error).__name__}: {getattr(error, 'msg', None) or error}",
            hint=f"python {path} shows the same with everything around it",
        ) from error
    lacking = [
        what for what in ("initial", "train", "evaluate") if not callable(getattr(trainer, what, None))
    ]
    if lacking:
        raise ParameterError(
            f"{path}: {name!r} has no {', '.join(lacking)}",
            hint="a trainer has initial(rng), train(parameters, X, y, rng) and evaluate(parameters, X, y)",
        )
    return trainer  # type: ignore[no-any-return]


def _line(path: Path, error: Exception) -> str:
    """The place in the person's own file that an error comes from."""
    own = path.resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == own]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    return f"{path}, line {line}," if line else f"{path}"


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
            value = kind(text)
        except ValueError:
            continue
        if not math.isfinite(value):
            raise ParameterError(
                f"found the value {text}, expected a finite number", hint="for example epochs=5"
            )
        return value
    return text
