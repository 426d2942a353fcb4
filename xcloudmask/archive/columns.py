"""Time series of a block of pixels: its steps are gone through once, a few at a time.

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
from xcloudmask.store.store import Target

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


@dataclass(frozen=True)
class Steps:
    """The steps of a mask, ascending in time, and what of them counts."""

    seconds: Ints  # of each step, counted from the midnight (UTC) before the first
    order: Ints  # where each lies along the first dimension of the array
    together: int  # steps that are stored together
    codes: tuple[int, ...]  # classes that count as clear


def accumulate_block(array: Any, box: Box, steps: Steps, shape: Shape | None, labels: Ints | None) -> Column:
    """Go through the steps of a block of the mask (time, y, x), a few at a time.

    The array is a stored mask, or the block itself. All of the block counts, or what lies within a shape, or
    has a label above 0, the number of its area.
    """
    pixels, count = int(np.prod(_size(box))), len(steps.seconds)
    areas, number, within = _areas(box, shape, labels)
    is_clear = np.zeros(256, bool)
    is_clear[list(steps.codes)] = True
    clear_counts, valid_counts = np.zeros((2, count, len(areas)), np.int64)
    first, last = np.full((2, pixels), NEVER, np.int32)
    gap, days = np.zeros((2, pixels), np.int32)
    at_once = max(steps.together, READ // max(1, pixels) // steps.together * steps.together)
    for begin in range(0, count, at_once):
        block = _read(array, steps.order[begin : begin + at_once], box)
        # A part of the pixels through all of these steps at a time: their maps then stay in the cache
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
                _record_view(np.flatnonzero(clear), int(steps.seconds[step]), *maps)
    size = np.bincount(number[within], minlength=len(areas))
    shaped = (values.reshape(_size(box)) for values in (days, first, last, gap))
    return Column(Counts(areas, size, clear_counts, valid_counts), *shaped)


def _read(array: Any, where: Ints, box: Box) -> Any:
    if isinstance(array, np.ndarray):
        return array[where]
    in_order = bool((np.diff(where) == 1).all())
    selection = (slice(int(where[0]), int(where[-1]) + 1) if in_order else where, *box)
    read = array.__getitem__ if in_order else array.oindex.__getitem__
    return np.asarray(Target(array.store_path.store).attempt(f"read {array.path}", partial(read, selection)))


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


def _record_view(where: Ints, now: int, first: Ints, last: Ints, gap: Ints, days: Ints) -> None:
    """Record a clear view of some pixels."""
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
    >>> part = Counts(np.array([7]), np.array([4]), np.array([[1]]), np.array([[3]]))
    >>> add_counts([part, part], np.array([5, 7])).tolist()
    [[[0, 2]], [[0, 6]], [[0, 8]]]
    """
    total = np.zeros((3, len(parts[0].clear), len(areas)), np.int64)
    for part in parts:
        where = np.searchsorted(areas, part.areas)
        total[0][:, where] += part.clear
        total[1][:, where] += part.valid
        total[2][:, where] += part.size
    return total
