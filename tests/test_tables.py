"""The tables of docs/protocol.md and docs/operating.md against the code that they describe."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from choral import errors
from choral.binding import access, problems
from choral.federation.records import Record, Records
from choral.federation.task import Model, Rule, Task
from choral.protocol import messages, wire
from choral.service.metrics import Metrics
from choral.service.settings import Settings
from choral.vectors.totals import Totals

DOCS = Path(__file__).parents[1] / "docs"
PROTOCOL, OPERATING = (DOCS / "protocol.md").read_text(), (DOCS / "operating.md").read_text()


def table(text: str, *heads: str) -> list[list[str]]:
    """The rows of the one table with these heads."""
    lines = [line.strip() for line in text.splitlines()]
    starts = [at for at, line in enumerate(lines) if line.startswith("|") and cells(line) == list(heads)]
    (start,) = starts
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


CLASSES = {
    name: kind
    for name, kind in vars(messages).items()
    if dataclasses.is_dataclass(kind) and name not in ("Length", "MaskedVector")
}


def said(hint: Any) -> str:
    """A field's type as §4's table says it."""
    if hint == messages.Name:
        return "name"
    expected, length = hint, None
    if typing.get_origin(hint) is typing.Annotated:
        expected, length = typing.get_args(hint)
    if isinstance(expected, types.GenericAlias):
        item = typing.get_args(expected)[0]
        inner = "names" if item == messages.Name else said(item)
        return f"list of {inner}"
    if dataclasses.is_dataclass(expected):
        return f"`{expected.__name__}`"
    if expected is bytes:
        return f"bytes{length.low}" if length.low == length.high else "byte strings"
    return {int: "integer", str: "text"}[expected]


def test_the_messages_of_section_4_are_those_of_the_code() -> None:
    rows = table(PROTOCOL, "message", "from", "fields")
    assert {code(name)[0] for name, _, _ in rows} == set(CLASSES)
    for name, _, fields in rows:
        hints = typing.get_type_hints(CLASSES[code(name)[0]], include_extras=True)
        own = [field.name for field in dataclasses.fields(CLASSES[code(name)[0]])]
        plain = re.sub(r"\([^)]*\)", "", fields.partition("; followed")[0])
        found = [re.fullmatch(r"`(\w+)`:? (.+)", part.strip()) for part in plain.split(", ")]
        told = [(match[1], match[2]) for match in found if match]
        assert [field for field, _ in told] == own, name
        for field, kind in told:
            assert kind.startswith(said(hints[field])), f"{name}.{field}"


def test_the_labels_of_section_3_are_those_that_are_signed_under() -> None:
    rows = {code(label)[0]: code(signs) for label, signs, _ in table(PROTOCOL, "label", "signs", "content")}
    signed = {kind.label: [name] for name, kind in CLASSES.items() if hasattr(kind, "label")}
    assert rows == {**signed, Record.label: [], access.LABEL: []}


def test_the_kinds_of_section_7_are_the_messages() -> None:
    listed = re.search(r"which is the message's name in lower\s+case \(([^)]*)\)", PROTOCOL)
    assert listed
    assert set(code(listed[1])) == {name.lower() for name in CLASSES} | {"record", "records"}
    assert wire.plain(Records(0, ()))["kind"] == "records"


def test_the_task_of_section_1_has_the_keys_of_the_code() -> None:
    text = PROTOCOL.partition("**Task.**")[2].partition("## 2")[0]
    keys, _, more = text.partition("The model map:")
    model, _, rule = more.partition("The rule map:")
    assert set(code(keys)) >= set(Task.model_fields)
    told = {word for word in code(keys) if re.fullmatch(r"[a-z_]+", word)}
    assert told - {"n_max"} <= set(Task.model_fields)
    assert set(Model.model_fields) <= set(code(model))
    assert set(Rule.model_fields) <= set(code(rule))


def test_the_words_of_section_6_are_those_of_the_totals() -> None:
    rows = table(PROTOCOL, "word", "what", "form")
    names = [what.partition(":")[0] for _, what, _ in rows]
    assert names == [field.name for field in dataclasses.fields(Totals)]
    assert [int(word) for word, _, _ in rows] == list(range(Totals.WORDS))


def slugs() -> dict[str, int]:
    """What the aggregator can answer with, and its status, by the error tree."""
    found = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ChoralError):
            status = next((code for base, code in problems.STATUS if issubclass(kind, base)), 500)
            found[kind.slug] = status
    return found


def test_the_refusals_of_section_7_have_the_status_of_the_code() -> None:
    rows = table(PROTOCOL, "status", "names")
    told = {name: int(status) for status, names in rows if status.isdecimal() for name in code(names)}
    known = slugs()
    for name, status in told.items():
        if name in known and "," not in rows[0][0]:
            assert known[name] == status, name
    answered = {name for name, status in known.items() if status != 500}
    assert answered <= {name for _, names in rows for name in code(names)}


def test_every_refusal_is_explained_to_operators() -> None:
    rows = table(OPERATING, "name", "status", "whose", "what it means", "what to do")
    told = {code(name)[0]: int(status) for name, status, *_ in rows if status.isdecimal()}
    for name, status in slugs().items():
        if status != 500:
            assert told.get(name) == status, name


WHOSE = {errors.Local: "own", errors.Peer: "others", errors.Environment: "around"}


def kinds_of_errors() -> list[type[errors.ChoralError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [
        kind for kind in found
        if issubclass(kind, errors.ChoralError) and kind not in (errors.ChoralError, *WHOSE)
    ]  # fmt: skip


def test_every_error_is_by_one_partys_doing_and_operators_are_told_whose() -> None:
    rows = table(OPERATING, "name", "status", "whose", "what it means", "what to do")
    told = {code(name)[0]: whose for name, _, whose, *_ in rows}
    assert set(told.values()) == set(WHOSE.values())
    for kind in kinds_of_errors():
        (whose,) = [word for base, word in WHOSE.items() if issubclass(kind, base)]
        assert told.get(kind.slug, whose) == whose, kind


def test_what_is_around_passes_unless_somebody_has_to_look_and_what_is_ones_own_never_does() -> None:
    passing = {kind.slug for kind in kinds_of_errors() if kind.passes}
    around = {kind.slug for kind in kinds_of_errors() if issubclass(kind, errors.Environment)}
    assert around - passing == {"clock", "tls"}
    assert passing - around == {"two-processes", "kept-out"}  # a person mends those elsewhere
    assert not [kind for kind in kinds_of_errors() if issubclass(kind, errors.Local) and kind.passes]


def test_every_setting_is_explained_to_operators() -> None:
    rows = table(OPERATING, "setting", "default", "meaning")
    assert {name for row in rows for name in code(row[0])} == set(Settings.model_fields)


def test_every_figure_is_explained_to_operators(tmp_path) -> None:
    rows = table(OPERATING, "figure", "labels", "what")
    told = {name for row in rows for name in code(row[0]) if name.startswith("choral_")}
    counted = {metric.name for metric in Metrics(wall=lambda: 0.0).registry.collect()}
    own = {name for name in counted if name.startswith("choral_")}
    assert own <= {name.removesuffix("_total") for name in told}


@pytest.mark.parametrize("page", [PROTOCOL, OPERATING], ids=["protocol", "operating"])
def test_every_table_has_as_many_cells_in_each_row_as_heads(page) -> None:
    rows = [line for line in page.splitlines() if re.match(r"\s*\|", line)]
    width = 0
    for line, before in zip(rows, ["", *rows], strict=False):
        found = len(cells(line.strip()))
        if re.fullmatch(r"[\s|:-]+", line):
            width = found
            assert found == len(cells(before.strip())), before
        elif width and f"{before}\n{line}" in page:
            assert found == width, line
