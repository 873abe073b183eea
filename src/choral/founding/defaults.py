"""What is learned, and how, if nobody says otherwise: docs/decisions/0029-defaults-of-training.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from choral.learning import rules
from choral.learning.rules import Rule

ROUNDS = 40
RULE = "fedavgm"
PLAIN = "fedavg"  # a model of one's own may send means and counts, which momentum carries past the mark
BUILT_IN = {"epochs": 5, "rate": 0.2}  # of the built-in models; a person's own has options of its own


def own(model: str) -> bool:
    """Whether a model is a person's own, as FILE.py:NAME."""
    return ":" in model


def model_options(model: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options, those that were not chosen with their defaults."""
    return dict(chosen) if own(model) else {**BUILT_IN, **chosen}


def rule_of(model: str, name: str | None, chosen: Mapping[str, Any]) -> Rule:
    """The rule, every option filled in: other defaults some day change no task.

    Raises:
        ParameterError: an unknown rule, or options that it does not have.
    """
    return rules.rule(name or (PLAIN if own(model) else RULE), dict(chosen))
