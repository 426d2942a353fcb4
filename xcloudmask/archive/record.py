"""`open_masks`: the record of a store that grows, as one lazy array sorted by time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import names_checked
from xcloudmask.store.record import open_mask
from xcloudmask.store.store import Target, open_existing


@names_checked
def open_masks(
    store: Any, group: str | None = None, *, storage_options: dict[str, Any] | None = None
) -> xr.DataArray:
    """Open the masks of a store that `stream` or `sync` wrote: one lazy array, sorted by time.

    A store holds its steps in the order in which they came, and scenes may come late.
    ``xr.open_zarr(store).sortby("time")`` gives the same, and beside it the attributes of GeoZarr, which
    netCDF cannot hold: what this returns goes to netCDF as it stands.

    Parameters
    ----------
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        As of `stream`.
    group : str, optional
        Group within the store.
    storage_options : dict, optional
        As of `stream`.

    Returns
    -------
    DataArray
        Classes or probabilities, chunked as they are stored, with the source of each step (``item_id``) and
        the attributes that tell what made them. Regions that are not done read as no data.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xcloudmask
    >>> times = np.array(["2026-05-11", "2026-05-01"], "M8[ns]")
    >>> mask = xr.DataArray(np.array([[[0]], [[1]]], "u1"), dims=("time", "y", "x"), name="cloud_mask",
    ...                     coords={"time": times})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = mask.cloudmask.to_zarr(folder, progress=False)
    ...     xcloudmask.open_masks(folder).values.ravel().tolist()
    [1, 0]
    """
    mask, _ = open_mask(Target(open_existing(store, storage_options), group or ""))
    times = mask.time.values if "time" in mask.dims and "time" in mask.coords else np.zeros(0)
    if times.dtype.kind == "M" and (np.diff(times) < np.timedelta64(0)).any():
        return mask.sortby("time")
    return mask
