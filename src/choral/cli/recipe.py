"""What is learned, and how: the same options and defaults for `demo`, `simulate`, `compare` and `init`.

The defaults are those that serve members whose data differ: docs/decisions/0029-defaults-of-training.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from choral.founding.trainers import parse_options, trainer_for
from choral.learning import rules
from choral.learning.rules import Rule
from choral.learning.trainer import Trainer

F = TypeVar("F", bound=Callable[..., Any] | click.Command)
ROUNDS = 40
RULE = "fedavgm"
PLAIN = "fedavg"  # a model of one's own may send means and counts, which momentum carries past the mark
BUILT_IN = {"epochs": 5, "rate": 0.2}  # of the built-in models; a person's own has options of its own

_OPTIONS = (
    click.option(
        "--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1, 10**6), help="Model versions to train."
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


def model_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options, those that were not given with their defaults.

    Raises:
        ParameterError: a pair without "=".
    """
    chosen = parse_options(given["options"])
    return chosen if _own(given) else {**BUILT_IN, **chosen}


def trainer_of(given: Mapping[str, Any], features: int, classes: int) -> Trainer:
    """The model.

    Raises:
        ParameterError: an unknown model, or options that it does not have.
    """
    return trainer_for(given["model"], features, classes, model_options(given))[1]


def rule_of(given: Mapping[str, Any]) -> Rule:
    """The rule, every option filled in.

    Raises:
        ParameterError: an unknown rule, or options that it does not have.
    """
    name = given["rule"] or (PLAIN if _own(given) else RULE)
    return rules.rule(name, parse_options(given["rule_options"]))


def for_task(given: Mapping[str, Any]) -> dict[str, Any]:
    """Model and rule as `make_federation` takes them, whole: other defaults some day change no task."""
    rule = rule_of(given)
    return {
        "model": given["model"],
        "options": model_options(given),
        "rule": rule.name,
        "rule_options": dict(rule.options),
    }


def _own(given: Mapping[str, Any]) -> bool:
    return ":" in given["model"]
