"""The report as text: what others named stays text, and a federation without a round has one, too."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from choral.cli.report import report
from choral.inspection.history import Findings, findings
from direct import Direct

HTML = """</style><script>x</script>'"><b onclick=x>"""


@pytest.fixture
async def found(tmp_path) -> Findings:
    async with Direct(tmp_path, 3) as home, asyncio.timeout(60):
        await asyncio.gather(*(home.play(home.machine(name)) for name in home.names))
        return findings(home.aggregator, home.store.path.parent)


class Elements(HTMLParser):
    """The tags of a document, and the names of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(name for name, _ in attrs)}
        if tag not in ("meta", "rect", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(name for name, _ in attrs)}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_whatever_others_named_is_text_in_it(found):
    plain = Elements(report(found))
    assert plain.open == []
    row = {
        **found.state["grid"][0], "state": "aborted", "id": HTML, "reason": HTML, "missing": [HTML],
        "culprits": [HTML], "cells": "axw",
    }  # fmt: skip
    state = json.loads(json.dumps(found.state))
    for name in ("federation", "choral", "task", "rule"):
        state[name] = HTML
    state["model"]["name"] = state["security"]["sealing"] = state["security"]["warning"] = HTML
    state["log"][0].update(model=HTML, record=HTML)
    state["grid"].append(row)
    text = report(replace(found, state=state, names=[HTML, "m2", "m3"]))
    evil = Elements(text)
    assert evil.open == []
    assert evil.seen == plain.seen
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 14


def test_a_federation_without_a_round_has_a_report_that_says_so(found):
    state = {**found.state, "curve": [], "grid": [], "saw": None, "best": None, "log": []}
    text = report(replace(found, state=state, worst_error=None))
    assert Elements(text).open == []
    for words in (
        "Nothing measured yet.",
        "No round has ended yet.",
        "no two versions compare",
    ):
        assert words in text
    assert "What the aggregator saw" not in text


def test_every_table_has_a_head_for_each_cell(found):
    tables = re.findall(r"<table>(.*?)</table>", report(found), re.S)
    assert len(tables) == 4
    for table in tables:
        head, *rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)
        assert rows
        assert {row.count("<td") for row in rows} == {head.count("<th")}, head


def test_it_begins_with_its_type_and_holds_the_style_as_it_is(found):
    text = report(found)
    assert text.startswith("<!doctype html>")
    assert 'font: 15px/1.45 system-ui, -apple-system, "Segoe UI"' in text


def test_who_was_kept_apart_is_counted_apart(found):
    state = {**found.state, "grid": [{**found.state["grid"][0], "cells": "iw-"}] * 2}
    text = " ".join(report(replace(found, state=state)).split())
    assert "<td>m2</td>" + "".join(f"<td class=n>{n}</td>" for n in (0, 0, 0, 2, 0, 0)) in text
