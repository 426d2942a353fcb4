"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xcloudmask.streaming import heap, pools

#: Holes between blocks that stay: what glibc never gives back by itself.
HOLES = """
import psutil
from xcloudmask.streaming.heap import trim
blocks = [bytearray(60_000) for _ in range(4000)]
kept = blocks[::40]
del blocks
before = psutil.Process().memory_info().rss
trim()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


def test_what_was_freed_goes_back_to_the_system():
    if heap._glibc_trim() is None:
        pytest.skip("no glibc here")
    said = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(said.stdout) > 100  # MiB, of 223 freed


def test_elsewhere_nothing_happens(monkeypatch):
    heap._glibc_trim.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        assert heap._glibc_trim() is None
        heap.trim()
    finally:
        heap._glibc_trim.cache_clear()


@pytest.mark.parametrize("fails", [False, True])
def test_a_pool_of_threads_trims_after_reading_and_after_each_region(monkeypatch, fails):
    calls = []
    monkeypatch.setattr(pools, "trim", lambda: calls.append(1))
    pool = pools.LocalPool(1, inline=True)

    def region(*_args):
        assert calls == [1]
        if fails:
            raise ValueError("no")

    handle = pool.submit(region, None)
    assert pool.wait(60) == [handle]
    assert calls == [1, 1]
    assert (handle.exception() is not None) == fails
    pool.close(abort=False)
