"""Pixels are read block by block, and are what Dask's own compute returns."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.array
import numpy as np
import pytest

from xcloudmask.streaming.pools import LocalPool, _read

VALUES = np.arange(40, dtype=np.uint16).reshape(5, 8)


@pytest.mark.parametrize("inline", [False, True])
def test_blocks_come_to_their_places_with_their_own_type(inline: bool) -> None:
    whole = dask.array.from_array(VALUES, chunks=(2, 3))
    liar = dask.array.Array(whole.dask, whole.name, whole.chunks, meta=np.empty((0, 0), np.float32))
    with ThreadPoolExecutor(2) as pool:
        found = _read(liar[1:5, 2:7], None if inline else pool)
        empty = _read(whole[:0], None if inline else pool)
    np.testing.assert_array_equal(found, VALUES[1:5, 2:7])
    assert found.dtype == np.uint16
    assert empty.shape == (0, 8)


def test_masked_blocks_stay_masked() -> None:
    def mask(block: Any, block_info: Any = None) -> Any:
        return np.ma.masked_equal(block, 12) if block_info[0]["chunk-location"] == (0, 1) else block

    cut = dask.array.from_array(VALUES, chunks=(2, 3)).map_blocks(mask, dtype=np.uint16, meta=VALUES[:0, :0])
    found = _read(cut, None)
    assert np.argwhere(np.ma.getmaskarray(found)).tolist() == [[1, 4]]
    np.testing.assert_array_equal(found.data, VALUES)


def test_one_pool_reads_for_all_regions() -> None:
    names = set()

    def block(values: Any) -> Any:
        names.add(threading.current_thread().name)
        return values

    lazy = dask.array.from_array(VALUES, chunks=1).map_blocks(block, dtype=np.uint16, meta=VALUES[:0, :0])
    with dask.config.set(num_workers=2):
        pool = LocalPool(4, inline=False)
    handles = [pool.submit(lambda a, b, pixels: int(pixels.sum()), lazy, 0, 0) for _ in range(8)]
    assert {handle.result() for handle in handles} == {int(VALUES.sum())}
    pool.close(abort=False)
    assert 1 <= len(names) <= 2


class Pixels:
    """Lazy pixels; whoever reads them meets there who else does."""

    def __init__(self, meet: Callable[[], object]) -> None:
        self.meet = meet

    @property
    def values(self) -> Any:
        self.meet()
        return VALUES


def all_meet(count: int, timeout: float) -> Callable[[], bool]:
    """Return what waits until `count` threads are there at once, and tells whether they were."""
    barrier = threading.Barrier(count)

    def meet() -> bool:
        try:
            barrier.wait(timeout)
        except threading.BrokenBarrierError:
            return False
        return True

    return meet


def ask(a: Any, b: Any, pixels: Any, meet: Callable[[], bool]) -> bool:
    return meet()


@pytest.mark.parametrize(("size", "held"), [(1, 1), (2, 2), (3, 2), (5, 4)])
def test_pixels_are_held_of_one_region_fewer_than_there_are_and_of_two_if_there_are(
    size: int, held: int
) -> None:
    pool = LocalPool(size, inline=False)
    here, beyond = all_meet(held, timeout=60), all_meet(held + 1, timeout=0.5)
    together = [pool.submit(ask, VALUES, 0, 0, here) for _ in range(held)]
    assert all(handle.result() for handle in together)
    apart = [pool.submit(ask, VALUES, 0, 0, beyond) for _ in range(held + 1)]
    assert not any(handle.result() for handle in apart)
    pool.close(abort=False)


def test_one_region_is_read_at_a_time() -> None:
    pool, two, met = LocalPool(3, inline=False), all_meet(2, timeout=0.5), []
    lazy = Pixels(lambda: met.append(two()))
    for handle in [pool.submit(ask, lazy, 0, 0, lambda: True) for _ in range(2)]:
        assert handle.result()
    pool.close(abort=False)
    assert met
    assert not any(met)
