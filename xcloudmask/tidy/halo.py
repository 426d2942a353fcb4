"""Work on the blocks of an array, each with as much of its neighbours around it as the work needs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.engine.progress import Progress, progress_bar
from xcloudmask.tidy.graph import DataNode, Task, TaskRef, array_of
from xcloudmask.tidy.lengths import Floats

Array = np.ndarray[Any, Any]
#: Takes a block and, as `scale=`, that of its rows; returns a block of that shape.
Kernel = Callable[..., Array]
#: Rows and columns of a block where an array in memory is cut, so that threads share it.
BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Packed:
    """A block, compressed, and its edges by themselves: masks shrink to a few per cent."""

    #: By rows and columns (-1 the first, 1 the last, 0 all): bytes and shape.
    pieces: Mapping[tuple[int, int], tuple[bytes, tuple[int, ...]]]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, block: Array, depth: tuple[int, int] = (0, 0)) -> Packed:
        """Pack a block and edges of so many rows and columns."""
        sides = [(0, 0)]
        sides += [(-1, 0), (1, 0)] if depth[0] else []
        sides += [(0, -1), (0, 1)] if depth[1] else []
        pieces = {}
        for side in sides:
            part = block[..., _span(side[0], depth[0]), _span(side[1], depth[1])]
            pieces[side] = zlib.compress(part.tobytes(), 1), part.shape
        return cls(pieces, block.dtype)

    def part(self, rows: int = 0, columns: int = 0, depth: tuple[int, int] = (0, 0)) -> Array:
        """Return the block; or what another takes of it that it lies before (-1) or behind (1)."""
        data, shape = self.pieces[(-rows, 0) if rows else (0, -columns)]
        whole = np.frombuffer(bytearray(zlib.decompress(data)), self.dtype).reshape(shape)
        return whole[..., :, _span(-columns, depth[1])] if rows else whole


def _span(side: int, reach: int) -> slice:
    """Return the first of an axis, the last, or all."""
    return slice(reach) if side < 0 else slice(-reach, None) if side > 0 else slice(None)


def as_blocks(data: Any) -> Any:
    """Return an array as a Dask array: one in memory is cut."""
    import dask.array as da

    if isinstance(data, da.Array):
        return data
    return da.from_array(data, chunks=(*(1,) * (data.ndim - 2), BLOCK, BLOCK), name=False)  # type: ignore[no-untyped-call]


def like(done: Any, da: xr.DataArray, progress: Progress = "auto") -> Any:
    """Return a Dask array as it is where `da` is lazy, else what it comes to, by threads of this process."""
    if da.chunks is not None:
        return done
    from dask.callbacks import Callback

    with progress_bar(progress, "cleaning", "task") as tell:

        def told(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
            left = sum(len(state[word]) for word in ("ready", "waiting", "running"))
            tell(len(state["finished"]), len(state["finished"]) + left)

        with Callback(posttask=told):  # type: ignore[no-untyped-call]
            return done.compute(scheduler="threads")


def with_halo(data: Any, kernel: Kernel, depth: tuple[int, int], scale: Floats | None, outside: Any) -> Any:
    """Return what `kernel` makes of a Dask array (..., rows, columns), in the chunks it has.

    A chunk is packed, and its edges beside it, as soon as it is there; a task unpacks its own, and of those
    around it the edges. Dask makes many chunks of the source before it needs their neighbours: with
    `dask.array.overlap`, whose slices keep whole chunks alive, it held half of a scene at a time.

    The kernel's answer may be wrong within `depth` (rows, columns) of a block's edge: that is cut off. Rows
    have a `scale`, as `PixelSize.scale`, beyond the first and the last one as in these; what lies `outside`
    of the array has one value.
    """
    from dask.array.overlap import ensure_minimum_chunksize
    from dask.base import tokenize

    chunks, axes = data.chunks, (data.ndim - 2, data.ndim - 1)
    for axis, reach in zip(axes, depth, strict=True):  # a chunk has all that the next one needs
        least = min(reach, data.shape[axis])
        if least:
            data = data.rechunk({axis: ensure_minimum_chunksize(least, data.chunks[axis])})  # type: ignore[no-untyped-call]
    name = f"halo-{tokenize(data.name, kernel, depth, scale, outside)}"
    wide = None if scale is None else np.pad(scale, depth[0], mode="edge")
    tops = [0, *accumulate(data.chunks[-2])]
    kernel_key, packed = f"kernel-{name}", f"packed-{name}"
    graph: dict[Any, Any] = {kernel_key: DataNode(kernel_key, kernel)}
    for index in product(*map(range, data.numblocks)):
        *lead, i, j = index
        around = [
            [n for n in (k - 1, k, k + 1) if 0 <= n < data.numblocks[axis] and (reach or n == k)]
            for k, axis, reach in zip((i, j), axes, depth, strict=True)
        ]
        graph[(packed, *index)] = Task((packed, *index), Packed.of, TaskRef((data.name, *index)), depth)
        blocks = [TaskRef((packed, *lead, r, c)) for r, c in product(*around)]
        here = around[0].index(i), around[1].index(j)
        rows = None if wide is None else wide[tops[i] : tops[i + 1] + 2 * depth[0]]
        graph[(name, *index)] = Task(
            (name, *index),
            _work, TaskRef(kernel_key), here, len(around[1]), depth, rows, outside, *blocks,
        )  # fmt: skip
    return array_of(name, graph, data, data.dtype).rechunk(chunks)


def _work(
    kernel: Kernel, here: tuple[int, int], across: int, depth: tuple[int, int], scale: Floats | None,
    outside: Any, *blocks: Packed,
) -> Array:  # fmt: skip
    """Join a chunk, which is the one at `here`, and what its neighbours give; do the work; cut that off."""
    lines = [blocks[first : first + across] for first in range(0, len(blocks), across)]
    parts = [
        [block.part(r - here[0], c - here[1], depth) for c, block in enumerate(line)]
        for r, line in enumerate(lines)
    ]
    joined = np.concatenate([np.concatenate(line, axis=-1) for line in parts], axis=-2)
    missing = [  # at the edge of the array
        (reach * (before == 0), reach * (after == 0))
        for reach, before, after in zip(
            depth, here, (len(lines) - 1 - here[0], across - 1 - here[1]), strict=True
        )
    ]
    pad = [*((0, 0),) * (joined.ndim - 2), *missing]
    done = kernel(np.pad(joined, pad, constant_values=outside), scale=scale)
    top, left = depth
    return done[..., top : done.shape[-2] - top, left : done.shape[-1] - left].copy()
