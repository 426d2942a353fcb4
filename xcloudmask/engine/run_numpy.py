"""The direct executor: the plan carried out on a NumPy array, one band of windows after another.

While one band is inferred the next is prepared and the one before it finished, so that the network never
waits. Memory beyond input and output is that of a few rows of windows, whatever the scene's height.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

import numpy as np

from xcloudmask.engine.arrays import Array, Float
from xcloudmask.engine.blend import PlacedSum
from xcloudmask.engine.devices import cpu_threads
from xcloudmask.engine.kernel import finish, infer_windows, pixel_states
from xcloudmask.engine.plan import Plan
from xcloudmask.engine.progress import Tell, tell_nobody
from xcloudmask.errors import HeldWarning, hold_warnings

T = TypeVar("T")


def run(plan: Plan, raw: Array, tell: Tell = tell_nobody) -> Array:
    """Return the output (..., y, x) or (..., class, y, x) for raw pixels (..., band, y, x).

    `tell` is told how many windows are done, and of how many.
    """
    lead = raw.shape[:-3]
    height, width = raw.shape[-2:]
    scenes = raw.reshape(-1, *raw.shape[-3:])
    classes = plan.class_axis
    dtype = np.float32 if classes else np.uint8
    out = np.empty((scenes.shape[0], *classes, height, width), dtype)
    windows = plan.tiles.count
    total = windows * len(scenes)
    for scene, pixels in enumerate(scenes):
        _run_scene(plan, pixels, out[scene], _after(scene * windows, lambda done: tell(done, total)))
    return out.reshape(*lead, *classes, height, width)


def _after(before: int, tell: Callable[[int], None]) -> Callable[[int], None]:
    """Return what tells of windows that come after so many others."""
    return lambda done: tell(before + done)


def _run_scene(plan: Plan, pixels: Array, out: Array, tell: Callable[[int], None]) -> None:
    bands = plan.y.cut(plan.y.every((plan.options.patch - plan.options.overlap) * plan.options.factors[0]))
    (col,) = plan.x.cut((pixels.shape[-1],))
    done, telling = [0] * len(bands), threading.Lock()  # windows of each band

    def tell_of(number: int, windows: int) -> None:
        with telling:
            done[number] = windows
            tell(sum(done))

    held: list[list[HeldWarning]] = [[] for _ in bands]

    def infer(number: int) -> Float | None:
        windows = bands[number].windows
        if windows[0] == windows[1]:
            return None
        first, stop = plan.y.pixel_span(windows)
        with hold_warnings(held[number]):
            sums = infer_windows(plan, pixels[:, first:stop], windows, col.windows, partial(tell_of, number))
        tell_of(number, (windows[1] - windows[0]) * plan.tiles.x.count)  # with those that held no data
        return sums

    def tell_warnings(number: int) -> None:
        for warn in held[number]:  # in the thread that has the caller's line
            warn()

    sums: dict[int, Float] = {}
    with closing(_in_order(infer, len(bands))) as inferred:
        for number, band in enumerate(bands):
            try:
                found = next(inferred)
            except Exception:
                tell_warnings(number)
                raise
            tell_warnings(number)
            if found is not None:
                sums[number] = found
            # A band is made of its own sums and those of earlier bands, which no later one may need any more.
            for old in [key for key in sums if key < band.sums[0].chunk]:
                del sums[old]
            placed = [PlacedSum(sums[p.chunk][..., p.start : p.stop, :], p.offset, 0) for p in band.sums]
            rows = slice(*band.pixels)
            states = pixel_states(plan, pixels[:, rows])
            out[..., rows, :] = finish(plan, placed, states, band.pixels, col.pixels)


def _in_order(work: Callable[[int], T], count: int) -> Generator[T]:
    """Yield what `work` makes of 0, 1, ..., in order, while it works at the two that follow."""
    if count == 1 or cpu_threads() == 1:
        yield from map(work, range(count))
        return
    with ThreadPoolExecutor(2, "xcloudmask-bands") as pool:
        begun: deque[Future[T]] = deque()
        try:
            for number in range(count):
                begun.append(pool.submit(work, number))
                if len(begun) > 2:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:  # after a failure nothing that waits is begun
            for future in begun:
                future.cancel()
