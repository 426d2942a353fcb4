"""How chunks cut the window plan: integers only, one axis at a time.

A window belongs to the chunk that holds its first pixel. So each chunk (1) reads the pixels that its own
windows reach, (2) yields a sum over the cells that they cover, and (3) needs, for its output, the sums of
whichever chunks cover its cells. Pixels are the caller's grid; cells are the working grid, `factor` pixels
wide.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    windows: Range  # indices of the windows it owns; empty if no window starts here
    reads: tuple[Piece, ...]  # pixels to read, from which chunks
    sums: tuple[Piece, ...]  # cell sums to add, from which chunks
    needs: Range  # cells that its output is made from


@dataclass(frozen=True, slots=True)
class ChunkedAxis:
    """A window plan over an axis of `size` pixels that is cut into chunks.

    Examples
    --------
    >>> axis = ChunkedAxis(size=90, factor=3, plan=AxisPlan(30, patch=10, overlap=4))
    >>> first = axis.cut((40, 50))[0]
    >>> first.windows, first.needs
    ((0, 3), (0, 14))
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

    def cut(self, chunks: Sequence[int]) -> tuple[AxisChunk, ...]:
        """Share the plan out among chunks of the given lengths."""
        edges = [0]
        for length in chunks:
            edges.append(edges[-1] + length)
        owned = [
            self.plan.owned(-(-first // self.factor), -(-stop // self.factor))
            for first, stop in pairwise(edges)
        ]
        spans: list[Range | None] = [self.plan.span(lo, hi) if lo < hi else None for lo, hi in owned]
        producers = [index for index, span in enumerate(spans) if span is not None]
        produced = [span for span in spans if span is not None]
        starts = [span[0] for span in produced]
        # A window may be shifted inward, but ends rise with starts, so both lists are sorted.
        stops = [span[1] for span in produced]

        def sums(needs: Range) -> Iterator[Piece]:
            for at in range(bisect_right(stops, needs[0]), bisect_left(starts, needs[1])):
                lo, hi = produced[at]
                first, stop = max(lo, needs[0]), min(hi, needs[1])
                yield Piece(producers[at], first - lo, stop - lo, first - needs[0], (first, stop) == (lo, hi))

        def reads(windows: Range) -> Iterator[Piece]:
            if windows[0] == windows[1]:
                return
            lo, hi = self.pixel_span(windows)
            for index in range(bisect_right(edges, lo) - 1, bisect_left(edges, hi)):
                first, stop = max(edges[index], lo), min(edges[index + 1], hi)
                if first < stop:
                    whole = (first, stop) == (edges[index], edges[index + 1])
                    yield Piece(index, first - edges[index], stop - edges[index], first - lo, whole)

        out = []
        for (first, stop), windows in zip(pairwise(edges), owned, strict=True):
            needs = self.needed_cells((first, stop)) if first < stop else (0, 0)
            out.append(
                AxisChunk(
                    (first, stop),
                    windows,
                    tuple(reads(windows)),
                    tuple(sums(needs)) if stop > first else (),
                    needs,
                )
            )
        return tuple(out)
