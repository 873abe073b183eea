"""`found`: what is not given is read off the shards; what cannot be is refused before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

from choral.data import save_shard
from choral.errors import ChoralError, ParameterError
from choral.federation.enrolment import Participant
from choral.founding import found
from choral.founding.trainers import parse_options, trainer_for

NAMES = ["anna", "ben", "chris"]
GIVEN = {"features": 4, "weight_cap": 10}


@pytest.fixture
def shards(tmp_path):
    rng = np.random.default_rng(0)
    return [
        save_shard(tmp_path / f"client_{i}_data.npy", rng.random((n, 7)), rng.integers(0, 12, n))
        for i, n in ((1, 40), (2, 61))
    ]


def test_sizes_are_read_off_the_shards(tmp_path, shards):
    federation, task = found(tmp_path / "fed", NAMES, shards=shards, holdout=0.2)
    assert (task.model.features, task.model.classes, task.weight_cap) == (7, 12, 49)
    assert (federation.minimum, federation.tolerated) == (3, "quarter")
    assert Participant.load(tmp_path / "fed" / "ben").task == task


def test_an_ipv6_address_is_one(tmp_path):
    federation, _ = found(tmp_path / "fed", NAMES, url="http://[2001:db8::7]:8750/", **GIVEN)
    assert federation.aggregator.url == "http://[2001:db8::7]:8750"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": None}, "features and weight cap of the task are not known"),
        ({"rule": "best"}, "rule 'best' is unknown"),
        ({"rule_options": {"momentum": 3}}, "momentum is 3"),
        ({"rule_options": {"inertia": 3}}, "no option"),
        ({"model": "forest"}, "not built in"),
        ({"url": "http://::1"}, "aggregator.url"),
        ({"clip": -1.0}, "clipping range"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"surprise": 1}, "surprise is not known here"),
        ({"rounds": 0}, "rounds is 0, expected a number of at least 1"),
        ({"tolerated": 2}, "cannot bear"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path, changes, said):
    with pytest.raises(ChoralError, match=said):
        found(tmp_path / "fed", NAMES, **(GIVEN | changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def (:\n", "line 1, raised SyntaxError"),
        ("\nraise RuntimeError('on purpose')\n", "line 2, raised RuntimeError: on purpose"),
        ("class Own:\n    def __init__(self):\n        self.x = 1 / 0\n", "line 3, raised ZeroDivisionError"),
        ("class Own:\n    pass\n", "'Own' has no initial, train, evaluate"),
        ("", "'Own' has no initial"),
    ],
)
def test_a_fault_in_a_persons_own_file_is_told_with_its_line(tmp_path, content, said):
    file = tmp_path / "own.py"
    file.write_text(content)
    with pytest.raises(ParameterError, match=said) as error:
        trainer_for(f"{file}:Own", 4, 3, {})
    assert error.value.hint


@pytest.mark.parametrize("pair", ["epochs", "rate=nan", "rate=inf"])
def test_an_option_without_a_value_that_can_be_is_refused(pair):
    with pytest.raises(ParameterError, match="found"):
        parse_options((pair,))
