"""Zarr."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import NO_DATA
from xcloudmask.masks.sink import Progress, store
from xcloudmask.scene.dims import coordinate
from xcloudmask.store.atomic import writing


def make_zarr(
    mask: xr.DataArray, path: Path, spatial: tuple[str, str], progress: Progress | None
) -> dict[str, int]:
    """Write the store's metadata and coordinates, then every chunk as it comes."""
    import rioxarray  # noqa: F401  registers .rio
    import zarr

    name = str(mask.name or "cloud_mask")
    if mask.rio.crs is not None:
        mask = mask.rio.set_spatial_dims(spatial[1], spatial[0]).rio.write_crs(mask.rio.crs)
        mask = mask.drop_encoding().assign_attrs(grid_mapping=mask.rio.grid_mapping)
    empty: Any = np.nan if "class" in mask.dims else NO_DATA
    # ``chunk()`` makes Dask arrays of texts, too, and xarray cannot tell how to write those.
    lazy = {key: coord for key, coord in mask.coords.items() if coord.chunks is not None}
    mask = mask.assign_coords({key: coord.copy(data=coordinate(coord)) for key, coord in lazy.items()})
    chunks = tuple(max(sizes) for sizes in mask.chunks or ())
    # Zarr's own fill value, not CF's _FillValue: a chunk never written reads as no data, uint8 stays uint8.
    encoding = {name: {"chunks": chunks, "fill_value": empty}}
    with writing(), warnings.catch_warnings():
        # Zarr 3's specification does not know it yet; xarray looks for it and complains where it is not.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        mask.to_dataset(name=name).to_zarr(
            path, mode="w-", compute=False, encoding=encoding, zarr_format=3, consolidated=True,
            safe_chunks=False,
        )  # fmt: skip
        array = zarr.open_array(path / name, mode="r+")
    return store(mask, array, progress)
