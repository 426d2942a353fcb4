"""`apply`: take clouds out of a scene, with a buffer around them; and count what is clear."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import CLEAR, DROP, NO_DATA
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of
from xcloudmask.scene.same_grid import check_same_grid
from xcloudmask.scene.units import NODATA_ATTRS


def one_of(mask: xr.DataArray, names: Sequence[str]) -> xr.DataArray:
    """Return where a mask has one of the classes called `names`; those it does not have are passed over."""
    names = (names,) if isinstance(names, str) else names
    codes = codes_of(mask)
    if mask.dtype == bool:
        raise CloudMaskError(
            "a map of booleans is no mask, though it kept a mask's attributes: use da.where(...) with it, or "
            "pass the mask itself"
        )
    known = dict.fromkeys((*codes, *DROP, *CLEAR))
    if not isinstance(names, (list, tuple, set, frozenset)) or not set(names) <= set(known):
        wrong = next((n for n in names if n not in known), names) if hasattr(names, "__iter__") else names
        raise OptionError("class", wrong, allowed=known)
    return mask.isin([code for name, code in codes.items() if name in names])


def holds_class(mask: xr.DataArray) -> xr.DataArray:
    """Return where a mask tells a class: not 255, nor NaN, nor a number that is none of its codes."""
    return mask.isin([code for code in codes_of(mask).values() if code != NO_DATA])


def apply(
    da: xr.DataArray, mask: xr.DataArray, drop: Sequence[str] = DROP, buffer: str | float | None = None
) -> xr.DataArray:
    """Do what `xcloudmask.accessor.DataArrayAccessor.apply` documents."""
    mask = as_mask(mask) if isinstance(mask, xr.DataArray) else mask
    check_same_grid(mask, da, "mask")
    taken = one_of(mask, drop)
    if buffer is not None:
        taken = grow(taken, buffer)
    keep = holds_class(mask) & ~taken
    if da.dtype.kind != "f":
        da = da.astype(np.float32)
    out = da.where(keep.drop_vars(keep.coords))
    out.attrs = {key: value for key, value in da.attrs.items() if key not in NODATA_ATTRS}
    return out


def clear_fraction(
    mask: xr.DataArray, clear: Sequence[str] = CLEAR, dim: Hashable | Sequence[Hashable] | None = None
) -> xr.DataArray:
    """Do what `xcloudmask.accessor.DataArrayAccessor.clear_fraction` documents."""
    mask = as_mask(mask)
    over: Any = spatial_dims(mask) if dim is None else dim
    valid = holds_class(mask).sum(over)
    share = one_of(mask, clear).sum(over) / valid.where(valid > 0)
    share.attrs = {"long_name": "clear share of the pixels that hold data", "units": "1"}
    return share.rename("clear_fraction")


def grow(taken: xr.DataArray, buffer: str | float) -> xr.DataArray:
    """Widen where a boolean map is true by a distance, in metres (``"150 m"``) or pixels.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> spot = xr.DataArray(np.eye(1, 5, 2, dtype=bool), dims=("y", "x"))
    >>> grow(spot, 1).values[0]
    array([False,  True,  True,  True, False])
    """
    from xcloudmask.tidy.halo import as_blocks, like, with_halo
    from xcloudmask.tidy.lengths import PixelSize, Size, warn_of_nothing
    from xcloudmask.tidy.morphology import Disc, dilate

    size, grid = Size.length("buffer", buffer), PixelSize.of(taken)
    disc = Disc(*size.disc("buffer", grid))
    warn_of_nothing(f"buffer={str(size)!r}", disc.rows, disc.columns)
    turned = taken.transpose(..., *spatial_dims(taken))
    grown = with_halo(
        as_blocks(turned.data), partial(dilate, disc=disc), disc.depth(grid.scale), grid.scale, False
    )
    return turned.copy(data=like(grown, turned)).transpose(*taken.dims)
