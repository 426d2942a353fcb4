"""What a process makes once and keeps: networks, what is made of them, locks and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcessCache(Generic[T]):
    """Values by key, each made once however many threads ask for it; one that failed is tried again.

    Examples
    --------
    >>> cache = PerProcessCache()
    >>> cache.get_or_create("a", lambda: 1), cache.get_or_create("a", lambda: 2)
    (1, 1)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._creating: dict[Hashable, threading.Lock] = {}
        self._values: dict[Hashable, T] = {}

    def get_or_create(self, key: Hashable, create: Callable[[], T]) -> T:
        """Return the value of a key; create it if there is none."""
        with self._lock:
            creating = self._creating.setdefault(key, threading.Lock())
        with creating:  # a lock a key: while one network is loaded, others can be
            if key not in self._values:
                self._values[key] = create()
            return self._values[key]

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()

    def reset_after_fork(self) -> dict[Hashable, T]:
        """Forget all values, make new locks (the old ones may be held for ever), and return the values."""
        values, self._values = self._values, {}
        self._lock, self._creating = threading.Lock(), {}
        return values
