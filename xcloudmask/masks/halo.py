"""Work on the blocks of an array, each with as much of its neighbours around it as the work needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.masks.lengths import Floats

Array = np.ndarray[Any, Any]
#: Takes a block and, as `scale=`, that of its rows; returns a block of that shape.
Kernel = Callable[..., Array]
#: Rows and columns of a block where an array in memory is cut, so that threads share it.
BLOCK = 2048


def as_blocks(data: Any) -> Any:
    """Return an array as a Dask array: one in memory is cut."""
    import dask.array as da

    if isinstance(data, da.Array):
        return data
    return da.from_array(data, chunks=(*(1,) * (data.ndim - 2), BLOCK, BLOCK), name=False)  # type: ignore[no-untyped-call]


def like(done: Any, da: xr.DataArray) -> Any:
    """Return a Dask array as it is where `da` is lazy, else what it comes to, by threads of this process."""
    return done if da.chunks is not None else done.compute(scheduler="threads")


def with_halo(data: Any, kernel: Kernel, depth: tuple[int, int], scale: Floats | None, outside: Any) -> Any:
    """Return what `kernel` makes of a Dask array (..., rows, columns), in the chunks it has.

    Parameters
    ----------
    data : dask array
    kernel : callable
        Its answer may be wrong within `depth` of a block's edge; that is cut off.
    depth : tuple of int
        Rows and columns around a block.
    scale : array, optional
        Of the rows, as `Grid.scale`; beyond the first and the last row as in these.
    outside : scalar
        What lies beyond the array.
    """
    import dask.array as da
    from dask.array.overlap import ensure_minimum_chunksize, overlap

    chunks, lead = data.chunks, data.ndim - 2
    halo = tuple(min(reach, length) for reach, length in zip(depth, data.shape[-2:], strict=True))
    for axis in (0, 1):  # a block is at least as large as what its neighbours need of it
        if halo[axis]:
            data = data.rechunk({lead + axis: ensure_minimum_chunksize(halo[axis], data.chunks[lead + axis])})  # type: ignore[no-untyped-call]
    merged = data.chunks
    arrays = [overlap(data, {lead: halo[0], lead + 1: halo[1]}, {lead: outside, lead + 1: outside})]  # type: ignore[no-untyped-call]
    if scale is not None:
        rows = da.from_array(scale[:, None], chunks=(merged[lead], 1), name=False)  # type: ignore[no-untyped-call]
        arrays.append(overlap(rows, {0: halo[0], 1: 0}, {0: "nearest", 1: "none"}))  # type: ignore[no-untyped-call]
    more = tuple(wanted - there for wanted, there in zip(depth, halo, strict=True))
    out = da.map_blocks(  # type: ignore[no-untyped-call]
        _trimmed, *arrays, kernel=kernel, halo=halo, more=more, outside=outside, dtype=data.dtype,
        chunks=merged, meta=np.empty((0,) * data.ndim, data.dtype),
    )  # fmt: skip
    return out.rechunk(chunks)


def _trimmed(
    block: Array, rows: Array | None = None, *, kernel: Kernel, halo: tuple[int, int], more: tuple[int, int],
    outside: Any,
) -> Array:  # fmt: skip
    """Do the work and cut the halo off; `more` is what the array was too small to give of it."""
    scale = None if rows is None else rows[:, 0]
    if any(more):
        block = np.pad(
            block, [*((0, 0),) * (block.ndim - 2), *((n, n) for n in more)], constant_values=outside
        )
        scale = None if scale is None else np.pad(scale, more[0], mode="edge")
    top, left = halo[0] + more[0], halo[1] + more[1]
    done = kernel(block, scale=scale)
    return done[..., top : done.shape[-2] - top, left : done.shape[-1] - left]
