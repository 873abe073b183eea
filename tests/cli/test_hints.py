"""A hint that names a verb or an option names one that is there, and nothing that a page forbids."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import choral
from choral.cli import cli

SRC = Path(choral.__file__).parent


def text_of(node: ast.AST) -> str:
    """The words of a string, with a dash for what is put in at run time."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join("-" if isinstance(part, ast.FormattedValue) else text_of(part) for part in node.values)
    if isinstance(node, ast.IfExp):
        return f"{text_of(node.body)} {text_of(node.orelse)}"
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def hints() -> Iterator[tuple[str, str]]:
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            found = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            if isinstance(node.func, ast.Name) and node.func.id == "Finding":
                found += node.args[3:4]
            for each in found:
                if text := text_of(each):
                    yield f"{path.relative_to(SRC)}:{each.lineno}", text


HINTS = list(hints())
KEPT = "a folder or a volume was kept"  # what is found is the state of another federation


def command_of(words: list[str]) -> click.Command | None:
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group):
            break
        if word not in command.commands:
            return None
        command = command.commands[word]
    return command


def all_options(command: click.Command = cli) -> set[str]:
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union({"--help", "--version"}, *map(all_options, inner))


def test_there_are_hints_to_look_at():
    assert len(HINTS) > 100


@pytest.mark.parametrize(("where", "hint"), HINTS, ids=[where for where, _ in HINTS])
def test_a_hint_names_only_what_there_is(where, hint):
    known = all_options()
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", hint):
        assert option in known, f"{where}: no verb has {option}: {hint}"
    for line in re.findall(r"`choral ([^`]*)`", hint):
        words = line.split()
        command = command_of([word for word in words[:2] if not word.startswith("-")])
        assert command is not None or words[0] == "-", f"{where}: there is no verb {line!r}"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
            assert command is None or option in all_options(command), f"{where}: {line!r} has no {option}"


@pytest.mark.parametrize(("where", "hint"), HINTS, ids=[where for where, _ in HINTS])
def test_a_hint_sends_nobody_to_another_state(where, hint):
    """docs/operating.md: never two copies of an aggregator; a journal is neither deleted nor replaced."""
    if hint.startswith(KEPT):
        return
    assert "--state" not in hint, f"{where}: {hint}"
    assert not re.search(r"(delete|remove|move away|move it away).*(journal|state)", hint), f"{where}: {hint}"
