"""A Dataset whose variables are bands, as odc-stac gives it, brought to one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xcloudmask import sensors
from xcloudmask.bands import name_bands
from xcloudmask.dims import spatial_dims
from xcloudmask.errors import BandError, UnitError
from xcloudmask.units import NODATA_ATTRS

#: What a variable's attributes may tell of its band, and what stands for nothing told.
COLUMNS = {
    "common_name": "", "center_wavelength": np.nan, "full_width_half_max": np.nan, "min_nm": np.nan,
    "max_nm": np.nan, "gsd": np.nan, "kind": "",
}  # fmt: skip


def stack(ds: xr.Dataset) -> xr.DataArray:
    """Return the bands among the variables as one array with a dimension ``band``.

    Variables that are no band (a classification, a quality layer) are left out where it is known which are;
    where nothing tells, all variables over rows and columns are taken.
    """
    y, x = spatial_dims(ds)
    names = _band_names(ds, y, x)
    variables = [ds[name] for name in names]
    described = {**_columns(variables), **_units(variables)}
    gaps = [_gap(variable) for variable in variables]
    if len(set(gaps)) > 1:  # no one number means no data: mark it as NaN
        variables = [_with_nan(v, gap) for v, gap in zip(variables, gaps, strict=True)]
        gaps = [None]
    out = xr.concat(
        [variable.drop_attrs(deep=False) for variable in variables],
        dim="band", coords="minimal", compat="override", join="exact",
    )  # fmt: skip
    out = out.assign_coords({"band": names, **described})
    attrs = {**ds.attrs, **({} if gaps[0] is None else {"nodata": gaps[0]})}
    out = out.transpose(*(dim for dim in out.dims if dim not in ("band", y, x)), "band", y, x)
    return out.assign_attrs(attrs).rename(None)


def _band_names(ds: xr.Dataset, y: str, x: str) -> list[str]:
    names = [str(name) for name, variable in ds.data_vars.items() if {y, x} <= set(variable.dims)]
    if not names:
        there = ", ".join(f"{name} {v.dims}" for name, v in ds.data_vars.items()) or "none"
        raise BandError(f"no variable of the dataset lies over {y} and {x}; its variables: {there}")
    sensor = sensors.get(ds.attrs["sensor"]) if ds.attrs.get("sensor") else None
    bands = name_bands(names, sensor)
    known = [
        name
        for name, band in zip(names, bands, strict=True)
        if band.common_name or band.center_nm or any(ds[name].attrs.get(column) for column in COLUMNS)
    ]
    return known or names


def _gap(variable: xr.DataArray) -> float | None:
    found = next(
        (variable.attrs[name] for name in NODATA_ATTRS if variable.attrs.get(name) is not None), None
    )
    return None if found is None or found != found else float(found)


def _with_nan(variable: xr.DataArray, gap: float | None) -> xr.DataArray:
    variable = variable if variable.dtype.kind == "f" else variable.astype(np.float32)
    return variable if gap is None else variable.where(variable != gap)


def _columns(variables: list[xr.DataArray]) -> dict[str, Any]:
    """Return what the variables' attributes tell of the bands, as coordinates."""
    out: dict[str, Any] = {}
    for column, nothing in COLUMNS.items():
        values = [variable.attrs.get(column, nothing) for variable in variables]
        if any(column in variable.attrs for variable in variables):
            out[column] = ("band", values)
    return out


def _units(variables: list[xr.DataArray]) -> dict[str, Any]:
    """Return each variable's own scale and offset as coordinates, where integers declare them."""
    integers = [v for v in variables if v.dtype.kind in "iu"]
    declared = [v for v in integers if float(v.attrs.get("scale_factor", 1.0)) != 1]
    if not declared:
        return {}
    if len(declared) < len(variables):
        silent = [str(v.name) for v in variables if not any(v is other for other in declared)]
        raise UnitError(
            f"variables {', '.join(silent)} do not tell their scale, the others do: describe them with "
            "ds.cloudmask.describe(scale=[...], offset=[...]), or set their attribute scale_factor"
        )
    return {
        "scale": ("band", [float(v.attrs["scale_factor"]) for v in variables]),
        "offset": ("band", [float(v.attrs.get("add_offset", 0.0)) for v in variables]),
    }
