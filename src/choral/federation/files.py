"""Files that people edit: TOML in, every field checked and told in words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from choral.errors import ParameterError

M = TypeVar("M", bound=BaseModel)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
HEX32 = "^[0-9a-f]{64}$"
_FORMS = {
    NAME: "up to 64 letters, digits, dots, dashes and underscores that begin with a letter or a digit",
    HEX32: "64 hexadecimal digits",
}
_AT = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)
# the last part of a union's place in pydantic's list says which alternative was tried
_TRIED = re.compile(r"^(bool|int|float|str|constrained-\w+|literal\[.*)$")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values; a byte order mark before it, as some editors write one, is passed over.

    Raises:
        ParameterError: it cannot be read, or is not TOML: with the line.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except OSError as error:
        raise ParameterError(
            f"{path}: cannot be read ({error.strerror})",
            hint="`choral init` makes a participant's folder with every file in it",
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ParameterError(
            f"{path}, line {line}: not TOML (a byte that is not UTF-8)",
            hint="save it as UTF-8 in your editor",
        ) from error
    except tomllib.TOMLDecodeError as error:
        found = _AT.match(str(error))
        where = f", line {found['line']}, column {found['column']}" if found else ""
        raise ParameterError(
            f"{path}{where}: not TOML ({found['what'] if found else error})",
            hint="the lines are NAME = VALUE, with text in quotes, below heads in [brackets]",
        ) from error


def checked(kind: type[M], values: Any, where: str, *, hint: str | None = None) -> M:
    """`values` as a model of class `kind`.

    Raises:
        ParameterError: every field that is wrong, with what was found and what was expected.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ParameterError(f"{where}: {faults(error)}", hint=hint) from None


def faults(error: ValidationError, *, hidden: str = "") -> str:
    """What is wrong with each field, in words; of those named like `hidden`, not what was found."""
    entries: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in error.errors():
        place = entry["loc"]
        if len(place) > 1 and _TRIED.match(str(place[-1])) and entry["type"] != "missing":
            place = place[:-1]
        entries.setdefault(place, []).append(dict(entry))
    return "; ".join(_fault(place, found, hidden) for place, found in entries.items())


def _fault(place: tuple[Any, ...], found: list[dict[str, Any]], hidden: str) -> str:
    key = bool(place) and place[-1] == "[key]"  # a name that is one itself
    where = ".".join(map(str, place[:-2] if key else place))
    kinds = {entry["type"] for entry in found}
    if kinds == {"missing"}:
        return f"{where} is missing"
    if kinds == {"extra_forbidden"}:
        return f"{where} is not known here"
    if kinds == {"value_error"}:
        said = "; ".join(str(entry["ctx"]["error"]) for entry in found)
        return f"{where}: {said}" if where else said
    expected = " or ".join(dict.fromkeys(_expected(entry) for entry in found))
    value = "another value" if hidden and hidden in where else f"{found[0]['input']!r:.60}"
    return f"{where or 'all of it'} {'has' if key else 'is'} {value}, expected {expected}"


def _expected(entry: dict[str, Any]) -> str:
    kind, context = str(entry["type"]), entry.get("ctx", {})
    bounds = {
        "greater_than": ("above", "gt"),
        "greater_than_equal": ("of at least", "ge"),
        "less_than": ("below", "lt"),
        "less_than_equal": ("of at most", "le"),
    }
    if kind in bounds:
        word, name = bounds[kind]
        return f"a number {word} {context[name]:g}"
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return _FORMS.get(pattern, f"text of the form {pattern}")
    if kind == "literal_error":
        return str(context["expected"])
    for start, words in (
        ("int_", "a whole number"), ("float_", "a number"), ("finite_", "a number that is finite"),
        ("bool_", "true or false"), ("string_", "text"), ("dict_", "a table"), ("model_", "a table"),
        ("tuple_", "a list"), ("list_", "a list"), ("path_", "a path"), ("too_", "another length"),
    ):  # fmt: skip
        if kind.startswith(start):
            return words
    return str(entry["msg"])
