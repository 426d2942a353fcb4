"""Where a predictor's windows are inferred: one after the other, or a few side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from xcloudmask.backends import Backend
from xcloudmask.once import Once

#: By device: whoever infers on it holds its lock.
locks: Once[threading.Lock] = Once()
#: By their number: the threads in which windows are inferred side by side, whatever the model.
pools: Once[ThreadPoolExecutor] = Once()


@dataclass(frozen=True, slots=True)
class Said:
    """What an inference gave: parts of the sums, None if memory ran out; and what was odd, if anything."""

    parts: Any
    odd: str | None


@dataclass(slots=True)
class Device:
    """A device as one predictor sees it: its lock, and how many of the predictor's tasks use it."""

    backend: Backend
    lock: threading.Lock = field(default_factory=threading.Lock)
    lanes: ThreadPoolExecutor | None = None  # None: one inference at a time, under the lock
    tasks: int = 0

    @property
    def ahead(self) -> int:
        """How many batches are begun before the first of them is waited for."""
        return self.backend.lanes if self.lanes is not None else 0

    def start(self, infer: Callable[[], Said]) -> Future[Said]:
        """Infer in a lane if there are any, else here and now."""
        if self.lanes is not None:
            return self.lanes.submit(infer)
        done: Future[Said] = Future()
        done.set_result(infer())
        return done

    @classmethod
    def of(cls, name: str, backend: Backend) -> Device:
        """Return the device of that name, as a predictor sees it that has `backend` there."""
        lock = locks.get(name, threading.Lock)
        if (count := backend.lanes) == 1:
            return cls(backend, lock)
        return cls(backend, lock, pools.get(count, lambda: ThreadPoolExecutor(count, "xcloudmask-infer")))
