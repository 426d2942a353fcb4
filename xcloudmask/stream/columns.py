"""What is found out about a block of pixels by going through its steps once, a few at a time.

Memory does not grow with the number of steps: of each pixel only its first and last clear moment, the count of clear
dates and the longest gap are held.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.classes import NO_DATA
from xcloudmask.stream.problems import persistently

Ints = npt.NDArray[Any]

#: Bytes of mask that a task reads at once.
READ = 32 * 2**20
DAY = 86400
NEVER = -1


@dataclass(frozen=True)
class Areas:
    """Which area each pixel is in: a raster of labels, or one geometry, or all of it."""

    labels: Any = None  # (y, x) of integers below `count`, negative outside; NumPy or Zarr or Dask
    geometry: Any = None  # GeoJSON in the CRS of the mask
    transform: Any = None
    count: int = 1

    def of(self, rows: slice, cols: slice) -> Ints:
        """Return the area's number of each pixel of a box; -1 outside."""
        shape = rows.stop - rows.start, cols.stop - cols.start
        if self.labels is not None:
            part = self.labels[rows, cols]
            return np.asarray(part.compute() if hasattr(part, "compute") else part)
        if self.geometry is None:
            return np.zeros(shape, np.int64)
        from rasterio.features import geometry_mask
        from rasterio.windows import Window, transform

        here = transform(Window(cols.start, rows.start, shape[1], shape[0]), self.transform)
        outside = geometry_mask([self.geometry], shape, here)
        return np.where(outside, -1, 0)


@dataclass(frozen=True)
class Column:
    """The result for one block: counts by step and area, and maps."""

    clear: Ints  # (step, area)
    valid: Ints
    count: Ints  # (y, x), days with a clear view
    first: Ints  # seconds, NEVER where there is none
    last: Ints
    gap: Ints


def go_through(
    array: Any, rows: slice, cols: slice, seconds: Ints, codes: tuple[int, ...], areas: Areas
) -> Column:
    """Read a block of the mask step by step.

    Parameters
    ----------
    array : zarr.Array
        (time, y, x).
    rows, cols : slice
        The block.
    seconds : ndarray
        Of each step, ascending, counted from the midnight (UTC) before the first.
    codes : tuple of int
        Classes that count as clear.
    areas : Areas
    """
    shape = rows.stop - rows.start, cols.stop - cols.start
    steps = len(seconds)
    number = areas.of(rows, cols).ravel()
    within = number >= 0
    is_clear = np.zeros(256, bool)
    is_clear[list(codes)] = True
    clear_counts = np.zeros((steps, areas.count), np.int64)
    valid_counts = np.zeros((steps, areas.count), np.int64)
    first = np.full(number.size, NEVER, np.int32)
    last, gap, count = first.copy(), np.zeros(number.size, np.int32), np.zeros(number.size, np.int32)
    together = max(1, READ // max(1, number.size))
    for begin in range(0, steps, together):
        part = slice(begin, min(begin + together, steps))
        read = partial(array.__getitem__, (part, rows, cols))
        block = np.asarray(persistently(f"read {array.path} of {array.store}", read))
        for step, mask in enumerate(block.reshape(len(block), -1), begin):
            valid = mask != NO_DATA
            if not valid.any():
                continue
            clear = is_clear[mask]
            valid_counts[step] = np.bincount(number[valid & within], minlength=areas.count)
            clear_counts[step] = np.bincount(number[clear & within], minlength=areas.count)
            where = np.flatnonzero(clear)
            _note(where, int(seconds[step]), first, last, gap, count)
    maps = (values.reshape(shape) for values in (count, first, last, gap))
    return Column(clear_counts, valid_counts, *maps)


def _note(where: Ints, now: int, first: Ints, last: Ints, gap: Ints, count: Ints) -> None:
    """Note a clear view of some pixels."""
    before = last[where]
    new = before == NEVER
    first[where[new]] = now
    since = np.where(new, 0, now - before)
    gap[where] = np.maximum(gap[where], since)
    count[where] += new | (before // DAY != now // DAY)
    last[where] = now
