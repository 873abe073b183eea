"""At the front door: three names, an example that runs, and nothing heavy behind it until asked."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

import choral
from choral.client import participate
from choral.data import save_shard
from choral.founding import found


def test_the_three_names_are_the_functions_that_the_commands_call():
    assert (choral.found, choral.participate, choral.save_shard) == (found, participate, save_shard)
    assert set(choral.__all__) <= set(dir(choral))
    with pytest.raises(AttributeError, match="nothing"):
        _ = choral.nothing


def test_the_example_runs():
    done = doctest.testmod(choral, optionflags=doctest.ELLIPSIS)
    assert done.attempted >= 7
    assert done.failed == 0


def test_importing_it_imports_nothing_heavy():
    heavy = ("numpy", "pydantic", "httpx", "cryptography", "click", "rich", "quart")
    program = f"import sys, choral; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
