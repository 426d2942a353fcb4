"""Where the windows lie: integers and 1-D arrays only, no pixels, no dask.

One axis at a time, because everything here is separable. Windows of `patch` cells start every
`patch - overlap` cells from the array's origin; the last is shifted inward so that it ends with the
array. Weights rise and fall as raised cosines over the actual overlap and are divided by their sum, so a
blended map is a plain sum of ``weight * probability``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from xcloudmask.errors import CloudMaskError

MIN_PATCH = 32


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """The windows along one axis.

    Examples
    --------
    >>> AxisPlan(size=100, patch=40, overlap=10).starts.tolist()
    [0, 30, 60]
    >>> AxisPlan(size=95, patch=40, overlap=10).starts.tolist()  # the last is shifted inward
    [0, 30, 55]
    """

    size: int  # cells along the axis
    patch: int  # cells of a window
    overlap: int  # how many of them it shares with the next

    def __post_init__(self) -> None:
        if self.size < 1:
            raise CloudMaskError(f"an axis needs at least one cell, got {self.size}")
        if self.patch < 1 or not 0 <= self.overlap < self.patch:
            raise CloudMaskError(
                f"overlap={self.overlap} must be at least 0 and less than patch_size={self.patch}"
            )

    @property
    def count(self) -> int:
        """How many windows there are."""
        if self.size <= self.patch:
            return 1
        return -(-(self.size - self.patch) // (self.patch - self.overlap)) + 1

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First cell of each window; strictly rising."""
        starts = np.arange(self.count, dtype=np.int64) * (self.patch - self.overlap)
        return np.minimum(starts, max(self.size - self.patch, 0))

    def owned(self, first: int, stop: int) -> tuple[int, int]:
        """Return the index range of the windows that start in cells [first, stop)."""
        starts = _starts(self)
        lo, hi = np.searchsorted(starts, (first, stop))
        return int(lo), int(hi)

    def span(self, lo: int, hi: int) -> tuple[int, int]:
        """Return the cells that windows lo..hi-1 cover, within the axis."""
        starts = _starts(self)
        return int(starts[lo]), min(int(starts[hi - 1]) + self.patch, self.size)

    def start(self, index: int) -> int:
        """First cell of one window."""
        return int(_starts(self)[index])

    def weights(self, index: int) -> npt.NDArray[np.float32]:
        """Blending weights of one window's cells; over all windows they sum to 1 in every cell.

        The array is cut where a window reaches past the axis (only if the axis is shorter than a patch).
        """
        return _weights(self, index)


@lru_cache(maxsize=256)
def _starts(plan: AxisPlan) -> npt.NDArray[np.int64]:
    starts = plan.starts
    starts.flags.writeable = False
    return starts


def _raw_weights(plan: AxisPlan, index: int) -> npt.NDArray[np.float64]:
    """Raised-cosine ramps as long as the overlap with each neighbour, 1 between them.

    Half-sample centred: never zero, symmetric, and two facing ramps sum to exactly 1.
    """
    starts = _starts(plan)
    weights = np.ones(plan.patch)
    if index > 0:
        shared = int(starts[index - 1]) + plan.patch - int(starts[index])
        weights[:shared] *= np.sin(np.pi * (np.arange(shared) + 0.5) / (2 * shared)) ** 2
    if index < len(starts) - 1:
        shared = int(starts[index]) + plan.patch - int(starts[index + 1])
        ramp = np.sin(np.pi * (np.arange(shared) + 0.5) / (2 * shared)) ** 2
        weights[plan.patch - shared :] *= ramp[::-1]
    return weights


@lru_cache(maxsize=4096)
def _weights(plan: AxisPlan, index: int) -> npt.NDArray[np.float32]:
    starts = _starts(plan)
    own = _raw_weights(plan, index)
    total = np.zeros(plan.patch)
    first = int(starts[index])
    # Every window that shares a cell with this one; only neighbours of neighbours when overlap > patch / 2.
    lo, hi = np.searchsorted(starts, (first - plan.patch + 1, first + plan.patch))
    for other in range(int(lo), int(hi)):
        shift = int(starts[other]) - first
        raw = _raw_weights(plan, other)
        if shift >= 0:
            total[shift:] += raw[: plan.patch - shift]
        else:
            total[:shift] += raw[-shift:]
    weights = (own / total).astype(np.float32)[: plan.size]
    weights.flags.writeable = False
    return weights


@dataclass(frozen=True, slots=True)
class TilePlan:
    """The windows of an image: an axis plan for rows and one for columns."""

    y: AxisPlan
    x: AxisPlan

    @classmethod
    def make(cls, shape: tuple[int, int], patch: int, overlap: int) -> TilePlan:
        """Plan square windows over `shape` cells.

        Examples
        --------
        >>> TilePlan.make((100, 40), patch=40, overlap=10).count
        3
        """
        return cls(AxisPlan(shape[0], patch, overlap), AxisPlan(shape[1], patch, overlap))

    @property
    def count(self) -> int:
        """How many windows there are."""
        return self.y.count * self.x.count


def fitting_patch(shape: tuple[int, int], smallest: int, largest: int, overlap: int) -> int:
    """Return the side of window, a multiple of 32 or the smallest, with which fewest cells are computed.

    Of the scene's size alone, so that it never depends on the chunking; of equals, the smaller.

    Examples
    --------
    >>> fitting_patch((2048, 2048), 256, 512, 48)  # 5 x 5 windows instead of 10 x 10
    448
    """
    sides = (smallest, *range(smallest - smallest % MIN_PATCH + MIN_PATCH, largest + 1, MIN_PATCH))
    fewest: int = min(sides, key=lambda side: TilePlan.make(shape, side, overlap).count * side**2)
    return fewest


def reflect_indices(size: int, length: int) -> npt.NDArray[np.intp]:
    """Return the indices that continue an axis of `size` cells to `length` by reflection.

    Examples
    --------
    >>> reflect_indices(3, 8).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1]
    """
    if size == 1:
        return np.zeros(length, dtype=np.intp)
    period = 2 * (size - 1)
    phase = np.arange(length) % period
    return np.where(phase < size, phase, period - phase)
