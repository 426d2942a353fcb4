"""What an array of reflectance says of itself, read once: planning, repr and plot work from this value."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import xarray as xr

from xcloudmask.errors import CloudMaskError
from xcloudmask.scene.bands import read_bands, sensor_of
from xcloudmask.scene.dims import band_dim, pixel_size, spatial_dims
from xcloudmask.scene.mask_classes import as_mask
from xcloudmask.types import Band, Sensor


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An array of reflectance, the names of its dimensions, and what is known of its bands and pixels."""

    da: xr.DataArray
    y: str
    x: str
    band: str
    lead: tuple[Hashable, ...]  # the other dimensions, such as time
    bands: tuple[Band, ...]
    sensor: Sensor | None
    level: str | None  # as the attributes word it
    pixel: tuple[float, float] | None  # metres, rows and columns; None where it is not known


def read_scene(da: xr.DataArray, *, measured: bool = True) -> Scene:
    """Read what `da` says of itself; no pixel is read.

    If it is `measured`, the size of a pixel is needed, and so evenly spaced coordinates; a picture does
    without.

    Examples
    --------
    >>> import numpy as np, xcloudmask
    >>> da = xr.DataArray(np.zeros((2, 3, 4)), dims=("band", "y", "x"))
    >>> scene = read_scene(da.cloudmask.describe(bands=["red", "nir"]))
    >>> scene.y, [band.common_name for band in scene.bands], scene.pixel
    ('y', ['red', 'nir'], None)
    """
    _check_in_reach(da)
    unbanded = as_mask(da)  # a mask that a GeoTIFF gave a band dimension is no scene
    y, x = spatial_dims(da)
    band = band_dim(unbanded)
    if da.size == 0:
        raise CloudMaskError(f"the array is empty: its sizes are {dict(da.sizes)}; check the selection")
    if any(size != size for sizes in da.chunks or () for size in sizes):
        raise CloudMaskError(
            "the array has chunks of unknown size: call da.data.compute_chunk_sizes(), or give it "
            "coordinates before what made them unknown"
        )
    pixel = pixel_size(da, y, x) if measured else None
    return Scene(
        da, y, x, band,
        lead=tuple(dim for dim in da.dims if dim not in (band, y, x)),
        bands=read_bands(da, band),
        sensor=sensor_of(da),
        level=da.attrs.get("level"),
        pixel=pixel,
    )  # fmt: skip


def _check_in_reach(da: xr.DataArray) -> None:
    """Refuse pixels in a GPU's memory: windows are cut and put together in the host's."""
    data = da.variable._data  # da.data would read a lazy array
    if type(getattr(data, "_meta", data)).__module__.partition(".")[0] == "cupy":
        raise CloudMaskError(
            "the array is cupy's, in the memory of a GPU, and windows are cut from NumPy or Dask arrays:"
            " bring it over with da.as_numpy(), a lazy one with"
            " da.copy(data=da.data.map_blocks(cupy.asnumpy)); device='cuda' runs the network on the GPU"
        )
