"""How an output is cut into regions, and which region infers what: integers only.

A region is the unit that is written at once: one or a few indices of the leading dimensions (a time step) by
a block of rows and columns, a whole number of Zarr shards. Regions of one leading block, a *scene* here,
share windows at their edges. To keep every window inferred once,

* a window belongs to the first region, in row-major order, whose output needs it; so a region needs only
  what itself and earlier regions of its scene found (for working cells of one pixel that is the region
  that holds the window's first pixel);
* what a region's windows say about later regions, its *strips*, is written to the store before the region
  counts as inferred, and taken from there when a later one is finished. Sums are multiples of 2**-23, so
  they are exact, and the order in which they are added does not matter.

A region that is recorded as done has therefore left everything that others need of it, and is never asked
again. The strips of a scene are deleted with its last region.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from xcloudmask.engine.chunks import ChunkedAxis, Piece, Range
from xcloudmask.store.regions import Index, Layout


@dataclass(frozen=True, slots=True)
class AxisRegion:
    """One region's part in the plan along one axis; ranges are half open."""

    pixels: Range  # its own pixels
    windows: Range  # the windows it infers; may be empty
    span: Range  # cells those windows cover
    reads: Range  # pixels to read: its own, and those its windows reach
    needs: Range  # cells its output is made from
    sums: tuple[Piece, ...]  # which regions' sums it is made from, itself last


def cut_axis(axis: ChunkedAxis, size: int) -> tuple[AxisRegion, ...]:
    """Cut an axis into regions of `size` pixels, the last perhaps shorter.

    Examples
    --------
    >>> from xcloudmask.engine.tiling import AxisPlan
    >>> first, second, third = cut_axis(ChunkedAxis(90, 1, AxisPlan(90, patch=20, overlap=5)), 40)
    >>> first.windows, second.windows, third.windows
    ((0, 3), (3, 6), (6, 6))
    >>> [(piece.chunk, piece.start, piece.stop) for piece in third.sums]
    [(1, 35, 45)]
    """
    out: list[AxisRegion] = []
    taken = 0  # cells that an earlier region needs
    for first in range(0, axis.size, size):
        pixels = first, min(first + size, axis.size)
        needs = axis.needed_cells(pixels)
        windows = axis.plan.owned(taken, max(needs[1], taken))
        taken = max(taken, needs[1])
        span, reads = (0, 0), pixels
        if windows[0] < windows[1]:
            span = axis.plan.span(*windows)
            lo, hi = axis.pixel_span(windows)
            reads = min(lo, pixels[0]), max(hi, pixels[1])
        spans = [*(region.span for region in out), span]
        sums = []
        for producer, (lo, hi) in enumerate(spans):
            start, stop = max(lo, needs[0]), min(hi, needs[1])
            if start < stop:
                whole = (start, stop) == (lo, hi)
                sums.append(Piece(producer, start - lo, stop - lo, start - needs[0], whole))
        out.append(AxisRegion(pixels, windows, span, reads, needs, tuple(sums)))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Strip:
    """Part of one region's sums that another needs, and where it lies among the first one's strips."""

    producer: Index  # row and column of regions
    consumer: Index
    rows: Piece
    cols: Piece
    start: int  # elements
    stop: int

    def shape(self, leading: Index) -> Index:
        """Shape of the strip, given that of a region's sums without rows and columns."""
        return (*leading, self.rows.stop - self.rows.start, self.cols.stop - self.cols.start)


class WindowLayout:
    """A layout together with a window plan: what each region of a scene reads, infers and passes on."""

    def __init__(self, layout: Layout, y: ChunkedAxis, x: ChunkedAxis, classes: int) -> None:
        self.layout = layout
        self.y, self.x, self.classes = y, x, classes
        self.rows = cut_axis(y, layout.region[0])
        self.cols = cut_axis(x, layout.region[1])
        self._consumers = tuple(
            tuple(
                tuple(
                    (index, p)
                    for index, region in enumerate(axis)
                    for p in region.sums
                    if p.chunk == producer
                )
                for producer in range(len(axis))
            )
            for axis in (self.rows, self.cols)
        )

    def __reduce__(self) -> tuple[object, ...]:  # a few integers travel, the rest is made anew
        return type(self), (self.layout, self.y, self.x, self.classes)

    def producers(self, tile: Index) -> list[Index]:
        """Regions of the scene whose sums region `tile` is made from, itself included."""
        i, j = tile
        return [(r.chunk, c.chunk) for r in self.rows[i].sums for c in self.cols[j].sums]

    def leading(self, at: Index) -> Index:
        """Shape of a region's sums without rows and columns."""
        return (*(s.stop - s.start for s in self.layout.leads(at)), self.classes)

    def strips(self, at: Index) -> list[Strip]:
        """Return what region `at` leaves for the others of its scene."""
        tile, out, start = at[-2:], [], 0
        scale = prod(self.leading(at))
        for (i, rows), (j, cols) in product(self._consumers[0][tile[0]], self._consumers[1][tile[1]]):
            if (i, j) == tile:
                continue
            size = scale * (rows.stop - rows.start) * (cols.stop - cols.start)
            out.append(Strip(tile, (i, j), rows, cols, start, start + size))
            start += size
        return out

    @cached_property
    def longest(self) -> int:
        """Elements of the longest list of strips."""
        first = (0,) * len(self.layout.lead)
        tiles = product(*(range(count) for count in self.layout.tiles))
        return max((strips[-1].stop for tile in tiles if (strips := self.strips((*first, *tile)))), default=0)
