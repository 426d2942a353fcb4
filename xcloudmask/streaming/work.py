"""What is done to one region, on whichever worker: infer and leave strips; finish and write.

Plain functions of what they are given; nothing large comes back to the one who asked, but the region's own
sums, which go straight to `finish`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xcloudmask.engine import kernel
from xcloudmask.engine.arrays import Array, Float
from xcloudmask.engine.blend import PlacedSum
from xcloudmask.engine.chunks import Range
from xcloudmask.engine.plan import Plan
from xcloudmask.store.overviews import Pyramid
from xcloudmask.store.packing import Packing
from xcloudmask.store.regions import Index
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.store import settle_region
from xcloudmask.streaming.layout import WindowLayout


@dataclass(frozen=True)
class Work:
    """What all regions of a call have in common; travels with each task, so it is small."""

    array: Any  # the output, a zarr Array
    packing: Packing
    label: str
    windows: WindowLayout | None = None  # None: blocks of a graph are written as they come
    plan: Plan | None = None
    strips: Any = None  # a zarr Array, or None if no region has a neighbour
    pyramid: Pyramid | None = None

    def planned(self) -> tuple[WindowLayout, Plan]:
        """Return what inference follows; it is there wherever windows are inferred."""
        if self.windows is None or self.plan is None:
            raise TypeError("blocks of a graph are written as they come: there is no plan of windows")
        return self.windows, self.plan


@dataclass(frozen=True)
class Inferred:
    """What a region's windows contribute to its own cells, and what its pixels hold."""

    sums: Float | None
    states: Array
    seconds: float


@dataclass(frozen=True)
class Written:
    """What was written of a region, and in which time."""

    valid: int  # pixels with data
    seconds: float  # inference and writing


def read_box(windows: WindowLayout, at: Index) -> tuple[slice, slice]:
    """Rows and columns of pixels that region `at` reads."""
    return slice(*windows.rows[at[-2]].box), slice(*windows.cols[at[-1]].box)


def infer(work: Work, at: Index, raw: Array) -> Inferred:
    """Infer a region's windows from the pixels (..., band, y, x) of its read box; leave what others need."""
    began = time.perf_counter()
    windows, plan = work.planned()
    row, col = windows.rows[at[-2]], windows.cols[at[-1]]

    def pixels(rows: Range, cols: Range) -> Array:
        (top, _), (left, _) = row.box, col.box
        return raw[..., rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]

    states = kernel.pixel_states(plan, pixels(row.pixels, col.pixels))
    own: Float | None = None
    if row.windows[0] < row.windows[1] and col.windows[0] < col.windows[1]:
        covered = pixels(plan.y.pixel_span(row.windows), plan.x.pixel_span(col.windows))
        sums = kernel.infer_windows(plan, covered, row.windows, col.windows)
        _leave_strips(work, windows, at, sums)
        r, c = row.sums[-1], col.sums[-1]  # its own, if its windows cover any cell that it needs
        if (r.chunk, c.chunk) == at[-2:]:
            own = sums[..., r.start : r.stop, c.start : c.stop]
    return Inferred(own, states, time.perf_counter() - began)


def _leave_strips(work: Work, windows: WindowLayout, at: Index, sums: Float) -> None:
    strips = windows.strips(at)
    if not strips or work.strips is None:
        return
    line = np.zeros(work.strips.shape[-1], np.float32)
    for strip in strips:
        part = sums[..., strip.rows.start : strip.rows.stop, strip.cols.start : strip.cols.stop]
        line[strip.start : strip.stop] = part.ravel()
    place = tuple(slice(index, index + 1) for index in at)

    def write() -> None:
        work.strips[at] = line
        settle_region(work.strips, (*place, slice(0, line.size)))

    call_with_retries(f"write the strips of region {at} to {work.label}", write)


def _read_strips(strips: Any, at: Index) -> Float:
    line: Float = strips[at]
    if np.isnan(line[0]):  # the fill value: what a store answers for a key that it does not have
        raise OSError("they were written, but the store does not have them")
    return line


def finish(work: Work, at: Index, inferred: Inferred) -> Written:
    """Make a region's output of its own sums and its neighbours' strips, and write it."""
    began = time.perf_counter()
    windows, plan = work.planned()
    row, col = windows.rows[at[-2]], windows.cols[at[-1]]
    placed: list[PlacedSum] = []
    leading = windows.leading(at)
    for producer in windows.producers(at[-2:]):
        if producer == at[-2:]:
            if inferred.sums is not None:
                placed.append(PlacedSum(inferred.sums, row.sums[-1].offset, col.sums[-1].offset))
            continue
        other = (*at[:-2], *producer)
        line = call_with_retries(
            f"read the strips of region {other} from {work.label}", partial(_read_strips, work.strips, other)
        )
        for strip in windows.strips(other):
            if strip.consumer == at[-2:]:
                part = line[strip.start : strip.stop].reshape(strip.shape(leading))
                placed.append(PlacedSum(part, strip.rows.offset, strip.cols.offset))
    output = kernel.finish(plan, placed, inferred.states, row.pixels, col.pixels)
    rows, cols = windows.layout.pixels(at)
    _write(work, at, output, windows.layout.leads(at), (slice(*rows), slice(*cols)))
    return Written(int(np.count_nonzero(inferred.states)), inferred.seconds + time.perf_counter() - began)


def copy(work: Work, at: Index, block: Array, leads: tuple[slice, ...], box: tuple[slice, slice]) -> Written:
    """Write a region of an output that is there already."""
    began = time.perf_counter()
    _write(work, at, np.asarray(block), leads, box)
    return Written(block.size, time.perf_counter() - began)


def _write(work: Work, at: Index, output: Array, leads: tuple[slice, ...], box: tuple[slice, slice]) -> None:
    middle = output.ndim - len(leads) - 2
    where = (*leads, *(slice(0, n) for n in output.shape[len(leads) : len(leads) + middle]), *box)
    packed = work.packing.pack(output)

    def write() -> None:
        work.array[where] = packed
        settle_region(work.array, where)
        if work.pyramid is not None:
            work.pyramid.write(packed, where)

    call_with_retries(f"write region {at} to {work.label}", write)
