"""How an output is cut into regions, the unit that is written at once: integers only.

A region is one or a few indices of the leading dimensions (a time step) by a block of rows and columns, a
whole number of Zarr shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from xcloudmask.engine.chunks import Range

Index = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The regions of an output (lead..., [class], y, x).

    Examples
    --------
    >>> layout = Layout(lead=(3,), image=(100, 130), block=(1,), region=(64, 64))
    >>> layout.grid, layout.count
    ((3, 2, 3), 18)
    >>> layout.pixels((0, 1, 2))
    ((64, 100), (128, 130))
    """

    lead: Index  # sizes of the leading dimensions
    image: tuple[int, int]
    block: Index  # indices of each leading dimension in one region
    region: tuple[int, int]  # rows and columns in one region

    @cached_property
    def blocks(self) -> Index:
        """How many regions there are along each leading dimension."""
        return tuple(-(-size // step) for size, step in zip(self.lead, self.block, strict=True))

    @cached_property
    def tiles(self) -> tuple[int, int]:
        """How many regions an image has, down and across."""
        return -(-self.image[0] // self.region[0]), -(-self.image[1] // self.region[1])

    @property
    def grid(self) -> Index:
        """How many regions there are along each dimension."""
        return (*self.blocks, *self.tiles)

    @property
    def count(self) -> int:
        """How many regions there are."""
        return prod(self.grid)

    def leads(self, at: Index) -> tuple[slice, ...]:
        """Return the indices of the leading dimensions in the region `at`."""
        return tuple(
            slice(index * step, min((index + 1) * step, size))
            for index, step, size in zip(at[:-2], self.block, self.lead, strict=True)
        )

    def selection(self, at: Index, ndim: int) -> tuple[slice, ...]:
        """Return what of an array of so many dimensions the region `at` is."""
        middle = ndim - len(self.lead) - 2
        return *self.leads(at), *(slice(None),) * middle, *(slice(*span) for span in self.pixels(at))

    def box(self, at: Index, shape: Index) -> tuple[slice, ...]:
        """Return the same with both ends of each dimension."""
        whole = zip(self.selection(at, len(shape)), shape, strict=True)
        return tuple(slice(*s.indices(n)[:2]) for s, n in whole)

    def pixels(self, at: Index) -> tuple[Range, Range]:
        """Rows and columns of the region `at`."""
        (i, j), (height, width), (rows, cols) = at[-2:], self.region, self.image
        return (i * height, min((i + 1) * height, rows)), (j * width, min((j + 1) * width, cols))

    def area(self, at: Index) -> int:
        """Pixels in the region `at`, over all its leading indices."""
        (top, bottom), (left, right) = self.pixels(at)
        steps: int = prod(s.stop - s.start for s in self.leads(at))
        return (bottom - top) * (right - left) * steps

    def regions(self) -> Iterator[Index]:
        """All regions, a scene at a time, row by row."""
        return product(*(range(count) for count in self.grid))
