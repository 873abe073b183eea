"""Pictures are drawn behind one door: it says what is missing, and what cannot be written."""

import re
import sys
from pathlib import Path

import pytest

import choral
from choral.data import picture
from choral.errors import ParameterError


def test_nothing_else_imports_matplotlib():
    root = Path(choral.__file__).parent
    importing = re.compile(r"^\s*(import|from) matplotlib|import_module\(.*matplotlib", re.MULTILINE)
    found = [str(file.relative_to(root)) for file in root.rglob("*.py") if importing.search(file.read_text())]
    assert found == ["data/picture.py"]


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ParameterError, match="matplotlib, which is not installed") as refused:
        picture.figure(4, 3)
    assert "choral[pictures]" in refused.value.hint


@pytest.mark.parametrize("name", ["no/such/folder.png", "picture.docx"])
def test_what_cannot_be_written_is_said_with_a_hint(tmp_path, name):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    drawn = picture.figure(4, 3)
    with pytest.raises(ParameterError, match="cannot be written") as refused:
        picture.write(drawn, tmp_path / name, hint="-o sheet.png")
    assert refused.value.hint == "-o sheet.png"
