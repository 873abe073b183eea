"""What options take: lists with commas, numbers, addresses; and what they do not."""

from __future__ import annotations

import click
import pytest

from choral.cli.floors import Tolerated
from choral.cli.values import COMMA_LIST, HOST, URL, Number


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (COMMA_LIST, "agg, 10.0.0.8", ("agg", "10.0.0.8")),
        (COMMA_LIST, " a ,b", ("a", "b")),
        (COMMA_LIST, "a", ("a",)),
        (Tolerated(), "quarter", "quarter"),
        (Tolerated(), "3", 3),
        (Number(0, 1), "0.5", 0.5),
        (URL, "http://[::1]:8750/", "http://[::1]:8750"),
        (HOST, "::", "::"),
        (HOST, "aggregator", "aggregator"),
    ],
)
def test_a_value_is_read(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (COMMA_LIST, "a,,b", "empty name"),
        (COMMA_LIST, "a, a", "more than once"),
        (Tolerated(), "half", "expected a number of members, or quarter"),
        (Tolerated(), "-1", "expected"),
        (Tolerated(), "٣", "expected"),
        (Number(0, 1), "nan", "finite"),
        (Number(), "inf", "finite"),
        (URL, "agg:8750", "for example http://"),
        (HOST, "a b", "host name"),
    ],
)
def test_what_is_none_is_refused_with_a_sentence(kind, text, said):
    with pytest.raises(click.BadParameter, match=said):
        kind.convert(text, None, None)
