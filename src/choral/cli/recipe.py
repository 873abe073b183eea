"""What is learned, and how: the same options for `demo`, `simulate`, `compare` and `init`, with the defaults
of `founding.defaults`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from choral.founding import defaults
from choral.founding.defaults import BUILT_IN, PLAIN, ROUNDS, RULE
from choral.founding.trainers import parse_options, trainer_for
from choral.learning.rules import Rule
from choral.learning.trainer import Trainer

F = TypeVar("F", bound=Callable[..., Any] | click.Command)
_OPTIONS = (
    click.option(
        "--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1, 10**6),
        help="Model versions to train.",
    ),
    click.option(
        "--model", default="softmax", show_default=True, help="softmax, mlp, or your own as FILE.py:CLASS."
    ),
    click.option(
        "--option", "options", multiple=True, metavar="NAME=VALUE",
        help=f"Of the model.  [default: {' '.join(f'{name}={value}' for name, value in BUILT_IN.items())}]",
    ),
    click.option(
        "--rule",
        help=f"How the aggregator applies a mean update.  [default: {RULE}; {PLAIN} for a model of your own]",
    ),
    click.option(
        "--rule-option", "rule_options", multiple=True, metavar="NAME=VALUE",
        help="Of the rule, e.g. rate=1.0.",
    ),
)  # fmt: skip


def recipe(command: F) -> F:
    """The options `rounds`, `model`, `options`, `rule` and `rule_options` for a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def trainer_of(given: Mapping[str, Any], features: int, classes: int) -> Trainer:
    """The model.

    Raises:
        ParameterError: an unknown model, or options that it does not have.
    """
    chosen = defaults.model_options(given["model"], parse_options(given["options"]))
    return trainer_for(given["model"], features, classes, chosen)[1]


def rule_of(given: Mapping[str, Any]) -> Rule:
    """The rule, every option filled in.

    Raises:
        ParameterError: an unknown rule, or options that it does not have.
    """
    return defaults.rule_of(given["model"], given["rule"], parse_options(given["rule_options"]))


def for_task(given: Mapping[str, Any]) -> dict[str, Any]:
    """Model and rule as `founding.found` takes them."""
    return {
        "model": given["model"],
        "options": parse_options(given["options"]),
        "rule": given["rule"],
        "rule_options": parse_options(given["rule_options"]),
    }
