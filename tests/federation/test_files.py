"""Files that people edit: what is wrong is said in words, with the place."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from choral.errors import ParameterError
from choral.federation.files import NAME, checked, read_toml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    rate: Annotated[float, Field(gt=0)] = 1.0


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=NAME)] = "a"
    count: Annotated[int, Field(ge=1, le=9)] = 1
    kind: Literal["one", "two"] = "one"
    either: Annotated[int, Field(ge=0)] | Literal["quarter"] = "quarter"
    options: dict[str, bool | int | float | str] = {}
    people: dict[Annotated[str, Field(pattern=NAME)], int] = {}
    inner: Inner = Inner()
    flag: bool = False


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 0}, "count is 0, expected a number of at least 1"),
        ({"count": 10}, "count is 10, expected a number of at most 9"),
        ({"count": "many"}, "count is 'many', expected a whole number"),
        ({"kind": "three"}, "kind is 'three', expected 'one' or 'two'"),
        ({"either": "half"}, "either is 'half', expected a whole number or 'quarter'"),
        ({"either": -1}, "either is -1, expected a number of at least 0 or 'quarter'"),
        ({"inner": {"rate": float("nan")}}, "inner.rate is nan, expected a number that is finite"),
        ({"inner": 3}, "inner is 3, expected a table"),
        ({"surprise": 1}, "surprise is not known here"),
        ({"flag": 7}, "flag is 7, expected true or false"),
        (
            {"options": {"a": []}},
            "options.a is [], expected true or false or a whole number or a number or text",
        ),
        ({"name": "../x"}, "name is '../x', expected up to 64 letters, digits, dots, dashes and underscores"),
        ({"people": {"a b": 1}}, "people has 'a b', expected up to 64 letters"),
        ({"count": 0, "flag": 7}, "count is 0, expected a number of at least 1; flag is 7"),
    ],
)
def test_every_field_that_is_wrong_is_told_with_what_was_found_and_expected(values, said):
    with pytest.raises(ParameterError) as error:
        checked(Sample, values, "sample.toml", hint="mend it")
    assert f"sample.toml: {said}" in error.value.reason
    assert error.value.hint == "mend it"
    assert not any(
        word in error.value.reason for word in ("pydantic", "Input should", "type=", "constrained")
    )


def test_a_missing_field_is_said_to_be_missing():
    class Needs(BaseModel):
        rounds: int

    with pytest.raises(ParameterError, match=r"^task\.toml: rounds is missing$"):
        checked(Needs, {}, "task.toml")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"a = 1\nb = \n", ", line 2, column 5: not TOML"),
        (b"a = 1\n[x]\n[x]\n", ", line 3"),
        (b"a = 1\nb = '\xff'\n", ", line 2: not TOML (a byte that is not UTF-8)"),
    ],
)
def test_what_is_not_toml_is_told_with_file_and_line(tmp_path, content, where):
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(ParameterError) as error:
        read_toml(file)
    assert error.value.reason.startswith(f"{file}{where}")
    assert error.value.hint


def test_a_byte_order_mark_and_line_ends_of_another_system_are_no_difference(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\n[b]\r\nc = 'd'\r\n")
    assert read_toml(tmp_path / "x.toml") == {"a": 1, "b": {"c": "d"}}
