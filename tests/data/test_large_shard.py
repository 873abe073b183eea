"""A shard of 60,000 images costs its member little time and little memory."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

from choral.data import load_shard, save_shard

PROGRAM = """
import sys, time
import psutil
from choral.client.learner import _hold_out
from choral.data import load_shard
from choral.data.examples import Examples

process = psutil.Process()
before = process.memory_info().rss
began = time.perf_counter()
shard = load_shard(sys.argv[1], features=784, classes=10)
seconds = time.perf_counter() - began
opened = process.memory_info().rss - before
parts = _hold_out(Examples(shard.images, shard.labels), 0.2, 0, pixels=True)
assert len(parts[0].y) == 48000
print(seconds, opened / 1e6, (process.memory_info().rss - before) / 1e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted differently")
@pytest.mark.parametrize(("kind", "most_parted"), [("u1", 110), ("f4", 400)])
def test_60000_images_open_and_are_checked_in_no_time_and_stay_mapped(tmp_path, kind, most_parted):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60_000, 784), np.uint8)
    if kind == "f4":
        images = images.astype(np.float32) / 255
    path = save_shard(tmp_path / "large.npy", images, np.arange(60_000) % 10)
    ran = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True)
    seconds, opened, parted = map(float, ran.stdout.split())
    assert seconds < 0.2
    assert opened < 20  # what was checked is not kept
    assert parted < most_parted  # the file's pages, and a copy of its two parts in the file's own type


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system takes no advice on memory")
@pytest.mark.parametrize(("kind", "features"), [(np.uint8, 784), (np.float32, 1), (np.uint8, 1 << 20)])
def test_every_page_that_was_checked_is_let_go_once(tmp_path, monkeypatch, kind, features):
    advised = []

    class Pages(mmap.mmap):
        def madvise(self, option, start, length):
            advised.append((start, length))
            return super().madvise(option, start, length)

    n = (1 << 21) // (features * np.dtype(kind).itemsize) + 3
    path = save_shard(tmp_path / "a.npy", np.ones((n, features), kind), np.zeros(n, np.uint8))
    monkeypatch.setattr(mmap, "mmap", Pages)
    load_shard(path)
    assert len(advised) > 2
    ends = [0]
    for start, length in advised:
        assert start == ends[-1]
        ends.append(start + length)
    assert ends[-1] == path.stat().st_size
