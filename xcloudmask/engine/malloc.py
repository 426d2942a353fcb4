"""Give freed memory back to the system: a run of hours must not hold what a region of it once needed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache

#: From this size on, blocks are mapped on their own (bytes).
LARGE = 16 << 20
#: What `mallopt` calls that limit.
_MMAP_THRESHOLD = -3


def trim() -> None:
    """Return freed blocks to the system where the C library is glibc; elsewhere do nothing.

    glibc keeps them in a heap for each thread, and those grow with the number of regions. This costs
    milliseconds a region. Dask's workers have an environment variable for it, which comes too late for a
    process that runs already.
    """
    if (function := _glibc_trim()) is not None:
        function(0)


@cache
def map_large_blocks() -> None:
    """Have glibc map blocks of `LARGE` bytes or more on their own, for the rest of the process.

    By itself it raises that limit to 32 MiB as such blocks are freed. From then on the planes of a region lie
    in heaps, and holes between them are held: a tenth of the memory of a long run. Dask's workers never raise
    it, from 128 KiB, as Dask starts them with ``MALLOC_TRIM_THRESHOLD_``: every array of a window is mapped
    anew there, page by page, which takes up to a tenth of the time of a mask. It is a setting of the whole
    process: the command line calls this, and a model on a Dask worker; in others it is the user's, who has
    ``MALLOC_MMAP_THRESHOLD_``. Who has set that is left alone.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in tunables:
        return
    if (function := _glibc("mallopt")) is not None:
        function(_MMAP_THRESHOLD, LARGE)


def _glibc_trim() -> Callable[[int], int] | None:
    return _glibc("malloc_trim")


@cache
def _glibc(name: str) -> Callable[..., int] | None:
    """Return a function of the C library; None where that is another one."""
    if sys.platform != "linux":
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):  # musl has none
        return None
    return function
