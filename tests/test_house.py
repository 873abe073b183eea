"""The house keeps small: the core's code lines, the length of a module, and what no module is called."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import choral

ROOT = Path(__file__).parents[1]
SOURCE = Path(choral.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

CORE = ("primitives", "protocol")
LARGEST_CORE = 1720
"""Code lines. The aim is 1,250; docs/decisions/0031 says what stands between."""
LARGEST_MODULE = 400
"""Lines of all kinds."""
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common"}

_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def code_lines(text: str) -> int:
    """Lines with code on them: no blank ones, comments or strings that stand alone, as docstrings do."""
    said: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        alone = node.value if isinstance(node, ast.Expr) else None
        if isinstance(alone, ast.Constant) and isinstance(alone.value, str):
            said.update(range(node.lineno, node.end_lineno + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - said)


def test_what_counts_as_code():
    text = '''"""Of the module.

Two lines more.
"""

import os  # counts once

LIMIT = 3
"""Of the line above."""


def add(
    a: int, b: int
) -> int:
    """A docstring."""
    # why
    text = """one
two"""

    return a + b + LIMIT
'''
    assert code_lines(text) == 1 + 1 + 3 + 2 + 1


def test_the_core_is_small():
    found = {path: code_lines(path.read_text()) for floor in CORE for path in (SOURCE / floor).rglob("*.py")}
    assert sum(found.values()) <= LARGEST_CORE, found


def test_no_module_is_long():
    lines = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > LARGEST_MODULE} == {}


def test_every_modules_name_says_something():
    names = {path.relative_to(SOURCE): {path.stem, *path.relative_to(SOURCE).parts} for path in MODULES}
    assert [path for path, parts in names.items() if parts & SAYS_NOTHING] == []


# ----- what is imported --------------------------------------------------------------------------


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of packages that a module imports, at its top, in a function or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(name, ast.Constant):
                yield name.value


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_way_to_import_is_seen():
    text = """
import a.b, c
from d.e import f
from . import g
def late():
    import h
    return importlib.import_module("i"), importlib.import_module(f"j.{x}"), import_module(name)
"""
    assert sorted(imported(ast.parse(text))) == ["a.b", "c", "d.e", "h", "i", "j."]


def test_only_integrations_import_what_is_not_in_the_lock_file_or_syft():
    """The contract in pyproject.toml names the exceptions; here are also imports by name and new packages."""
    lock = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    usual = {normal(name) for name in lock} - {"syft-crypto-python"}
    provided = importlib.metadata.packages_distributions()
    found = set()
    for path in MODULES:
        module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for package in {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}:
            known = package in sys.stdlib_module_names or package == "choral"
            if not known and usual.isdisjoint(map(normal, provided.get(package, ()))):
                found.add(f"{module} -> {package}")
    *_, contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    exceptions = {line for line in contract["ignore_imports"] if not line.startswith("choral.integrations.")}
    assert {line for line in found if not line.startswith("choral.integrations.")} == exceptions
    assert {line.rpartition(" ")[2] for line in found} == set(contract["forbidden_modules"])
