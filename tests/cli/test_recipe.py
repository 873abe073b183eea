"""What is learned and how is asked in one way: the same options and defaults wherever training starts."""

import pytest
from click.testing import CliRunner

from choral.cli import cli
from choral.federation.task import Task
from choral.founding.defaults import BUILT_IN, PLAIN, RULE, model_options, rule_of
from choral.learning import rules

VERBS = ("demo", "simulate", "compare", "init")
NAMES = ("rounds", "model", "options", "rule", "rule_options")


def options(verb):
    found = {option.name: option for option in cli.commands[verb].params}
    return {name: (found[name].opts, found[name].default, found[name].help) for name in NAMES}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_the_options_that_the_others_take(verb):
    assert options(verb) == options(VERBS[0])


@pytest.mark.parametrize("name", [RULE, "fedadam", "fedadagrad"])
def test_a_task_says_every_option_of_its_rule(tmp_path, name):
    """So that another default in a later version changes no federation of today."""
    done = CliRunner().invoke(
        cli,
        [
            "init",
            str(tmp_path / "fed"),
            "--members",
            "3",
            "--features",
            "4",
            "--weight-cap",
            "9",
            "--rule",
            name,
        ],
    )
    assert done.exit_code == 0, done.output
    task = Task.load(tmp_path / "fed" / "aggregator" / "task.toml")
    assert task.rule.name == name
    assert task.rule.options == dict(rules.rule(name, {}).options)
    assert task.model.options == BUILT_IN


def test_a_model_of_ones_own_gets_no_momentum_and_no_options_unasked():
    """It may send means or counts, which momentum would carry past the mark."""
    own = "mine.py:Mine"
    assert rule_of(own, None, {}).name == PLAIN
    assert model_options(own, {}) == {}
    assert dict(rule_of(own, "fedadam", {"rate": 0.5}).options)["rate"] == 0.5
