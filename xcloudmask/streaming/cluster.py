"""The workers of a Dask cluster, any of which may die at any time; and what is done when all of them have."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from xcloudmask.errors import ClusterError

log = logging.getLogger("xcloudmask.streaming")

#: How often the cluster is asked how many threads it has, in seconds.
LOOK = 5.0
#: After how many seconds without a region that ends something is said, and how often what lasts is said.
SLOW, SAY = 300.0, 60.0
#: How long workers are waited for, once all of them are gone. Before the first comes there is no limit: it
#: may stand in the queue of a batch system.
NO_WORKERS = 3600.0

_ENDED = ("finished", "error", "cancelled")


class ClusterPool:
    """The workers of a distributed client. Results stay there; only their states come back.

    What a dead worker was doing, or held, Dask does again elsewhere, and counts the deaths: a task that was
    running on too many workers as they died (``distributed.scheduler.allowed-failures``) ends with an error.
    Futures that are lost meanwhile just are not done. They are looked at in turn, and their callbacks are
    no more than a reason to look at once: nothing waits for ever for a callback that does not come.
    """

    def __init__(self, client: Any, size: int | None) -> None:
        self.client = client
        self._asked = size
        self._held: set[Any] = set()
        self._running: dict[Any, None] = {}  # in the order in which they were started
        self._wake = threading.Event()
        self._health = _Health()
        self._threads = 0
        self._look()

    @property
    def size(self) -> int:
        """See `Pool`; follows the cluster as it grows and shrinks."""
        return self._asked or max(2, 2 * self._threads)

    def submit(self, function: Callable[..., Any], lazy: Any, *args: Any) -> Any:
        """See `Pool`."""
        from dask.delayed import delayed

        call = delayed(function, pure=False)(*args[:2], lazy, *args[2:])
        return self._watch(self._try(lambda: self.client.compute(call)))

    def then(self, function: Callable[..., Any], before: Any, *args: Any) -> Any:
        """See `Pool`."""
        return self._watch(
            self._try(lambda: self.client.submit(function, *args, before, pure=False, priority=10))
        )

    def _try(self, start: Callable[[], Any]) -> Any:
        try:
            return start()
        except Exception:
            self._check_client()  # why, if the reason is that there is no cluster any more
            raise

    def _watch(self, future: Any) -> Any:
        self._held.add(future)
        self._running[future] = None
        future.add_done_callback(lambda _: self._wake.set())
        return future

    def wait(self, timeout: float | None) -> list[Any]:
        """See `Pool`."""
        self._wake.wait(timeout)
        self._wake.clear()
        self._check_client()
        ended = [future for future in self._running if future.status in _ENDED]
        for future in ended:
            del self._running[future]
        if time.monotonic() >= self._health.next_look:
            self._look()
        self._health.note(ended=bool(ended), running=len(self._running), threads=self._threads)
        return ended

    def _look(self) -> None:
        self._health.next_look = time.monotonic() + LOOK
        with suppress(OSError):  # the scheduler does not answer: the client notices, and tries again
            self._threads = sum(self.client.nthreads().values())

    def _check_client(self) -> None:
        if self.client.status in ("closing", "closed"):
            raise ClusterError(
                "the Dask cluster is gone: its client was closed, or its scheduler does not answer any more. "
                "What is recorded as done is kept: start a cluster, and run the same call again"
            )

    def error(self, handle: Any) -> BaseException | None:
        """See `Pool`."""
        if handle.status == "cancelled":  # for which Dask's own `exception` is None
            return CancelledError("the cluster dropped it: it was restarted, or its scheduler was")
        # Or finished. If its worker has died since, what needs the result waits for another.
        error: BaseException | None = handle.exception() if handle.status == "error" else None
        return error

    def forget(self, handle: Any) -> None:
        """See `Pool`."""
        self._held.discard(handle)
        self._running.pop(handle, None)
        handle.release()

    def close(self, abort: bool) -> None:
        """See `Pool`."""
        if abort and self._held and self.client.status == "running":
            with suppress(OSError):
                self.client.cancel(list(self._held))
        self._held.clear()
        self._running.clear()


class _Health:
    """Says so when nothing goes on any more, and when it is time to give up."""

    def __init__(self) -> None:
        now = time.monotonic()
        self.next_look = 0.0
        self._had_workers = False
        self._without = now  # since when there is no worker
        self._ended = now  # when a region ended last
        self._said = now - SAY

    def note(self, *, ended: bool, running: int, threads: int) -> None:
        """Take note of where the cluster stands; raise `ClusterError` if its workers do not come back."""
        now = time.monotonic()
        if threads:
            self._had_workers, self._without = True, now
        if ended or not running:
            self._ended = now
        lonely = now - self._without
        if self._had_workers and lonely > NO_WORKERS:
            raise ClusterError(
                f"the Dask cluster has had no worker for {lonely:.0f} s. What is recorded as done is kept: "
                "add workers (the cluster's log may tell why they ended), and run the same call again"
            )
        if lonely >= LOOK:
            text = f"the Dask cluster has had no worker for {lonely:.0f} s: waiting for one"
        elif now - self._ended >= SLOW:
            text = (
                f"no region has ended for {now - self._ended:.0f} s; {running} are being worked on by "
                f"{threads} threads (client.processing() tells which)"
            )
        else:
            return
        if now - self._said >= SAY:
            self._said = now
            log.warning("%s", text)
