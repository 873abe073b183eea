"""What CONTRIBUTING.md says of the tree is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(LAYERS,) = (contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
FLOORS = [{name.strip().removeprefix("choral.") for name in layer.split("|")} for layer in LAYERS]


def part(head: str) -> str:
    found = re.search(rf"^## {re.escape(head)}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    assert found, head
    return found[1]


def test_the_floors_are_drawn_as_they_are_held() -> None:
    drawing = re.search(r"^```\n(.*?)^```$", part("The floors"), re.M | re.S)
    assert drawing
    drawn = []
    for line in drawing[1].splitlines():
        names, says = re.split(r"\s{2,}", line, maxsplit=1)
        assert says
        drawn.append(set(names.split(" | ")))
    assert drawn == FLOORS


def test_every_module_stands_on_a_floor() -> None:
    outside = {"__init__", "__main__", "ping"}  # the front doors, and a probe that must start at once
    there = {path.stem for path in (ROOT / "src/choral").iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in (ROOT / "src/choral").glob("*/__init__.py")}
    assert there - outside == set().union(*FLOORS)


def test_every_place_that_a_recipe_names_is_there() -> None:
    recipes = part("Where does it go?")
    named = [name for name in re.findall(r"`([\w./]+)`", recipes) if "/" in name or name.endswith(".toml")]
    assert len(named) > 15
    gone = [name for name in named if not any((ROOT / at / name).exists() for at in ("", "src/choral"))]
    assert not gone


def test_what_a_recipe_says_of_a_module_is_in_it() -> None:
    found = re.findall(r"`(_?[A-Z_]{4,})` in `([\w./]+\.py)`", part("Where does it go?"))
    assert found
    for name, path in found:
        assert re.search(rf"^{name}\b", (ROOT / path).read_text(), re.M), (name, path)
