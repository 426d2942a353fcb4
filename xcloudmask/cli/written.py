"""Masks as this library writes them, and rasters that do not name their bands, as `info` shows them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.cli import source
from xcloudmask.predict.options import PredictOptions
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.mask_classes import codes_of
from xcloudmask.stac.opening import gdal_path, open_raster

#: Pixels up to which a mask is counted; a bigger one is sampled to about that many.
_COUNTED = 20_000_000
_SHARE = "probability of "


def find_mask(path: Path, variable: str | None = None) -> xr.DataArray | None:
    """Return the mask or probabilities that lie at a path, lazy; None if it is something else."""
    if source.is_store(path):
        return _in_store(path, variable)
    return _in_raster(path) if path.is_file() else None


def _in_store(path: Path, variable: str | None) -> xr.DataArray | None:
    ds = source.open_dataset(path)
    arrays = {str(name): array for name, array in ds.data_vars.items() if array.ndim > 1}
    if variable is None and len(arrays) > 1:  # a scene, with a mask of its own maybe
        return None
    array = next(iter(arrays.values()), None) if variable is None else arrays.get(variable)
    if array is None or "model" not in array.attrs:
        return None
    return array if "flag_values" in array.attrs or "class" in array.dims else None


def _in_raster(path: Path) -> xr.DataArray | None:
    from rasterio.errors import RasterioIOError

    try:
        with open_raster(gdal_path(str(path))) as file:
            tags, names = file.tags(), [name or "" for name in file.descriptions]
    except RasterioIOError:  # an archive, or broken: `open_scene` tells
        return None
    classes = "flag_values" in tags and "flag_meanings" in tags and len(names) == 1
    if not classes and not ("model" in tags and all(name.startswith(_SHARE) for name in names)):
        return None
    da = source.open_image(path)
    if classes:
        da = da.squeeze("band", drop=True)
    else:
        da = da.rename(band="class").assign_coords({"class": [name.removeprefix(_SHARE) for name in names]})
    attrs: dict[str, Any] = {**tags}
    for name in PredictOptions.recorded(numbers=True):
        if name in tags:
            attrs[name] = _number(tags[name])
    if classes:
        attrs["flag_values"] = [int(float(word)) for word in tags["flag_values"].split()]
    if "working_resolution_m" in attrs:
        attrs["working_resolution_m"] = [float(word) for word in tags["working_resolution_m"].split()]
    out: xr.DataArray = da.assign_attrs(attrs).rename(path.stem)
    return out


def _number(text: str) -> float | str:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def shares(mask: xr.DataArray) -> tuple[str, dict[str, int]]:
    """Return how much of a mask each class takes, and its pixels, of a sample of them where it is big."""
    from xcloudmask.masks.write import Written

    step = max(1, math.ceil(math.sqrt(mask.size / _COUNTED)))
    seen = np.bincount(mask.isel({dim: slice(None, None, step) for dim in spatial_dims(mask)}).values.ravel())
    counts = {name: int(seen[code]) if code < len(seen) else 0 for name, code in codes_of(mask).items()}
    text = str(Written(Path(), counts)).partition(": ")[2]
    return text if step == 1 else f"{text} (of every {step}th row and column)", counts


def unnamed(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return a heading and rows for a raster whose bands bear no names."""
    with open_raster(gdal_path(str(path))) as file:
        head = f"scene (band: {file.count}, y: {file.height}, x: {file.width})"
        size = " × ".join(f"{length:g}" for length in dict.fromkeys(file.res))
        unit = (
            (file.crs.linear_units if file.crs.is_projected else "degrees") if file.crs else "units unknown"
        )
        gaps = "none declared" if file.nodata is None else f"{file.nodata:g}"
        rows = [
            (
                "! Bands",
                f"its {file.count} bands bear no names. Say what they are: --bands blue,green,red,nir (in "
                "order), or --sensor S with --bands in its own names",
            ),
            ("  CRS", file.crs.to_string() if file.crs else "none"),
            ("  Pixels", f"{size} {unit}"),
            ("  Data", f"{', '.join(dict.fromkeys(file.dtypes))}; no data: {gaps}"),
        ]
    return head, rows
