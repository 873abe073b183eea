"""What stands in the documentation as Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{file.name}-{at}")
    for file in sorted(DOCS.glob("*.md"))
    for at, block in enumerate(re.findall(r"^```python\n(.*?)^```$", file.read_text(), re.M | re.S), 1)
    if file.name in ("from-pysyft.md",)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_in_the_documentation_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("file", ["from-pysyft.md", "pysyft.md"])
def test_links_lead_to_files(file):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (DOCS / file).read_text()):
        assert (DOCS / target).exists(), target
