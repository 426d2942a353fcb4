"""Where the time of a run goes, for ``xcloudmask bench``; nothing is noted unless somebody asks."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_noted: dict[str, float] | None = None


@contextmanager
def noting() -> Iterator[dict[str, float]]:
    """Note what all threads of this process spend on each part, in seconds.

    Examples
    --------
    >>> with noting() as seconds, spent_on("network"):
    ...     pass
    >>> list(seconds)
    ['network']
    """
    global _noted
    seconds: dict[str, float] = defaultdict(float)
    _noted = seconds
    try:
        yield seconds
    finally:
        _noted = None


@contextmanager
def spent_on(part: str, finished: Callable[[], object] | None = None) -> Iterator[None]:
    """Note what the block takes; `finished` waits for a device that may be behind, if anybody notes."""
    seconds = _noted
    if seconds is None:
        yield
        return
    start = time.perf_counter()
    yield
    if finished is not None:
        finished()
    with _lock:
        seconds[part] += time.perf_counter() - start
