"""A lazy scene that remembers which of its chunks were read."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr


def counting(
    values: np.ndarray, chunks: tuple[int, ...], coords: dict[str, Any]
) -> tuple[xr.DataArray, list[tuple[int, ...]]]:
    """Values by time, band, y and x; the list grows as chunks are read."""
    reads: list[tuple[int, ...]] = []

    def read(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        reads.append(block_info[None]["chunk-location"])
        return block

    source = da.from_array(values, chunks=chunks).map_blocks(
        read, dtype=values.dtype, meta=np.empty((0,) * values.ndim, values.dtype)
    )
    return xr.DataArray(source, dims=("time", "band", "y", "x"), coords=coords), reads
