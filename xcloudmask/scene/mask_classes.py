"""The classes that a mask in xarray lists in its attributes ``flag_values`` and ``flag_meanings``."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import CloudMaskError
from xcloudmask.scene.dims import BAND_DIMS


def is_mask(da: xr.DataArray | xr.Dataset) -> bool:
    """Whether the attributes list classes.

    Examples
    --------
    >>> import xarray as xr
    >>> is_mask(xr.DataArray(0, attrs={"flag_values": "0 1", "flag_meanings": "clear cloud"}))
    True
    """
    return {"flag_values", "flag_meanings"} <= set(da.attrs)


def as_mask(da: xr.DataArray) -> xr.DataArray:
    """Return a mask as `predict` made it: a GeoTIFF gives it a band dimension. Others stay as they are.

    Examples
    --------
    >>> import xarray as xr
    >>> mask = xr.DataArray([[[0]]], dims=("band", "y", "x"), coords={"band": [1]})
    >>> as_mask(mask.assign_attrs(flag_values="0", flag_meanings="clear")).dims
    ('y', 'x')
    """
    if not is_mask(da):
        return da
    if da.dtype.kind not in "buif":
        raise CloudMaskError(f"a mask holds numbers, and this one {da.dtype}: mask.astype('uint8')")
    return da.squeeze([dim for dim in BAND_DIMS if da.sizes.get(dim) == 1], drop=True)


def numbers_of(value: Any) -> list[float]:
    """Return numbers of an attribute, which GeoTIFF keeps as text.

    Examples
    --------
    >>> numbers_of("30.0 30.0"), numbers_of([30, 30]), numbers_of(0.4)
    ([30.0, 30.0], [30.0, 30.0], [0.4])
    """
    parts = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else np.ravel(value)
    return [float(part) for part in parts]


def codes_of(mask: xr.DataArray) -> dict[str, int]:
    """Return the codes of a mask's classes by name.

    Examples
    --------
    >>> import xarray as xr
    >>> codes_of(xr.DataArray(0, attrs={"flag_values": [0, 1], "flag_meanings": "clear cloud"}))
    {'clear': 0, 'cloud': 1}
    """
    meanings = mask.attrs.get("flag_meanings")
    values: Any = mask.attrs.get("flag_values")
    try:
        return dict(zip(str(meanings).split(), map(int, numbers_of(values)), strict=True))
    except (TypeError, ValueError):
        raise CloudMaskError(
            f"this is no mask: its attributes are flag_values={values!r} and flag_meanings={meanings!r}. "
            "Make one with scene.cloudmask.predict(), and keep its attributes "
            "(xr.set_options(keep_attrs=True))"
        ) from None
