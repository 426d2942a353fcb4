"""Which region of an output infers which windows, and what it hands to its neighbours: integers only.

A region is the unit that is written at once: one or a few indices of the leading dimensions (a time step) by
a block of rows and columns, a whole number of Zarr shards. Regions of one leading block, a *scene* here,
share windows at their edges. To keep every window inferred once,

* a window belongs to the first region, in row-major order, whose output needs it (`engine.chunks`); so a
  region needs only its own sums and those of earlier regions of its scene;
* what a region's windows contribute to later regions, its *strips*, is written to the store before the region
  counts as inferred, and taken from there when a later one is finished. Sums are multiples of 2**-23, so
  they are exact, and the order in which they are added does not matter.

A region that is recorded as done has therefore left everything that others need of it, and is never asked
again. The strips of a scene are deleted with its last region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from xcloudmask.engine.chunks import AxisChunk, ChunkedAxis, Piece
from xcloudmask.store.regions import Index, Layout


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
        self.rows = y.cut(y.every(layout.region[0]))
        self.cols = x.cut(x.every(layout.region[1]))
        self._consumers = _consumers(self.rows), _consumers(self.cols)

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


def _consumers(axis: Sequence[AxisChunk]) -> list[list[tuple[int, Piece]]]:
    """Return for each chunk which chunks take part of its sums, and which part."""
    out: list[list[tuple[int, Piece]]] = [[] for _ in axis]
    for number, chunk in enumerate(axis):
        for piece in chunk.sums:
            out[piece.chunk].append((number, piece))
    return out
