"""Give freed memory back to the system: a run of hours must not hold what a region of it once needed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Return freed blocks to the system where the C library is glibc; elsewhere do nothing.

    glibc keeps them in a heap for each thread, and those grow with the number of regions. This costs
    milliseconds a region. Dask's workers have an environment variable for it, which comes too late for a
    process that runs already.
    """
    if (function := _glibc_trim()) is not None:
        function(0)


@cache
def _glibc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # musl has none
        return None
    return found
