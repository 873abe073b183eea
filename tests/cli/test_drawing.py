"""Charts of characters are as tall as their values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from choral.cli.drawing import blocks

EIGHTHS = {sign: i for i, sign in enumerate(" ▁▂▃▄▅▆▇█")}


@given(st.lists(st.floats(-0.5, 1.5), min_size=1), st.integers(1, 12))
def test_a_column_is_as_tall_as_its_value_to_an_eighth_of_a_line(values, height):
    lines = blocks(values, 0, 1, height)
    assert [len(line) for line in lines] == [len(values)] * height
    for value, column in zip(values, zip(*lines, strict=True), strict=True):
        tall = [EIGHTHS[sign] for sign in column]
        assert tall == sorted(tall), "filled from below"
        assert -1e-6 <= 8 * height * min(1.0, max(0.0, value)) - sum(tall) < 1 + 1e-6
