"""How chunks, or the regions of a store, cut the window plan: integers only, one axis at a time.

One rule of ownership serves NumPy, Dask and a stream: a window belongs to the first chunk whose output needs
it. (Where a working cell is one pixel, that is the chunk that holds the window's first pixel.) So each chunk
(1) reads the pixels of its own windows, (2) yields their sums over the cells they cover, and (3) makes its
output from its own sums and those of earlier chunks, never of later ones: a region of a stream can be
finished as soon as the regions before it are inferred.

Pixels are the caller's grid; cells are the working grid, `factor` pixels wide.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from xcloudmask.engine.tiling import AxisPlan

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part [start, stop) of what chunk `chunk` holds, counted from that thing's own first element.

    `offset` is where the part belongs in what is put together; `whole` says that it is all the chunk holds.
    """

    chunk: int
    start: int
    stop: int
    offset: int
    whole: bool


@dataclass(frozen=True, slots=True)
class AxisChunk:
    """One chunk's part in the plan along one axis; all ranges are half open."""

    pixels: Range  # its own pixels
    windows: Range  # indices of the windows it infers; may be empty
    reads: tuple[Piece, ...]  # pixels that those windows cover, as parts of chunks: itself first, if at all
    box: Range  # its own pixels and those that its windows cover
    needs: Range  # cells that its output is made from
    sums: tuple[Piece, ...]  # whose sums those cells are added up from: earlier chunks, itself last if at all


@dataclass(frozen=True, slots=True)
class ChunkedAxis:
    """A window plan over an axis of `size` pixels that is cut into chunks.

    Examples
    --------
    >>> axis = ChunkedAxis(size=90, factor=3, plan=AxisPlan(30, patch=10, overlap=4))
    >>> first, second = axis.cut((40, 50))
    >>> first.windows, first.needs, second.windows
    ((0, 3), (0, 14), (3, 5))
    >>> [(piece.chunk, piece.start, piece.stop) for piece in second.sums]
    [(0, 13, 22), (1, 0, 12)]
    """

    size: int
    factor: int
    plan: AxisPlan

    def pixel_span(self, windows: Range) -> Range:
        """Pixels that a range of windows covers."""
        lo, hi = self.plan.span(*windows)
        return lo * self.factor, min(hi * self.factor, self.size)

    def needed_cells(self, pixels: Range) -> Range:
        """Cells that a bilinear return to `pixels` uses: their own, and one more on each side if coarser."""
        first, stop = pixels
        if self.factor == 1:
            return first, stop
        lo = (2 * first + 1 - self.factor) // (2 * self.factor)
        hi = (2 * (stop - 1) + 1 - self.factor) // (2 * self.factor) + 1
        return max(lo, 0), min(hi, self.plan.size - 1) + 1

    def every(self, step: int) -> tuple[int, ...]:
        """Lengths of chunks of `step` pixels, the last perhaps shorter.

        Examples
        --------
        >>> ChunkedAxis(90, 1, AxisPlan(90, patch=20, overlap=5)).every(40)
        (40, 40, 10)
        """
        return tuple(min(step, self.size - first) for first in range(0, self.size, step))

    def cut(self, chunks: Sequence[int]) -> tuple[AxisChunk, ...]:
        """Share the plan out among chunks of the given lengths, of which some may be empty."""
        edges = [0, *accumulate(chunks)]
        out: list[AxisChunk] = []
        # The chunks that infer anything, and the cells they cover. Windows are shared out in order, and their
        # ends rise with their starts though the last is shifted inward: all three lists are sorted.
        producers: list[int] = []
        starts: list[int] = []
        stops: list[int] = []
        taken = 0  # cells that this chunk or an earlier one needs
        for number, pixels in enumerate(pairwise(edges)):
            empty = pixels[0] == pixels[1]
            needs = (0, 0) if empty else self.needed_cells(pixels)
            windows = self.plan.owned(taken, max(needs[1], taken))
            taken = max(needs[1], taken)
            reads: tuple[Piece, ...] = ()
            box = pixels
            if windows[0] < windows[1]:
                first, stop = self.plan.span(*windows)
                producers.append(number)
                starts.append(first)
                stops.append(stop)
                covered = self.pixel_span(windows)  # may begin after the chunk's first pixel, never before
                reads, box = _parts(covered, edges), (pixels[0], max(pixels[1], covered[1]))
            sums = []
            for k in range(bisect_right(stops, needs[0]), bisect_left(starts, needs[1])):
                lo, hi = starts[k], stops[k]
                first, stop = max(lo, needs[0]), min(hi, needs[1])
                whole = (first, stop) == (lo, hi)
                sums.append(Piece(producers[k], first - lo, stop - lo, first - needs[0], whole))
            out.append(AxisChunk(pixels, windows, reads, box, needs, tuple(sums)))
        return tuple(out)


def _parts(pixels: Range, edges: Sequence[int]) -> tuple[Piece, ...]:
    """Return a range of pixels as parts of the chunks between `edges`."""
    pieces = []
    for index in range(bisect_right(edges, pixels[0]) - 1, bisect_left(edges, pixels[1])):
        first, stop = max(edges[index], pixels[0]), min(edges[index + 1], pixels[1])
        if first < stop:
            whole = (first, stop) == (edges[index], edges[index + 1])
            pieces.append(Piece(index, first - edges[index], stop - edges[index], first - pixels[0], whole))
    return tuple(pieces)
