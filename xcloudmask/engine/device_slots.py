"""Where a predictor's windows are inferred: one after the other, or a few side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from xcloudmask.engine.backend import Backend
from xcloudmask.engine.cache import Once
from xcloudmask.engine.devices import MOST_LANES


class Turns:
    """Who may infer on a device: a few at a time, or one alone.

    Examples
    --------
    >>> turns = Turns()
    >>> with turns.take(alone=False), turns.take(alone=False):
    ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.Semaphore(MOST_LANES)

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a place; or for all of them, one after the other, so that nobody else has any."""
        if not alone:
            with self._places:
                yield
            return
        with self._lock, ExitStack() as held:
            for _ in range(MOST_LANES):
                held.enter_context(self._places)
            yield


#: By device, whatever the model: who may infer on it.
turns: Once[Turns] = Once()
#: By their number: the threads in which windows are inferred side by side, whatever the model.
pools: Once[ThreadPoolExecutor] = Once()


@dataclass(frozen=True, slots=True)
class Said:
    """What an inference gave: parts of the sums, None if memory ran out; and what was odd, if anything."""

    parts: Any
    odd: str | None


@dataclass(slots=True)
class Device:
    """A device as one predictor sees it: whose turn it is, and how many of the predictor's tasks use it."""

    backend: Backend
    turns: Turns = field(default_factory=Turns)
    lanes: ThreadPoolExecutor | None = None  # None: one inference at a time
    tasks: int = 0

    @property
    def ahead(self) -> int:
        """How many batches are begun before the first of them is waited for."""
        return self.backend.lanes if self.lanes is not None else 0

    def start(self, infer: Callable[[], Said]) -> Future[Said]:
        """Infer in a lane if there are any, else here and now."""
        if self.lanes is not None:
            try:
                return self.lanes.submit(infer)
            except RuntimeError:  # the interpreter is ending and its pools take no more: this thread goes on
                pass
        done: Future[Said] = Future()
        done.set_result(infer())
        return done

    @classmethod
    def of(cls, name: str, backend: Backend) -> Device:
        """Return the device of that name, as a predictor sees it that has `backend` there."""
        count = backend.lanes
        lanes = None
        if count > 1:
            lanes = pools.get(count, lambda: ThreadPoolExecutor(count, "xcloudmask-infer"))
        return cls(backend, turns.get(name, Turns), lanes)
