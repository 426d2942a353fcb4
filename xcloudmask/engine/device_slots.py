"""Who may infer on a device: one window after the other, or a few in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from xcloudmask.engine.backend import Backend
from xcloudmask.engine.cache import PerProcessCache
from xcloudmask.engine.devices import MOST_LANES


class DeviceSlots:
    """The slots of a device, of which an inference takes one or, to be alone, all.

    Examples
    --------
    >>> slots = DeviceSlots()
    >>> with slots.take(alone=False), slots.take(alone=False):
    ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(MOST_LANES)

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a slot; or for all of them, so that nothing else runs on the device."""
        if not alone:
            with self._slots:
                yield
            return
        # The lock lets one thread at a time collect slots: two with half of them each would deadlock.
        with self._lock, ExitStack() as held:
            for _ in range(MOST_LANES):
                held.enter_context(self._slots)
            yield


#: By device, whatever the model.
device_slots: PerProcessCache[DeviceSlots] = PerProcessCache()
#: By their number: the threads in which windows are inferred in parallel, whatever the model.
thread_pools: PerProcessCache[ThreadPoolExecutor] = PerProcessCache()


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """What a batch adds to the sums, None if memory ran out; and a warning, if its probabilities are odd."""

    parts: Any
    warning: str | None


@dataclass(slots=True)
class DeviceQueue:
    """A device as one predictor uses it: slots, threads, and how many of the predictor's tasks are there."""

    backend: Backend
    slots: DeviceSlots = field(default_factory=DeviceSlots)
    threads: ThreadPoolExecutor | None = None  # None: one inference at a time, in the thread that asks
    tasks: int = 0

    @property
    def ahead(self) -> int:
        """How many batches are begun before the first of them is waited for."""
        return self.backend.lanes if self.threads is not None else 0

    def start(self, infer: Callable[[], InferenceResult]) -> Future[InferenceResult]:
        """Infer in another thread if there are any, else here and now."""
        if self.threads is not None:
            try:
                return self.threads.submit(infer)
            except RuntimeError:  # the interpreter is ending and its pools take no more: use this thread
                pass
        done: Future[InferenceResult] = Future()
        done.set_result(infer())
        return done

    @classmethod
    def of(cls, name: str, backend: Backend) -> DeviceQueue:
        """Return the queue of a predictor that has `backend` on the device of that name."""
        count = backend.lanes
        threads = None
        if count > 1:
            threads = thread_pools.get_or_create(count, lambda: ThreadPoolExecutor(count, "xcloudmask-infer"))
        return cls(backend, device_slots.get_or_create(name, DeviceSlots), threads)
