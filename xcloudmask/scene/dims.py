"""Which dimension of an array is which, and how large its pixels are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from xarray.indexes import PandasIndex

from xcloudmask.errors import BandError, CloudMaskError, OptionError

SPATIAL = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("Y", "X"), ("northing", "easting"))
BAND_DIMS = ("band", "bands", "wavelength", "channel")
#: Metres in a degree of latitude.
DEGREE = 111_320.0


def spatial_dims(da: xr.DataArray | xr.Dataset) -> tuple[str, str]:
    """Return the names of the row and the column dimension."""
    for y, x in SPATIAL:
        if y in da.dims and x in da.dims:
            return y, x
    raise OptionError(
        "spatial dimensions",
        tuple(da.dims),
        allowed=[f"{y}/{x}" for y, x in SPATIAL],
        hint="Rename them with da.rename.",
    )


def band_dim(da: xr.DataArray) -> str:
    """Return the name of the band dimension."""
    for name in BAND_DIMS:
        if name in da.dims:
            return name
    hint = (
        "This looks like a mask: predict takes the reflectance it was made from."
        if "flag_values" in da.attrs
        else "Rename it with da.rename(NAME='band'), or add one with da.expand_dims('band')."
    )
    raise BandError(
        f"the array's dimensions are {da.dims}: none of them is a band dimension ({', '.join(BAND_DIMS)}). "
        + hint
    )


def pixel_size(da: xr.DataArray, y: str, x: str) -> tuple[float, float] | None:
    """Return the pixel size in metres along rows and columns, or None where nothing tells it."""
    out: list[float] = []
    for dim in (y, x):
        if dim not in da.coords:
            return None
        values = da[dim].values
        if len(values) > 1:
            out.append(spacing(values, dim))
    if not out:
        return None
    out = [out[0], out[-1]]  # an axis of one pixel takes the other's spacing
    crs = crs_of(da)
    if is_geographic(da, y):
        middle = math.radians(float(np.mean(da[y].values[[0, -1]])))
        return out[0] * DEGREE, out[1] * DEGREE * max(math.cos(middle), 0.01)
    if crs is None and min(out) <= 1:  # a plain index
        return None
    metres = crs.linear_units_factor[1] if crs is not None else 1.0
    return out[0] * metres, out[1] * metres


def crs_of(da: xr.DataArray | xr.Dataset) -> Any:
    """Return the CRS as rasterio has it: of a coordinate, as rioxarray reads it, or of an index of xproj."""
    import rioxarray  # noqa: F401  registers .rio, which `import xcloudmask` does not wait for
    from rasterio.crs import CRS

    if da.rio.crs is not None:
        return da.rio.crs
    own = next(
        (crs for index in da.xindexes.values() if (crs := getattr(index, "crs", None)) is not None), None
    )
    return None if own is None else CRS.from_wkt(own.to_wkt())


def transform_of(da: xr.DataArray) -> Any:
    """Return the affine transform from pixels to the CRS, as the coordinates tell.

    A GeoTransform is the file's, and a thinned or turned part of the scene carries it on. It counts where the
    coordinates agree, for it has more digits, and where it turns pixels, which they cannot tell.
    """
    import rioxarray  # noqa: F401  registers .rio

    kept = da.rio.transform()
    if kept.b or kept.d:
        return kept
    by_axes = da.rio.transform(recalc=True)
    off = abs(by_axes.a - kept.a) * da.rio.width, abs(by_axes.e - kept.e) * da.rio.height
    return kept if max(off) < 1e-3 * min(abs(kept.a), abs(kept.e)) else by_axes


def plain_axes(da: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """Return the array with ordinary coordinates of rows and columns in the place of rasterix's."""
    odd = [dim for dim in dims if dim in da.coords and not isinstance(da.xindexes.get(dim), PandasIndex)]
    return da.drop_indexes(odd, errors="ignore").assign_coords({dim: coordinate(da[dim]) for dim in odd})


@lru_cache(maxsize=256)
def transformer(source: Any, target: Any) -> Any:
    """Return what turns x and y of one CRS into those of another."""
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)


def is_geographic(da: xr.DataArray, y: str) -> bool:
    """Whether rows and columns count degrees."""
    crs = crs_of(da)
    return bool(crs.is_geographic) if crs is not None else y in ("lat", "latitude")


def spacing(values: np.ndarray[Any, Any], dim: str) -> float:
    """Return the distance between neighbours along an axis; an error where there is not one distance."""
    if values.dtype.kind not in "fiu":
        raise CloudMaskError(
            f"the coordinate {dim!r} must hold numbers, got {values.dtype}; drop or convert it"
        )
    steps = np.diff(values.astype(float))
    if not (np.isfinite(steps).all() and ((steps > 0).all() or (steps < 0).all())):
        raise CloudMaskError(
            f"the coordinate {dim!r} does not rise or fall all along (or holds NaN or one value twice), so "
            f"windows would join pixels that are no neighbours: da.sortby({dim!r}); across the antimeridian "
            "add 360 to negative longitudes"
        )
    middle = float(np.median(np.abs(steps)))
    if np.abs(np.abs(steps) - middle).max() > 0.25 * middle:
        raise CloudMaskError(
            f"the coordinate {dim!r} has steps from {np.abs(steps).min():g} to {np.abs(steps).max():g}: rows "
            "and columns must be evenly spaced. Fill what is missing with da.reindex, or reproject"
        )
    return middle


def coordinate(coord: xr.DataArray) -> np.ndarray[Any, Any]:
    """Return the values of a small coordinate.

    ``da.chunk`` makes Dask arrays of coordinates, too; their values are in the graph, so they are had here
    and now, without asking the user's scheduler or cluster.
    """
    if coord.chunks is None:
        return np.asarray(coord.values)
    return np.asarray(coord.data.compute(scheduler="synchronous"))
