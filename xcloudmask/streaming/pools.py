"""Where regions are worked on: threads of this process, or the workers of a Dask cluster.

Both take a bounded number of regions at a time; nothing else of the plan is ever in a queue.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import dask
import numpy as np
from dask.system import CPU_COUNT

from xcloudmask.engine.malloc import trim
from xcloudmask.streaming.cluster import ClusterPool


class Pool(Protocol):
    """Runs region functions; a handle stands for a result to come."""

    @property
    def size(self) -> int:
        """How many regions it can keep busy."""

    def submit(self, function: Callable[..., Any], lazy: Any, *args: Any) -> Any:
        """Start ``function(*args[:2], pixels, *args[2:])``; `lazy` becomes the pixels where it runs."""

    def then(self, function: Callable[..., Any], before: Any, *args: Any) -> Any:
        """Start ``function(*args, result of before)`` without moving the result."""

    def wait(self, timeout: float | None) -> list[Any]:
        """Return handles that are done; empty if none is within `timeout` seconds."""

    def error(self, handle: Any) -> BaseException | None:
        """Return why a handle that is done has no result; None if it has one."""

    def forget(self, handle: Any) -> None:
        """Let a result go."""

    def close(self, abort: bool) -> None:
        """Wait for, or cancel, what is still running."""


def _read(lazy: Any, readers: ThreadPoolExecutor | None) -> Any:
    """Return the pixels of a NumPy or Dask array, or of a DataArray around one."""
    if not hasattr(lazy, "dask"):
        return lazy.values if hasattr(lazy, "values") else lazy
    import dask.array

    arrays: Any = dask.array
    gathered = _Gathered(lazy.shape)
    how: dict[str, Any] = (
        {"scheduler": "sync"} if readers is None else {"scheduler": "threads", "pool": readers}
    )
    arrays.store(lazy, gathered, lock=False, **how)
    return lazy.compute(**how) if gathered.pixels is None else gathered.pixels


class _Gathered:
    """Blocks put in their places as they come: no more of them are held than are being made.

    What `compute` does instead, holding all blocks until it joins them, takes twice the memory. The blocks
    tell their type: a Dask array may not know it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.pixels: Any = None
        self._lock = threading.Lock()

    def __setitem__(self, where: tuple[slice, ...], block: Any) -> None:
        with self._lock:
            if self.pixels is None:
                self.pixels = np.empty_like(block, shape=self.shape)
            masked = isinstance(block, np.ma.MaskedArray)
            if masked and not isinstance(self.pixels, np.ma.MaskedArray):
                self.pixels = np.ma.asarray(self.pixels)
            dtype = np.result_type(self.pixels, block)
            if dtype != self.pixels.dtype:
                self.pixels = self.pixels.astype(dtype)
            self.pixels[where] = block


class LocalPool:
    """Threads of this process."""

    def __init__(self, size: int | None, inline: bool) -> None:
        self.size = size or (1 if inline else 2)  # one reads while the other infers and writes
        # One pool reads for all regions. Dask would have one for each of our threads: as many more blocks in
        # memory, and as many more heaps that keep what was freed.
        self._given = dask.config.get("pool", None)
        threads = dask.config.get("num_workers", None) or CPU_COUNT
        self._readers = (
            None
            if inline
            else self._given or ThreadPoolExecutor(threads, thread_name_prefix="xcloudmask-read")
        )
        # One region is read at a time, and another inferred: without a bound, all of them may hold pixels.
        self._reading = threading.Lock()
        self._holding = threading.Semaphore(max(self.size - 1, min(self.size, 2)))
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="xcloudmask-stream")
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def submit(self, function: Callable[..., Any], lazy: Any, *args: Any) -> Future[Any]:
        """See `Pool`."""

        def run() -> Any:
            with self._holding:
                with self._reading:
                    pixels = _read(lazy, self._readers)
                    trim()  # of the blocks, which were larger than what is kept of them
                return function(*args[:2], pixels, *args[2:])

        return self._start(run)

    def then(self, function: Callable[..., Any], before: Future[Any], *args: Any) -> Future[Any]:
        """See `Pool`."""
        return self._start(partial(function, *args, before.result()))

    def _start(self, run: Callable[[], Any]) -> Future[Any]:
        def run_and_trim() -> Any:
            try:
                return run()
            finally:
                trim()

        future = self._threads.submit(run_and_trim)
        future.add_done_callback(self._done.put)
        return future

    def wait(self, timeout: float | None) -> list[Future[Any]]:
        """See `Pool`."""
        try:
            ended = [self._done.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._done.empty():
            ended.append(self._done.get())
        return ended

    def error(self, handle: Future[Any]) -> BaseException | None:
        """See `Pool`."""
        return handle.exception()

    def forget(self, handle: Future[Any]) -> None:
        """See `Pool`."""

    def close(self, abort: bool) -> None:
        """See `Pool`."""
        self._threads.shutdown(wait=True, cancel_futures=abort)
        if self._readers is not None and self._given is None:
            self._readers.shutdown()


def choose_pool(size: int | None, in_memory: bool, in_process: bool) -> Pool:
    """Return the pool to use: the current client's workers if there is one, else threads.

    Pixels that are in this process already, and stores that only this process sees, stay in it.
    """
    import sys

    if not in_memory and not in_process and "distributed" in sys.modules:
        from distributed import get_client

        try:
            return ClusterPool(get_client(), size)
        except ValueError:  # there is no client
            pass
    scheduler = dask.config.get("scheduler", None)
    return LocalPool(size, inline=scheduler in ("sync", "synchronous", "single-threaded"))
