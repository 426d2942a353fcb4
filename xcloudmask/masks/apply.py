"""What is done with a mask: take clouds out of a scene, widen them, count what is clear."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import NO_DATA
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.dims import pixel_size, spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of
from xcloudmask.scene.same_grid import check_same_grid
from xcloudmask.scene.units import NODATA_ATTRS

#: Classes taken out of a scene, and classes that count as clear, unless the caller says otherwise.
DROP = ("cloud", "thick_cloud", "thin_cloud", "cloud_shadow")
CLEAR = ("clear", "not_cloud", "land", "snow", "water")

#: A larger buffer needs its unit: whoever writes 150 means metres.
MOST_PIXELS = 20

Bool = npt.NDArray[np.bool_]


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
    y, x = spatial_dims(taken)
    reach = _reach(taken, buffer, y, x)
    if reach[0] < 1 and reach[1] < 1:
        return taken
    turned = taken.transpose(..., y, x)
    if turned.chunks is None:
        grown: Any = _dilate(turned.values, reach)
    else:
        import dask.array as dask_array

        depth = {  # no deeper than the array, which dask refuses
            turned.ndim - 2 + axis: min(math.floor(reach[axis]), turned.shape[-2 + axis]) for axis in (0, 1)
        }
        grown = dask_array.map_overlap(  # type: ignore[no-untyped-call]
            _dilate,
            turned.data,
            reach=reach,
            depth=depth,
            boundary=False,
            meta=np.empty((0,) * turned.ndim, bool),
        ).rechunk(turned.chunks)  # chunks smaller than the buffer were merged
    return turned.copy(data=grown).transpose(*taken.dims)


def _reach(taken: xr.DataArray, buffer: Any, y: str, x: str) -> tuple[float, float]:
    """Return the buffer in rows and columns."""
    if isinstance(buffer, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(m|km|px)\s*", buffer)
        if not found:
            raise OptionError("buffer", buffer, allowed=("150 m", "0.5 km", "3 px", "a number of pixels"))
        number, unit = float(found[1]), found[2]
        if unit == "px":
            return number, number
        metres = number * (1000 if unit == "km" else 1)
        size = pixel_size(taken, y, x)
        if size is None:
            raise CloudMaskError(
                f"buffer={buffer!r}: the pixel size is not known (no coordinates in metres or degrees); "
                "give a number of pixels"
            )
        return metres / size[0], metres / size[1]
    if (
        isinstance(buffer, bool)
        or not isinstance(buffer, (int, float, np.number))
        or not 0 <= buffer < math.inf
    ):
        raise OptionError("buffer", buffer, allowed=("150 m", "0.5 km", "3 px", "a number of pixels"))
    if buffer > MOST_PIXELS:
        raise CloudMaskError(
            f"buffer={buffer:g} would be pixels, and metres may be meant",
            f"Give its unit: '{buffer:g} m' or '{buffer:g} px'",
        )
    return float(buffer), float(buffer)


def _dilate(taken: Bool, reach: tuple[float, float]) -> Bool:
    """Widen by an ellipse of `reach` rows and columns: for each row offset, a run along the row."""
    rows = min(math.floor(reach[0]), taken.shape[-2])
    out = np.zeros_like(taken)
    runs: dict[int, Bool] = {}
    for dy in range(-rows, rows + 1):
        inside = 1 - (dy / reach[0]) ** 2 if dy else 1.0
        width = math.floor(reach[1] * math.sqrt(max(inside, 0.0)) + 1e-9)
        if width not in runs:
            runs[width] = _run(taken, width)
        target = slice(max(dy, 0), taken.shape[-2] + min(dy, 0))
        origin = slice(max(-dy, 0), taken.shape[-2] + min(-dy, 0))
        out[..., target, :] |= runs[width][..., origin, :]
    return out


def _run(taken: Bool, width: int) -> Bool:
    """Whether any pixel within `width` columns is true, by the difference of running sums."""
    if width == 0:
        return taken
    count = np.cumsum(taken, axis=-1, dtype=np.int32)
    count = np.concatenate([np.zeros_like(count[..., :1]), count], axis=-1)
    columns = np.arange(taken.shape[-1])
    last = np.minimum(columns + width + 1, taken.shape[-1])
    first = np.maximum(columns - width, 0)
    found: Bool = count[..., last] > count[..., first]
    return found
