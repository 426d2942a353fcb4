"""A Dataset whose variables are bands, as odc-stac gives it, brought to one array."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask import sensors
from xcloudmask.errors import BandError, Remedy, UnitError, Use
from xcloudmask.scene.bands import COLUMNS, name_bands, sensor_of
from xcloudmask.scene.dims import BAND_DIMS, spatial_dims
from xcloudmask.scene.eopf import describe_dataset
from xcloudmask.scene.mask_classes import as_mask, is_mask
from xcloudmask.scene.units import NODATA_ATTRS, declared_nodata


def stack(ds: xr.Dataset) -> xr.DataArray:
    """Return the bands among the variables as one array with a dimension ``band``.

    Variables that are no band (a classification, a quality layer) are left out where it is known which are;
    where nothing tells, all variables over rows and columns are taken.
    """
    stacked = [
        str(name) for name, variable in ds.data_vars.items() if set(BAND_DIMS) & set(as_mask(variable).dims)
    ]
    if len(stacked) == 1:  # an array that was written to a store
        return ds[stacked[0]].assign_attrs({**ds.attrs, **ds[stacked[0]].attrs})
    if stacked:
        raise BandError(
            f"several variables have a band dimension ({', '.join(stacked)}); take one: ds[{stacked[0]!r}]"
        )
    mask = mask_of(ds)
    if mask is not None and sum(variable.ndim > 0 for variable in ds.data_vars.values()) == 1:
        return mask.assign_attrs({**ds.attrs, **mask.attrs})
    ds = describe_dataset(ds)
    y, x = spatial_dims(ds)
    names = band_names(ds)
    variables = [ds[name] for name in names]
    described = {**_columns(variables), **_units(variables)}
    gaps = [declared_nodata(variable.attrs) for variable in variables]
    if len(set(gaps)) > 1:  # no one number means no data: mark it as NaN
        variables = [_with_nan(v, gap) for v, gap in zip(variables, gaps, strict=True)]
        gaps = [()]
    out = xr.concat(
        [variable.drop_attrs(deep=False) for variable in variables],
        dim="band", coords="minimal", compat="override", join="exact",
    )  # fmt: skip
    out = out.assign_coords({"band": [_label(name, ds[name]) for name in names], **described})
    attrs = {**ds.attrs, **dict(zip(NODATA_ATTRS, gaps[0], strict=False))}
    out = out.transpose(*(dim for dim in out.dims if dim not in ("band", y, x)), "band", y, x)
    return out.assign_attrs(attrs).rename(None)


def band_names(ds: xr.Dataset) -> list[Hashable]:
    """Return which variables are bands."""
    y, x = spatial_dims(ds)
    names = [name for name, variable in ds.data_vars.items() if {y, x} <= set(variable.dims)]
    if not names:
        there = ", ".join(f"{name} {v.dims}" for name, v in ds.data_vars.items()) or "none"
        raise BandError(f"no variable of the dataset lies over {y} and {x}; its variables: {there}")
    sensor = sensor_of(describe_dataset(ds))
    bands = name_bands([_label(name, ds[name]) for name in names], sensor)
    known = [
        name
        for name, band in zip(names, bands, strict=True)
        if band.common_name or band.center_nm or any(ds[name].attrs.get(column) for column in COLUMNS)
    ]
    return known or names


def as_variables(da: xr.DataArray, ds: xr.Dataset) -> xr.Dataset:
    """Return what was made of `stack(ds)` as variables again, with the names and attributes of those of `ds`.

    Examples
    --------
    >>> ds = xr.Dataset({"red": (("y", "x"), [[1.0]]), "nir": (("y", "x"), [[2.0]])}, attrs={"level": "boa"})
    >>> as_variables(stack(ds) * 2, ds).nir.item()
    4.0
    """
    names = band_names(ds)
    if len(names) == 1 and set(BAND_DIMS) & set(ds[names[0]].dims):
        return xr.Dataset({names[0]: da}, attrs=ds.attrs)
    dropped = [name for name, coord in da.coords.items() if "band" in coord.dims]
    bands = da.drop_vars(dropped)
    made = {}
    for place, name in enumerate(names):
        attrs = {key: value for key, value in ds[name].attrs.items() if key not in NODATA_ATTRS}
        made[name] = bands.isel(band=place).drop_attrs().assign_attrs(attrs)
    return xr.Dataset(made, attrs=ds.attrs)


def _label(name: Hashable, variable: xr.DataArray) -> str:
    """Return what a variable is called: its description where its name only counts (rioxarray's band_1)."""
    described = variable.attrs.get("long_name")
    return described if isinstance(described, str) and sensors.is_counter(str(name)) else str(name)


def _with_nan(variable: xr.DataArray, gaps: tuple[float, ...]) -> xr.DataArray:
    variable = variable if variable.dtype.kind == "f" else variable.astype(np.float32)
    for gap in gaps:
        variable = variable.where(variable != gap)
    return variable


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
            f"variables {', '.join(silent)} do not tell their scale, the others do:",
            Remedy(
                "describe them with {}, or set their attribute scale_factor",
                Use("ds.cloudmask.describe", scale=[...], offset=[...]),
            ),
        )
    return {
        "scale": ("band", [float(v.attrs["scale_factor"]) for v in variables]),
        "offset": ("band", [float(v.attrs.get("add_offset", 0.0)) for v in variables]),
    }


def mask_of(ds: xr.Dataset) -> xr.DataArray | None:
    """Return the mask in a dataset that was read from a store of one; None if there is not exactly one.

    Examples
    --------
    >>> mask = xr.DataArray([[0]], dims=("y", "x"), attrs={"flag_values": [0], "flag_meanings": "clear"})
    >>> mask_of(mask.to_dataset(name="cloud_mask")).name
    'cloud_mask'
    """
    masks = [as_mask(variable) for variable in ds.data_vars.values() if is_mask(variable)]
    if not masks and is_mask(ds):  # a GeoTIFF, its bands as variables
        masks = [variable.assign_attrs({**variable.attrs, **ds.attrs}) for variable in ds.data_vars.values()]
    return masks[0] if len(masks) == 1 else None
