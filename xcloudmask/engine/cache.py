"""Things that a process makes once: networks, and what is made of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Values by key, each made once however many threads ask for it; a making that fails is tried again.

    Examples
    --------
    >>> made = Once()
    >>> made.get("a", lambda: 1), made.get("a", lambda: 2)
    (1, 1)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for a key; if nothing was yet, make it."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]

    def clear(self) -> None:
        """Forget what was made."""
        with self._lock:
            self._made.clear()

    def restart(self) -> dict[Hashable, T]:
        """Begin anew, whoever may have held the locks, and return what was made."""
        made, self._made = self._made, {}
        self._lock, self._making = threading.Lock(), {}
        return made
