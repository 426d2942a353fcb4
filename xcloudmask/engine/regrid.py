"""From one grid to another, pixel by pixel: no GDAL, no dask, no xarray.

A warper of GDAL's takes short cuts that depend on the block it is given. Here the value of a pixel follows
from its place alone, so it is the same whichever block it is made in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.chunks import Range
from xcloudmask.engine.pixels import coarsen
from xcloudmask.errors import CloudMaskError

Places = npt.NDArray[np.float64]
#: Rows and columns of a source, half open.
Box = tuple[Range, Range]

#: Positions are rounded to this share of a source pixel, so that grids that coincide but for the rounding of
#: their coordinates give the source's own numbers.
SNAP = 1024.0
#: Rows made in one go, or of the source if those are more: positions take more memory than pixels.
ROWS = 256
#: Most samples that a pixel takes along an axis.
FINEST = 4
#: Points along each side of a chunk at which its place in the source is asked for.
PROBES = 5


@dataclass(frozen=True, slots=True)
class Axis:
    """Evenly spaced pixel centres.

    Examples
    --------
    >>> Axis(100.0, -10.0, 3).at(np.array([0, 2])).tolist()
    [100.0, 80.0]
    """

    first: float
    step: float
    size: int

    def at(self, index: npt.NDArray[Any]) -> Places:
        """Coordinates of pixels."""
        return np.asarray(self.first + self.step * index, np.float64)

    def shrunk(self, count: int) -> Axis:
        """Return the axis of the means of `count` pixels each."""
        if count == 1:
            return self
        return Axis(self.first + self.step * (count - 1) / 2, self.step * count, -(-self.size // count))

    def find(self, coordinate: Places) -> Places:
        """Return which pixels have these coordinates, in fractions of a pixel."""
        return np.rint((coordinate - self.first) / self.step * SNAP) / SNAP


@dataclass(frozen=True, slots=True)
class Regrid:
    """How the pixels of a target are made from those of a source.

    Bilinear between the source's valid pixels. Where the target's pixels are the larger ones: from means of
    `shrink` pixels of the source, and the mean of several such values. Make one with `Regrid.plan`.

    Examples
    --------
    >>> fine, coarse = Axis(0.0, 1.0, 4), Axis(0.5, 2.0, 2)
    >>> regrid = Regrid.plan((fine, fine), (coarse, coarse))
    >>> regrid(np.arange(16.0).reshape(4, 4), (0, 0), (0, 2), (0, 2)).tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """

    source: tuple[Axis, Axis]  # rows and columns
    target: tuple[Axis, Axis]
    crs: tuple[str, str] | None = None  # of source and target, in WKT; None if they are the same
    period: float = 0.0  # after which the source's columns begin anew: 360 degrees, 0 if never
    shrink: tuple[int, int] = (1, 1)  # rows and columns of the source that are averaged, from its first on

    @classmethod
    def plan(
        cls,
        source: tuple[Axis, Axis],
        target: tuple[Axis, Axis],
        crs: tuple[str, str] | None = None,
        period: float = 0.0,
    ) -> Regrid:
        """Choose `shrink`, so that a target pixel is at least two means wide."""
        plain = cls(source, target, crs, period)
        height, width = plain._steps().max(axis=1)  # of a target pixel, in rows and columns of the source
        return replace(plain, shrink=(max(int(height / 2), 1), max(int(width / 2), 1)))

    @property
    def cells(self) -> tuple[Axis, Axis]:
        """Rows and columns of the means."""
        y, x = (axis.shrunk(count) for axis, count in zip(self.source, self.shrink, strict=True))
        return y, x

    @property
    def closed(self) -> bool:
        """Whether the last column of cells is the first one's neighbour."""
        axis = self.source[1]
        around = bool(self.period) and abs(abs(axis.step) * axis.size - self.period) < abs(axis.step) / SNAP
        return around and axis.size % self.shrink[1] == 0

    @property
    def samples(self) -> tuple[int, int]:
        """How many values a target pixel is the mean of, along its rows and columns."""
        down, across = np.clip(np.ceil(self._steps().max(axis=0) - 0.1), 1, FINEST)
        return int(down), int(across)

    def _steps(self) -> Places:
        """Rows and columns of cells that a step down and a step across the target covers, amidst it."""
        middle, centre = (np.array([0.0, 1.0]) + axis.size // 2 for axis in self.target)
        places = self.places(middle, centre)
        steps = np.stack([places[:, 1, 0] - places[:, 0, 0], places[:, 0, 1] - places[:, 0, 0]], axis=1)
        if self.period:  # the shorter way around
            turn = self.period / abs(self.cells[1].step)
            steps[1] -= np.rint(steps[1] / turn) * turn
        return np.nan_to_num(np.abs(steps), nan=1.0)

    def __call__(self, block: npt.NDArray[Any], corner: tuple[int, int], rows: Range, cols: Range) -> Float:
        """Return target pixels rows x cols from a block (..., y, x) of the source that begins at `corner`.

        NaN means no data, in both. A block that `boxes` names is enough; others must begin with a whole cell.
        """
        out = np.full((*block.shape[:-2], rows[1] - rows[0], cols[1] - cols[0]), np.nan, np.float32)
        step = max(ROWS // max(math.ceil(self._steps().max(axis=0)[0]), 1), 1)
        for first in range(rows[0], rows[1], step):
            last = min(first + step, rows[1])
            box = self.boxes([(first, last)], [cols])[0][0]
            if box is None or cols[0] == cols[1]:
                continue
            # what the margin of the band adds to that of the chunk is not at hand, nor needed
            top, left = (max(span[0], edge) for span, edge in zip(box, corner, strict=True))
            near = block[
                ..., top - corner[0] : box[0][1] - corner[0], left - corner[1] : box[1][1] - corner[1]
            ]
            valid = np.isfinite(near)
            values, known = coarsen(np.where(valid, near, np.float64(0)), valid, self.shrink, np.float64)
            weights = known.astype(np.float64)
            start = top // self.shrink[0], left // self.shrink[1]
            if self.closed and values.shape[-1] == self.cells[1].size:  # as `boxes` has it near the seam
                values, weights = (
                    np.concatenate([each[..., -1:], each, each[..., :1]], axis=-1)
                    for each in (values, weights)
                )
                start = start[0], -1
            out[..., first - rows[0] : last - rows[0], :] = self._sampled(
                values, weights, start, (first, last), cols
            )
        return out

    def _sampled(self, values: Places, weights: Places, start: Range, rows: Range, cols: Range) -> Places:
        """Return a few rows: the mean of all samples of a pixel, by what is known of each."""
        shape = (*values.shape[:-2], rows[1] - rows[0], cols[1] - cols[0])
        total, weight = np.zeros(shape), np.zeros(shape)
        whole = bool(weights.all())
        for dy, dx in product(*map(_within, self.samples)):
            places = self.places(np.arange(*rows) + dy, np.arange(*cols) + dx)
            where, inside = self._in_block(places, start, values.shape[-2:])
            for at in np.ndindex(values.shape[:-2]):
                total[at] += inside * _bilinear(values[at], where)
                weight[at] += inside * (1.0 if whole else _bilinear(weights[at], where))
        return np.divide(total, weight, out=np.full(shape, np.nan), where=weight > 0)

    def _in_block(self, places: Places, start: Range, shape: tuple[int, ...]) -> tuple[Places, Places]:
        """Return places counted from a block's first cell, and which of them lie on the source at all."""
        inside = np.ones(places.shape[1:], bool)
        for place, axis in zip(places, self.cells, strict=True):
            with np.errstate(invalid="ignore"):
                inside &= (place >= -0.5) & (place <= axis.size - 0.5)
        for place, axis, first, length in zip(places, self.cells, start, shape, strict=True):
            if first >= 0:
                np.clip(place, 0, axis.size - 1, out=place)
            place -= first
            place[~inside] = 0
            if inside.any() and not (
                length and 0 <= place[inside].min() <= place[inside].max() <= length - 1
            ):
                raise CloudMaskError(
                    "the scene's map projection is too uneven here to find its pixels in an aux input "
                    "lazily: reproject that first, aux.rio.reproject_match(da)"
                )
        return places, inside.astype(np.float64)

    def places(self, rows: npt.NDArray[Any], cols: npt.NDArray[Any]) -> Places:
        """Return in which cells target pixels rows x cols lie: (2, rows, cols), NaN for nowhere."""
        y, x = np.meshgrid(self.target[0].at(rows), self.target[1].at(cols), indexing="ij")
        if self.crs is not None:
            x, y = _transformer(*self.crs).transform(x, y)
            y, x = (np.where(np.isfinite(each), each, np.nan) for each in (y, x))
        if self.period:
            axis = self.source[1]
            west = float(axis.at(np.array([0, axis.size - 1])).min()) - abs(axis.step) / 2
            x = west + np.mod(x - west, self.period)
        return np.stack([axis.find(place) for axis, place in zip(self.cells, (y, x), strict=True)])

    def boxes(self, rows: Sequence[Range], cols: Sequence[Range]) -> list[list[Box | None]]:
        """Return the part of the source that each chunk of the target is made from; None for nothing."""
        probe = [
            np.concatenate([np.linspace(lo - 0.5, hi - 0.5, PROBES) for lo, hi in ranges])
            for ranges in (rows, cols)
        ]
        places = self.places(*probe).reshape(2, len(rows), PROBES, len(cols), PROBES)
        low, high = places.min(axis=(2, 4)), places.max(axis=(2, 4))  # NaN where any is
        margin = 3 + 0.05 * (high - low)
        sizes = np.array([axis.size for axis in self.cells])[:, None, None]
        lost = np.isnan(low) | np.isnan(high)  # somewhere in the chunk the projection fails
        if self.period:  # or it reaches over the seam
            lost[1] |= high[1] - low[1] > self.period / abs(self.cells[1].step) / 2
        if self.closed:  # or so near to it that both sides count
            lost[1] |= (low[1] < margin[1]) | (high[1] > sizes[1] - 1 - margin[1])
        first = np.where(lost, 0, np.clip(np.floor(low - margin), 0, sizes)).astype(int)
        stop = np.where(lost, sizes, np.clip(np.ceil(high + margin) + 1, 0, sizes)).astype(int)
        empty: npt.NDArray[np.bool_] = np.any(first >= stop, axis=0)
        edges = [
            (first[at] * count, np.minimum(stop[at] * count, axis.size))
            for at, (axis, count) in enumerate(zip(self.source, self.shrink, strict=True))
        ]

        def box(i: int, j: int) -> Box | None:
            if empty[i, j]:
                return None
            y, x = ((int(lo[i, j]), int(hi[i, j])) for lo, hi in edges)
            return y, x

        return [[box(i, j) for j in range(len(cols))] for i in range(len(rows))]


def _within(count: int) -> list[float]:
    """Offsets of `count` samples within a pixel, from its centre."""
    return [(index + 0.5) / count - 0.5 for index in range(count)]


def _bilinear(values: Places, where: Places) -> Places:
    from scipy.ndimage import map_coordinates

    if not values.size:
        return np.zeros(where.shape[1:])
    sampled: Places = map_coordinates(values, where, order=1, mode="nearest", prefilter=False)
    return sampled


@lru_cache(maxsize=16)
def _transformer(source: str, target: str) -> Any:
    """Return what turns the target's coordinates into the source's."""
    from pyproj import Transformer

    return Transformer.from_crs(target, source, always_xy=True)
