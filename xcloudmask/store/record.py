"""The mask of one store as a lazy array, in the order in which it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from xcloudmask.store.header import header_of
from xcloudmask.store.store import Target


def open_mask(target: Target) -> tuple[xr.DataArray, Mapping[str, Any]]:
    """Return the mask of a group, chunked as it is stored, its steps as they came; and the store's header."""
    header = header_of(target)
    contract = header["contract"]
    sizes = contract["shards"] or contract["chunks"]
    mask: xr.DataArray = target.open_dataset()[contract["name"]]
    # not with `mask.chunk`, which makes Dask arrays of the labels, too
    mask = mask.copy(data=mask.variable.chunk(dict(zip(contract["dims"], sizes, strict=True))).data)
    if "time" in mask.dims:  # an append that was stopped may have left arrays longer than what they hold
        mask = mask.isel(time=slice(0, int(header["steps"])))
    return mask, header
