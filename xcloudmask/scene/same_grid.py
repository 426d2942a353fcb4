"""Whether two arrays lie on the same grid."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from xcloudmask.errors import CloudMaskError

#: What fills the gaps of things that are brought to another grid.
_EMPTY = {"mask": 255, "valid": False}


def check_same_grid(other: xr.DataArray, da: xr.DataArray, what: str) -> None:
    """Refuse `other` where it does not lie on `da`: xarray would keep only what the two share."""
    if not isinstance(other, xr.DataArray):
        raise CloudMaskError(
            f"{what} must be a DataArray on the grid of the data, got {type(other).__name__}"
        )
    if not set(other.dims) <= set(da.dims) or any(other.sizes[d] != da.sizes[d] for d in other.dims):
        raise CloudMaskError(
            f"{what} has sizes {dict(other.sizes)}, which do not fit {dict(da.sizes)}; "
            f"bring it to the same grid with {what}.reindex_like(da, fill_value={_EMPTY[what]})"
        )
    for dim in other.dims:
        if differ_along(other, da, dim):
            raise CloudMaskError(
                f"{what} and the array have other coordinates along {dim!r}; bring it to the same grid with "
                f"{what}.reindex_like(da, method='nearest', tolerance=..., fill_value={_EMPTY[what]})"
            )


def labels_along(da: xr.DataArray, dim: Any) -> pd.Index[Any] | None:
    """Return the coordinate of a dimension, whatever its index (not all can be pandas'); None without one."""
    return pd.Index(da[dim].values) if dim in da.coords else None


def differ_along(one: xr.DataArray, other: xr.DataArray, dim: Any) -> bool:
    """Tell if both have coordinates along a dimension, and these differ."""
    ours, theirs = labels_along(one, dim), labels_along(other, dim)
    return ours is not None and theirs is not None and not ours.equals(theirs)
