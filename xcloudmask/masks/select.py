"""Mask first, read the rest where it is clear."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.errors import CloudMaskError, Use
from xcloudmask.masks.apply import CLEAR, holds_class, one_of
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.mask_classes import as_mask
from xcloudmask.scene.same_grid import check_same_grid
from xcloudmask.tidy.graph import Alias, Task, array_of

if TYPE_CHECKING:
    from dask.typing import Key

Bool = npt.NDArray[np.bool_]


def select_clear(
    da: xr.DataArray, mask: xr.DataArray, min_clear: float = 0.3, clear: Sequence[str] = CLEAR
) -> xr.DataArray:
    """Do what `xcloudmask.accessor.DataArrayAccessor.select_clear` documents."""
    if isinstance(min_clear, bool) or not isinstance(min_clear, (int, float)) or not 0 <= min_clear <= 1:
        raise CloudMaskError(
            " must be a share, from 0 to 1, of the pixels that hold data", option=Use(min_clear=min_clear)
        )
    mask = as_mask(mask) if isinstance(mask, xr.DataArray) else mask
    check_same_grid(mask, da, "mask")
    y, x = spatial_dims(mask)
    lead: list[Hashable] = [dim for dim in mask.dims if dim not in (y, x)]
    if len(lead) > 1:
        raise CloudMaskError(
            f"the mask lies over {mask.dims}: it may have one dimension beside rows and columns"
        )
    counts = _count(mask.transpose(*lead, y, x), da, clear)
    dates = counts.sum(axis=(-2, -1))
    if lead:
        kept = np.flatnonzero(_enough(dates, min_clear))
        da, counts = da.isel({lead[0]: kept}), counts[:, kept]
    elif not _enough(dates, min_clear):
        raise CloudMaskError(
            f"the scene is not clear enough for min_clear={min_clear}: nothing is left of it"
        )
    return _read(da, _enough(counts, min_clear), (*lead, y, x)) if da.chunks is not None else da


def _enough(counts: npt.NDArray[np.int64], min_clear: float) -> Bool:
    good, valid = counts
    out: Bool = (valid > 0) & (good >= min_clear * valid)
    return out


def _count(mask: xr.DataArray, da: xr.DataArray, clear: Sequence[str]) -> npt.NDArray[np.int64]:
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


def _read(da: xr.DataArray, enough: Bool, dims: Sequence[Hashable]) -> xr.DataArray:
    """Return a lazy scene with NaN for the chunks of which no date is clear enough; they are not read."""
    from dask.base import tokenize

    da = da if da.dtype.kind == "f" else da.astype(np.float32)
    source = da.data
    ends = {dim: [0, *accumulate(sizes)] for dim, sizes in da.chunksizes.items()}
    name = f"clear-{tokenize(source.name, enough)}"
    graph: dict[Any, Any] = {}
    for index in product(*map(range, source.numblocks)):
        chunk = dict(zip(da.dims, index, strict=True))
        place: list[Any] = [slice(ends[dim][chunk[dim]], ends[dim][chunk[dim] + 1]) for dim in dims[:-2]]
        key: Key = (name, *index)
        if enough[(*place, chunk[dims[-2]], chunk[dims[-1]])].any():
            graph[key] = Alias(key, cast("Key", (source.name, *index)))
        else:
            shape = tuple(sizes[k] for sizes, k in zip(source.chunks, index, strict=True))
            graph[key] = Task(key, np.full, shape, np.nan, source.dtype)
    return da.copy(data=array_of(name, graph, source, source.dtype))
