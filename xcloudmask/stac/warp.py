"""Read a file on another grid: GDAL's warper, asked for the same rectangles whichever chunk wants them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from xcloudmask.stac.grid import Grid, Part
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.zarr_store import Raster

#: Rows and columns of the grid that are warped in one go, whichever chunk asks for some of them.
BLOCK = 256
#: Parts of a pixel by which the warper may be off.
_TOLERANCE = 0.001


@lru_cache(maxsize=64)
def rasterio_crs(name: str) -> Any:
    """Return a CRS as rasterio has it."""
    from rasterio.crs import CRS

    return CRS.from_user_input(name)


def read_warped(dataset: Any, source: Source, part: Part, resampling: str) -> Any:
    """Read on another grid: the blocks that the part touches, each made whole, then cut.

    What GDAL makes of a pixel depends on the rectangle that it is asked for: it approximates the projection
    and estimates the size of its kernel for each. So the rectangles are those of the grid, never the chunks'.
    """
    blocks = [
        (row, column)
        for row in range(part.row // BLOCK * BLOCK, part.row + part.shape[0], BLOCK)
        for column in range(part.column // BLOCK * BLOCK, part.column + part.shape[1], BLOCK)
    ]
    options = _warp_options(dataset, source, part.whole, resampling)
    out: Any = None
    for row, column in blocks:
        shape = (min(BLOCK, part.whole.shape[0] - row), min(BLOCK, part.whole.shape[1] - column))
        block = _warp(dataset, source.index, part.whole.window(row, column, shape), options)
        if out is None:
            out = np.ma.masked_array(np.zeros(part.shape, block.dtype), mask=True)
        inner, outer = [], []
        for start, size, first, length in zip(
            (part.row, part.column), part.shape, (row, column), shape, strict=True
        ):
            low, high = max(start, first), min(start + size, first + length)
            inner.append(slice(low - first, high - first))
            outer.append(slice(low - start, high - start))
        out[tuple(outer)] = block[tuple(inner)]
    return out


def _warp_options(dataset: Any, source: Source, whole: Grid, resampling: str) -> dict[str, Any]:
    from rasterio.dtypes import in_dtype_range
    from rasterio.enums import Resampling

    # The file's own value keeps out of the interpolation; the item's, if another, is masked afterwards.
    source_nodata = source.nodata if dataset.nodata is None else dataset.nodata
    if source_nodata is not None and not in_dtype_range(source_nodata, dataset.dtypes[source.index - 1]):
        source_nodata = None  # a value that the file cannot hold marks nothing
    options: dict[str, Any] = {"resampling": Resampling[resampling], "tolerance": _TOLERANCE}
    if dataset.crs is None:
        options["src_crs"] = source.crs or whole.crs
    if resampling != "nearest":
        # Interpolated numbers are no integers, and the nodata value must not take part.
        options["dtype"] = "float32"
        options.update(_kernel_scale(dataset, options.get("src_crs", dataset.crs), whole))
    if source_nodata is None:
        options["add_alpha"] = True
    else:
        options.update(src_nodata=source_nodata, nodata=source_nodata)
    return options


def _kernel_scale(dataset: Any, crs: Any, whole: Grid) -> dict[str, str]:
    """Return how many pixels of the grid lie on one of the file's, taken amidst the file: one for all blocks.

    Without it GDAL estimates the width of its kernel block by block, and blocks meet with a seam.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform

    a, b, left, d, e, top = tuple(dataset.transform)[:6]
    x = left + a * dataset.width / 2 + b * dataset.height / 2
    y = top + d * dataset.width / 2 + e * dataset.height / 2
    try:
        xs, ys = transform(crs, rasterio_crs(whole.crs), [x, x + a, x + b], [y, y + d, y + e])
    # the middle of the file lies nowhere on the grid's CRS: GDAL's estimate has to do
    except (CRSError, RasterioError, CPLE_BaseError):
        return {}
    across, down = (
        math.hypot((xs[to] - xs[0]) / whole.res_x, (ys[to] - ys[0]) / whole.res_y) for to in (1, 2)
    )
    if not (math.isfinite(across + down) and min(across, down) > 0):
        return {}
    return {"XSCALE": repr(across), "YSCALE": repr(down)}


def _warp(dataset: Any, index: int, block: Grid, options: dict[str, Any]) -> Any:
    from rasterio.vrt import WarpedVRT

    with (
        dataset.around(block) if isinstance(dataset, Raster) else nullcontext(dataset) as file,
        WarpedVRT(
            file,
            crs=rasterio_crs(block.crs),
            transform=block.transform,
            height=block.shape[0],
            width=block.shape[1],
            **options,
        ) as vrt,
    ):
        data = vrt.read(index, masked=True)
        if "add_alpha" in options:
            data = np.ma.masked_array(data.data, mask=vrt.read(vrt.count) == 0)
    return data
