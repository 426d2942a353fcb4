"""What is found out about a block of pixels by going through its steps once, a few at a time.

Memory does not grow with the number of steps: of each pixel only its first and last clear moment, the count
of clear days and the longest gap are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.classes import NO_DATA
from xcloudmask.store.retry import persistently

Ints = npt.NDArray[Any]
Box = tuple[slice, slice]

#: Bytes of mask that a task reads at once.
READ = 32 * 2**20
#: Pixels that are taken through several steps while the processor's cache holds their maps.
CACHED = 2**16
DAY = 86400
NEVER = -1


@dataclass(frozen=True)
class Shape:
    """A geometry (GeoJSON in the CRS of the mask) and the mask's transform."""

    geometry: Any
    transform: Any

    def holds(self, box: Box) -> npt.NDArray[np.bool_]:
        """Return which pixels of a box have their centre in it."""
        from rasterio.features import geometry_mask
        from rasterio.windows import Window
        from rasterio.windows import transform as moved

        (rows, cols), size = box, _size(box)
        here = moved(Window(cols.start, rows.start, size[1], size[0]), self.transform)
        inside: npt.NDArray[np.bool_] = geometry_mask([self.geometry], size, here, invert=True)
        return inside


@dataclass(frozen=True)
class Counts:
    """Pixels by step and area, of the areas that a block touches."""

    areas: Ints  # their numbers
    size: Ints  # pixels of each
    clear: Ints  # (step, area)
    valid: Ints


@dataclass(frozen=True)
class Column:
    """The result for one block: counts, and maps (y, x)."""

    counts: Counts
    days: Ints  # with a clear view
    first: Ints  # seconds, NEVER where there is none
    last: Ints
    gap: Ints


def _size(box: Box) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def go_through(
    array: Any, box: Box, seconds: Ints, codes: tuple[int, ...], shape: Shape | None, labels: Ints | None
) -> Column:
    """Read a block of the mask, a few steps at a time.

    Parameters
    ----------
    array : zarr.Array
        (time, y, x).
    box : (slice, slice)
        Rows and columns of the block.
    seconds : ndarray
        Of each step, ascending, counted from the midnight (UTC) before the first.
    codes : tuple of int
        Classes that count as clear.
    shape : Shape, optional
        What counts; without it all of the block.
    labels : ndarray, optional
        Number of the area of each pixel of the block, 0 and below outside.
    """
    pixels, steps = int(np.prod(_size(box))), len(seconds)
    areas, number, within = _areas(box, shape, labels)
    is_clear = np.zeros(256, bool)
    is_clear[list(codes)] = True
    clear_counts, valid_counts = np.zeros((2, steps, len(areas)), np.int64)
    first, last = np.full((2, pixels), NEVER, np.int32)
    gap, days = np.zeros((2, pixels), np.int32)
    unit = int(array.chunks[0])  # steps that are stored together are read together
    together = max(unit, READ // max(1, pixels) // unit * unit)
    for begin in range(0, steps, together):
        where = slice(begin, min(begin + together, steps)), *box
        block = np.asarray(
            persistently(f"read {array.path} of {array.store}", partial(array.__getitem__, where))
        )
        for low in range(0, pixels, CACHED):
            part = slice(low, low + CACHED)
            maps = first[part], last[part], gap[part], days[part]
            for step, mask in enumerate(block.reshape(len(block), -1)[:, part], begin):
                valid = mask != NO_DATA
                if not valid.any():
                    continue
                clear = is_clear[mask]
                valid_counts[step] += _count(valid & within[part], number[part], len(areas))
                clear_counts[step] += _count(clear & within[part], number[part], len(areas))
                _note(np.flatnonzero(clear), int(seconds[step]), *maps)
    size = np.bincount(number[within], minlength=len(areas))
    found = (values.reshape(_size(box)) for values in (days, first, last, gap))
    return Column(Counts(areas, size, clear_counts, valid_counts), *found)


def _count(chosen: npt.NDArray[np.bool_], number: Ints, areas: int) -> Any:
    return np.count_nonzero(chosen) if areas == 1 else np.bincount(number[chosen], minlength=areas)


def _areas(box: Box, shape: Shape | None, labels: Ints | None) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Return the areas of a block, which of them each pixel is in, and whether it is in any."""
    if labels is None:
        within = np.ones(_size(box), bool) if shape is None else shape.holds(box)
        return np.array([0]), np.zeros(within.size, np.int64), within.ravel()
    areas, number = np.unique(labels, return_inverse=True)
    outside = int((areas <= 0).sum())
    number = number.ravel() - outside
    return areas[outside:], number, number >= 0


def _note(where: Ints, now: int, first: Ints, last: Ints, gap: Ints, days: Ints) -> None:
    """Note a clear view of some pixels."""
    before = last[where]
    new = before == NEVER
    first[where[new]] = now
    gap[where] = np.maximum(gap[where], np.where(new, 0, now - before))
    days[where] += new | (before // DAY != now // DAY)
    last[where] = now


def add_counts(parts: Sequence[Counts], areas: Ints) -> Ints:
    """Return (clear, valid, size) by step and area, added over blocks.

    Examples
    --------
    >>> one = Counts(np.array([7]), np.array([4]), np.array([[1]]), np.array([[3]]))
    >>> add_counts([one, one], np.array([5, 7])).tolist()
    [[[0, 2]], [[0, 6]], [[0, 8]]]
    """
    total = np.zeros((3, len(parts[0].clear), len(areas)), np.int64)
    for part in parts:
        where = np.searchsorted(areas, part.areas)
        total[0][:, where] += part.clear
        total[1][:, where] += part.valid
        total[2][:, where] += part.size
    return total
