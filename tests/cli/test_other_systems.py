"""What Windows does not have is needed by no member: here it is taken away before anything is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from choral.errors import IdentityError
from choral.federation import key_file

PROGRAM = """
import asyncio, importlib, pkgutil, sys
blocked = ("fcntl", "resource", "pwd", "grp", "termios", "syslog")
for name in blocked:
    sys.modules[name] = None
def without(*_, **__):
    raise NotImplementedError
asyncio.SelectorEventLoop.add_signal_handler = without
import choral
count = 0
floors = "cli client data federation learning protocol primitives founding inspection simulation"
for package in floors.split():
    try:
        top = importlib.import_module(f"choral.{package}")
    except ModuleNotFoundError as error:
        if error.name == f"choral.{package}":
            continue
        raise
    for found in pkgutil.walk_packages(top.__path__, f"choral.{package}."):
        try:
            importlib.import_module(found.name)
            count += 1
        except ImportError as error:
            if (error.name or "").partition(".")[0] in blocked:
                raise
from choral.client.process import stop_on_sigterm
async def run():
    stop_on_sigterm(print)
asyncio.run(run())
print(count)
"""


def test_every_module_that_a_member_needs_is_imported_without_posix():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 60


def test_a_key_is_read_where_modes_say_nothing(tmp_path, monkeypatch):
    key = tmp_path / "identity.pem"
    key_file.write(key, b"key\n")
    key.chmod(0o666)  # what Windows says of every file
    with pytest.raises(IdentityError, match="every user"):
        key_file.read(key)
    monkeypatch.delattr(os, "getuid")
    assert key_file.read(key) == b"key\n"
