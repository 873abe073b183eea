"""What is written is whole, or as it was."""

from __future__ import annotations

import os
import threading

import pytest

from choral.disk import write_whole


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "x"
    write_whole(file, b"old")

    def pieces():
        yield b"new"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_whole(file, pieces())
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    write_whole(file, [b"n", b"ew"], mode=0o600)
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_no_regular_file_is_written_into_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"content")
    reader.join(5)
    assert got == [b"content"]
    assert pipe.is_fifo()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path):
    file = tmp_path / ("é" * 127)
    write_whole(file, b"content")
    assert file.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [file]
