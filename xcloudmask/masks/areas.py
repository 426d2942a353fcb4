"""The clear share of areas such as parcels; a pixel counts by how much of it an area covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

from xcloudmask.classes import CLEAR
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.apply import holds_class, one_of
from xcloudmask.scene.dims import spatial_dims, transform_of
from xcloudmask.scene.mask_classes import as_mask

#: Parts of a pixel that are counted: sums of whole numbers are the same in any order, and so for any chunks.
PARTS = 2**16

Counts = npt.NDArray[np.int64]


def shapes_on(mask: xr.DataArray, areas: Any) -> list[Any]:
    """Return the geometries of areas in the CRS of a mask."""
    if mask.rio.crs is None or areas.crs is None:
        whose = "the mask has" if mask.rio.crs is None else "areas= has"
        raise CloudMaskError(f"{whose} no CRS, so areas= has no place", "Set it: rio.write_crs, set_crs")
    return list(areas.to_crs(mask.rio.crs.to_wkt()).geometry)


def clear_fraction_of(mask: xr.DataArray, areas: Any, clear: Sequence[str] = CLEAR) -> xr.DataArray:
    """Return the clear share of each area, (..., area); lazy if the mask is.

    Areas are a GeoDataFrame or GeoSeries in any CRS; they may overlap.

    Examples
    --------
    >>> import geopandas, shapely
    >>> mask = xr.DataArray(
    ...     [[0, 1], [0, 255]], dims=("y", "x"), coords={"y": [15.0, 5.0], "x": [5.0, 15.0]},
    ...     attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
    >>> field = geopandas.GeoSeries([shapely.box(8, 0, 14, 20)], index=["a"], crs=32632)
    >>> clear_fraction_of(mask.rio.write_crs(32632), field).sel(area="a").item()  # 40 of 80 square metres
    0.5
    """
    try:
        import exactextract  # noqa: F401
    except ImportError as error:
        raise ImportError("areas= needs exactextract: pip install 'xcloudmask[areas]'") from error
    mask = as_mask(mask)
    if not hasattr(areas, "to_crs"):
        raise CloudMaskError(
            f"areas= must be a GeoDataFrame or GeoSeries, not {type(areas).__name__}",
            "For numbers on the grid, use xcloudmask.timeseries(mask, areas=...)",
        )
    shapes = shapes_on(mask, areas)
    y, x = spatial_dims(mask)
    kind = (holds_class(mask).astype(np.uint8) + one_of(mask, clear)).transpose(..., y, x)
    cut = kind if kind.chunks is not None else kind.chunk()
    features = [
        {"type": "Feature", "properties": {}, "geometry": shape.__geo_interface__} for shape in shapes
    ]
    lead, sizes = cut.dims[:-2], cut.data.chunks
    parts = cut.data.map_blocks(
        _count, features, transform_of(mask), dtype=np.int64, new_axis=[cut.ndim, cut.ndim + 1],
        chunks=(*sizes[:-2], *((1,) * len(cuts) for cuts in sizes[-2:]), len(features), 2),
        meta=np.empty((0,) * (cut.ndim + 2), np.int64),
    )  # fmt: skip
    counts = xr.DataArray(
        parts.sum(axis=(len(lead), len(lead) + 1)), dims=(*lead, "area", "what"),
        coords={"area": np.asarray(areas.index),
                **{name: coord for name, coord in kind.coords.items() if set(coord.dims) <= set(lead)}},
    )  # fmt: skip
    good, valid = counts.isel(what=0), counts.isel(what=1)
    share = (good / valid.where(valid > 0)).rename("clear_fraction")
    share.attrs = {"long_name": "clear share of the pixels that hold data", "units": "1"}
    return share if kind.chunks is not None else share.compute(scheduler="synchronous")


def _count(block: npt.NDArray[np.uint8], features: list[Any], transform: Any, block_info: Any) -> Counts:
    """Return clear and valid parts of pixels by area, (..., 1, 1, area, 2)."""
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    (top, bottom), (left, right) = block_info[0]["array-location"][-2:]
    west, east = (transform.c + transform.a * at for at in (left, right))
    one, other = (transform.f + transform.e * at for at in (top, bottom))
    grid = np.zeros(block.shape[-2:], np.int8)
    source = NumPyRasterSource(grid, min(west, east), min(one, other), max(west, east), max(one, other))
    pixels = block[..., :: 1 if one > other else -1, :: 1 if west < east else -1]  # north up, west left
    flat = pixels.reshape(math.prod(block.shape[:-2]), -1)
    out = np.zeros((len(flat), len(features), 2), np.int64)
    for area, feature in enumerate(exact_extract(source, features, ["cell_id", "coverage"])):
        covered = np.rint(feature["properties"]["coverage"] * PARTS).astype(np.int64)
        kinds = flat[:, feature["properties"]["cell_id"]]
        out[:, area] = np.stack([(kinds == 2) @ covered, (kinds >= 1) @ covered], axis=-1)
    return out.reshape(*block.shape[:-2], 1, 1, len(features), 2)
