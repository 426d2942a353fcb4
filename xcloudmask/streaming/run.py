"""The loop that carries a stream out: a bounded number of regions in flight, each recorded when durable.

A region goes through

    infer -> waiting (until all that it needs is inferred) -> finish -> done

and a failed one lets the others go on; those that need its strips cannot be finished and are recorded as
such. What a region waits for comes before it in order, and has been started before it: there is no deadlock.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from xcloudmask.engine.progress import ProgressEvent
from xcloudmask.errors import ClusterError, StoreError, StoreLockedError
from xcloudmask.store.header import read_header
from xcloudmask.store.icechunk import Batch
from xcloudmask.store.ledger import DONE, FAILED, Ledger
from xcloudmask.store.lock import Lock
from xcloudmask.store.regions import Index, Layout
from xcloudmask.store.retry import brief
from xcloudmask.store.safety_copy import drop_copy, is_open, write_copy
from xcloudmask.streaming.pools import Pool
from xcloudmask.streaming.progress import Display
from xcloudmask.streaming.report import Failure

log = logging.getLogger("xcloudmask.streaming")

#: Seconds before a region is tried again, doubled each time up to the longest.
PAUSE, LONGEST = 1.0, 60.0


@dataclass
class Steps:
    """How one region is made: the two stages, and what the first needs. `finish` None: one stage."""

    start: Callable[[Index], Any]
    finish: Callable[[Index, Any], Any] | None = None
    producers: Callable[[Index], list[Index]] | None = None
    scene_done: Callable[[Index], None] = lambda lead: None


@dataclass
class _Region:
    at: Index
    attempt: int = 0
    stage: Literal["infer", "waiting", "finish"] = "infer"
    handle: Any = None
    inferred: Any = None  # the handle of its first stage


@dataclass
class Run:
    """One run over the regions that are not done."""

    array: Any  # the mask in the store
    layout: Layout
    ledger: Ledger
    lock: Lock
    pool: Pool
    steps: Steps
    display: Display
    scene_name: Callable[[Index], str]
    regions: list[Index]
    retries: int
    batch: Batch | None = None  # None: what is written is there at once
    failures: list[Failure] = field(default_factory=list)
    pixels: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self._todo = deque(at for at in self.regions if self.ledger[at] != DONE)
        self.skipped = len(self.regions) - len(self._todo)  # regions that an earlier run did
        self._left = sum(self.layout.area(at) for at in self._todo)
        self._held: dict[Index, _Region] = {}
        self._by_handle: dict[Any, _Region] = {}
        self._later: list[tuple[float, _Region]] = []
        self._inferred: set[Index] = set()
        self._failed: set[Index] = set()
        self._began = time.monotonic()

    def go(self) -> None:
        """Carry out all regions, and close the pool."""
        try:
            self._go()
        except BaseException as error:
            if not isinstance(error, Exception):
                log.warning("finishing the regions in progress, then stopping")
            self.pool.close(abort=True)
            if not isinstance(error, StoreError):
                self._save_what_is_done()
            if self.batch is not None and not isinstance(error, StoreLockedError):
                self.batch.save_what_is_done()
            raise
        self.pool.close(abort=False)

    def _go(self) -> None:
        self._tell("start")
        target = self.ledger.target
        if self._todo:
            drop_copy(target)
        while self._todo or self._held:
            self.lock.check()
            self._start_more()
            if self._by_handle:
                pause = 0.5
            else:
                pause = max(min((due for due, _ in self._later), default=0.0) - time.monotonic(), 0.001)
            handles = self.pool.wait(pause)
            for handle in handles:
                self._settle(self._by_handle.pop(handle))
            self._finish_ready()
            self.ledger.measure(self.array, self.layout)
            self.ledger.save()
            self._close_scenes(handles)
            if self.batch is not None:
                self.batch.commit_if_due()
        if is_open(target) and (header := read_header(target)) is not None:
            write_copy(target, header)
        self._tell("end")

    def _save_what_is_done(self) -> None:
        """Record the regions that were done since the ledger was written; what ended the run goes first."""
        try:
            self.ledger.measure(self.array, self.layout)
            self.ledger.save()
        except StoreError as error:
            log.warning("what was done last could not be recorded: %s", brief(error))

    def _start_more(self) -> None:
        now = time.monotonic()
        for due, region in [pair for pair in self._later if pair[0] <= now]:
            self._later.remove((due, region))
            self._start(region)
        while self._todo and len(self._held) < self.pool.size:
            region = _Region(self._todo.popleft())
            self._held[region.at] = region
            self._start(region)

    def _start(self, region: _Region) -> None:
        region.attempt += 1
        region.stage = "infer"
        self._launch(region, partial(self.steps.start, region.at))

    def _launch(self, region: _Region, step: Callable[[], Any]) -> None:
        try:
            region.handle = step()
        except (StoreError, ClusterError):
            raise
        except Exception as error:  # the graph of this region cannot be built
            self._fail(region, error)
        else:
            self._by_handle[region.handle] = region

    def _settle(self, region: _Region) -> None:
        """Take note that a stage of a region has ended."""
        error = self.pool.error(region.handle)
        if isinstance(error, StoreError):
            raise error
        if error is not None:
            self._fail(region, error)
        elif region.stage == "infer" and self.steps.finish is not None:
            region.stage, region.inferred, region.handle = "waiting", region.handle, None
            self._inferred.add(region.at)
        else:
            self._done(region)

    def _finish_ready(self) -> None:
        """Finish the regions that have all they need, and give up those that never will."""
        if self.steps.finish is None or self.steps.producers is None:
            return
        for region in [region for region in self._held.values() if region.stage == "waiting"]:
            needed = [at for at in self.steps.producers(region.at) if at not in self._inferred]
            missing = [at for at in needed if self.ledger[at] != DONE]
            lost = [at for at in missing if at in self._failed]
            if lost:
                self._give_up(region, f"waits for region {lost[0]}, which failed")
            elif not missing:
                region.stage = "finish"
                self._launch(region, partial(self.steps.finish, region.at, region.inferred))

    def _fail(self, region: _Region, error: BaseException) -> None:
        message = brief(error)
        if region.attempt <= self.retries:
            # From the start: what it had found may be gone with the worker that held it.
            self._let_go(region)
            pause = min(PAUSE * 2 ** (region.attempt - 1), LONGEST)
            log.warning(
                "region %s of %s: trying again in %.0f s: %s", region.at, self._scene(region), pause, message
            )
            self._later.append((time.monotonic() + pause, region))
            return
        log.error("region %s of %s failed: %s", region.at, self._scene(region), message)
        self._failed.add(region.at)
        self._give_up(region, message)

    def _give_up(self, region: _Region, message: str) -> None:
        self._drop(region)
        self.failures.append(Failure(region.at, self._scene(region), message))
        self.ledger.mark(region.at, FAILED, message)
        if self.batch is not None:
            self.batch.add(region.at, failed=True)
        self._left -= self.layout.area(region.at)
        self._tell("failed", region, message)

    def _done(self, region: _Region) -> None:
        area = self.layout.area(region.at)
        self._drop(region)
        self.ledger.mark(region.at, DONE)
        if self.batch is not None:
            self.batch.add(region.at)
        self.pixels += area
        self._left -= area
        self.written += 1
        log.debug("region %s of %s done", region.at, self._scene(region))
        self._tell("done", region)

    def _drop(self, region: _Region) -> None:
        del self._held[region.at]
        self._let_go(region)

    def _let_go(self, region: _Region) -> None:
        for handle in (region.inferred, region.handle):
            if handle is not None:
                self.pool.forget(handle)
        region.inferred = region.handle = None

    def _close_scenes(self, ended: Iterable[Any]) -> None:
        if not ended:
            return
        for lead in {at[:-2] for at in self._inferred}:
            if self.ledger.scene_done(lead):
                self.steps.scene_done(lead)
                self._inferred = {at for at in self._inferred if at[:-2] != lead}
                log.info("scene %s done", self.scene_name(lead) or lead)

    def _scene(self, region: _Region) -> str:
        return self.scene_name(region.at[:-2]) or "the image"

    def _tell(
        self,
        kind: Literal["start", "done", "failed", "end"],
        region: _Region | None = None,
        message: str = "",
    ) -> None:
        event = ProgressEvent(
            kind=kind,
            done=self.skipped + self.written,
            total=len(self.regions),
            failed=len(self.failures),
            skipped=self.skipped,
            megapixels=self.pixels / 1e6,
            seconds=self.seconds,
            left=self._left / 1e6,
            scene="" if region is None else self._scene(region),
            region=None if region is None else region.at,
            message=message,
        )
        self.display(event)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began
