"""One way to read lists with commas, for every verb."""

import pytest

from choral.cli.lists import listed
from choral.errors import ParameterError


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", ()),
        ("a", ("a",)),
        ("agg, 10.0.0.8", ("agg", "10.0.0.8")),
        (" a , b b,c ", ("a", "b b", "c")),
        ('"one, two",three', ("one, two", "three")),
    ],
)
def test_blanks_around_items_are_no_part_of_them(text, items):
    assert listed(text, "--names") == items


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a,,b", "an empty name"),
        ("a,", "an empty name"),
        (" ", "an empty name"),
        ("a, b,a", "'a' more than once"),
        ('"a', "no list"),
    ],
)
def test_empty_and_repeated_items_are_refused(text, found):
    with pytest.raises(ParameterError, match=found) as caught:
        listed(text, "--names")
    assert caught.value.reason.startswith("--names: found")
