"""Mask first, read the rest where it is clear."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import CLEAR
from xcloudmask.errors import CloudMaskError, Use
from xcloudmask.masks.apply import holds_class, one_of
from xcloudmask.masks.series import over_dates
from xcloudmask.scene.dataset import as_variables, stack
from xcloudmask.tidy.graph import Alias, Task, array_of

if TYPE_CHECKING:
    from dask.typing import Key

Bool = npt.NDArray[np.bool_]


def select_clear(
    data: xr.DataArray | xr.Dataset, mask: xr.DataArray, min_clear: float = 0.3, clear: Sequence[str] = CLEAR
) -> xr.DataArray | xr.Dataset:
    """Do what `xcloudmask.accessor.CloudMask.select_clear` documents."""
    da = stack(data) if isinstance(data, xr.Dataset) else data
    mask, lead = over_dates(mask, da)
    counts = clear_counts(mask, da, clear)
    kept = enough(counts.sum(axis=(-2, -1)), min_clear)
    if lead:
        da, counts = da.isel({lead[0]: np.flatnonzero(kept)}), counts[:, kept]
    elif not kept:
        raise CloudMaskError(
            f"the scene is not clear enough for min_clear={min_clear}: nothing is left of it"
        )
    da = read_where(da, enough(counts, min_clear), mask.dims) if da.chunks is not None else da
    return as_variables(da, data) if isinstance(data, xr.Dataset) else da


def enough(counts: npt.NDArray[np.int64], min_clear: float) -> Bool:
    """Return where the clear pixels are at least the share `min_clear` of those that hold data."""
    if isinstance(min_clear, bool) or not isinstance(min_clear, (int, float)) or not 0 <= min_clear <= 1:
        raise CloudMaskError(
            " must be a share, from 0 to 1, of the pixels that hold data", option=Use(min_clear=min_clear)
        )
    good, valid = counts
    out: Bool = (valid > 0) & (good >= min_clear * valid)
    return out


def clear_counts(mask: xr.DataArray, da: xr.DataArray, clear: Sequence[str]) -> npt.NDArray[np.int64]:
    """Compute how many pixels are clear, and hold data, of each date in each chunk of the scene."""
    *lead, y, x = mask.dims
    blocks = {dim: da.chunksizes.get(dim, mask.sizes[dim]) for dim in (y, x)}
    cut = mask.chunk({**dict.fromkeys(lead, 1), **blocks})

    def summed(part: xr.DataArray) -> Any:
        ones = tuple((1,) * len(sizes) for sizes in part.chunks or ())
        return part.data.map_blocks(
            _sum, chunks=ones, dtype=np.int64, meta=np.empty((0,) * part.ndim, np.int64)
        )

    import dask

    return np.stack(dask.compute(summed(one_of(cut, clear)), summed(holds_class(cut))))  # type: ignore[attr-defined,no-untyped-call]


def _sum(block: Bool) -> npt.NDArray[np.int64]:
    return np.asarray(block.sum(axis=(-2, -1), keepdims=True, dtype=np.int64))


def read_where(da: xr.DataArray, wanted: Bool, dims: Sequence[Hashable]) -> xr.DataArray:
    """Return a lazy scene with NaN for the chunks of which no date is clear enough; they are not read."""
    from dask.base import tokenize

    da = da if da.dtype.kind == "f" else da.astype(np.float32)
    source = da.data
    ends = {dim: [0, *accumulate(sizes)] for dim, sizes in da.chunksizes.items()}
    name = f"clear-{tokenize(source.name, wanted)}"
    graph: dict[Any, Any] = {}
    for index in product(*map(range, source.numblocks)):
        chunk = dict(zip(da.dims, index, strict=True))
        place: list[Any] = [slice(ends[dim][chunk[dim]], ends[dim][chunk[dim] + 1]) for dim in dims[:-2]]
        key: Key = (name, *index)
        if wanted[(*place, chunk[dims[-2]], chunk[dims[-1]])].any():
            graph[key] = Alias(key, cast("Key", (source.name, *index)))
        else:
            shape = tuple(sizes[k] for sizes, k in zip(source.chunks, index, strict=True))
            graph[key] = Task(key, np.full, shape, np.nan, source.dtype)
    return da.copy(data=array_of(name, graph, source, source.dtype))
