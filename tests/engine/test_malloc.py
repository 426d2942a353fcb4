"""Freed memory goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xcloudmask.engine import malloc
from xcloudmask.streaming import pools

#: Holes between blocks that stay: what glibc never gives back by itself.
HOLES = """
import psutil
from xcloudmask.engine.malloc import trim
blocks = [bytearray(60_000) for _ in range(4000)]
kept = blocks[::40]
del blocks
before = psutil.Process().memory_info().rss
trim()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


def test_what_was_freed_goes_back_to_the_system():
    if malloc._glibc_trim() is None:
        pytest.skip("no glibc here")
    said = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(said.stdout) > 100  # MiB, of 223 freed


#: glibc raises the limit when a mapped block is freed; later blocks then lie in the heap, below the last one.
PLANES = """
import psutil
from xcloudmask.engine import malloc
block = b"x" * (24 << 20)
del block
malloc.map_large_blocks()
planes = [b"x" * (18 << 20) for _ in range(9)]
kept = planes.pop()
before = psutil.Process().memory_info().rss
del planes
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


@pytest.mark.parametrize("told", [False, True])
def test_large_blocks_go_back_when_they_are_freed(told):
    if malloc._glibc_trim() is None:
        pytest.skip("no glibc here")
    env = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": str(32 << 20)} if told else {})}
    said = subprocess.run([sys.executable, "-c", PLANES], capture_output=True, text=True, check=True, env=env)
    freed = float(said.stdout)  # MiB, of 144
    assert freed < 50 if told else freed > 120, "what the user set stays"


def test_elsewhere_nothing_happens(monkeypatch):
    for function in (malloc._glibc, malloc.map_large_blocks):
        function.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        assert malloc._glibc_trim() is None
        malloc.trim()
        malloc.map_large_blocks()
    finally:
        for function in (malloc._glibc, malloc.map_large_blocks):
            function.cache_clear()


def test_the_heap_of_the_users_process_is_left_as_it_is(tmp_path):
    """Only the command line and models on Dask's workers change how memory is had, never `stream` itself."""
    from tests.scenes import noise, scene
    from xcloudmask.engine.predictor import unload
    from xcloudmask.testing import TOY

    unload()
    malloc.map_large_blocks.cache_clear()
    mask = scene(noise(2, 64, 64), ["red", "nir"]).chunk(y=32).cloudmask.predict(TOY)
    mask.rename("m").cloudmask.to_zarr(tmp_path / "m.zarr", progress=False)
    assert malloc.map_large_blocks.cache_info().misses == 0


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
