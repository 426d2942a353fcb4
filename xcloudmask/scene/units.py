"""How stored numbers become reflectance: never guessed silently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.engine.pixels import holds_data
from xcloudmask.errors import CloudMaskError, NoDataWarning, UnitError, UnitWarning, warn_user
from xcloudmask.scene.dims import band_dim, coordinate
from xcloudmask.types import Calibration

NODATA_ATTRS = ("_FillValue", "nodata", "missing_value")
REMEDY = "da.cloudmask.describe(scale=0.0001, offset=0.0), with the figures of your product"
#: Rows of an array in memory that are looked at in one go.
ROWS = 512
#: Where catalogues' item properties end up as coordinates, the baseline of Sentinel-2 is called so.
BASELINE = "s2:processing_baseline"
OFFSET_DONE = "earthsearch:boa_offset_applied"


def calibration_of(picked: xr.DataArray, nodata: float | None) -> Calibration:
    """Return how the numbers of the picked bands become reflectance; an error where nothing tells."""
    kind = picked.dtype.kind
    if kind not in "fiu":
        raise UnitError(
            f"reflectance must be real numbers, got dtype {picked.dtype}: convert with da.astype('float32') "
            "(for complex numbers take da.real)"
        )
    attrs = {str(key): value for key, value in picked.attrs.items()}
    gaps = _gaps(attrs, picked.dtype, nodata)
    if "scale" in picked.coords or "offset" in picked.coords:
        scale, offset = _from_coords(picked)
    else:
        scale, offset = _from_attrs(attrs, picked.dtype)
    check_figures(scale, offset)
    _check_sentinel2_offset(picked, offset)
    if (scale == 1).all() and (offset == 0).all():
        return Calibration(None, None, gaps)
    return Calibration(tuple(scale.tolist()), tuple(offset.tolist()), gaps)


def declared_nodata(attrs: Mapping[Any, Any]) -> tuple[float, ...]:
    """Return every number that the attributes call no data, but NaN, which is that anyway.

    Examples
    --------
    >>> declared_nodata({"_FillValue": 0, "nodata": -9999, "units": "1"})
    (0.0, -9999.0)
    """
    found: dict[float, None] = {}
    for name in NODATA_ATTRS:
        for value in np.atleast_1d(attrs.get(name, [])):
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise UnitError(
                    f"the attribute {name}={attrs[name]!r} is no number: delete it, or say what means no "
                    "data with da.cloudmask.describe(nodata=...)"
                ) from None
            if number == number:
                found[number] = None
    return tuple(found)


def _gaps(attrs: Mapping[str, Any], dtype: Any, nodata: Any) -> tuple[float, ...]:
    """Return the stored numbers that mean no data: those declared, and the one that the caller names."""
    gaps = list(declared_nodata(attrs))
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits is not None:  # others cannot occur
        gaps = [gap for gap in gaps if limits.min <= gap <= limits.max and gap == int(gap)]
    if nodata is not None:
        if isinstance(nodata, bool) or not isinstance(nodata, (int, float, np.number)):
            raise CloudMaskError(f"nodata={nodata!r} must be a number, as it is stored in the array")
        if limits is not None and not (limits.min <= nodata <= limits.max and nodata == int(nodata)):
            raise UnitError(
                f"nodata={nodata} cannot occur in {dtype} ({limits.min} to {limits.max}); name the number "
                "that is stored there"
            )
        gaps += [float(nodata)] if nodata == nodata else []
    with np.errstate(over="ignore"):  # GDAL writes -1.8e308 beside float32
        return tuple(dict.fromkeys(float(dtype.type(gap)) for gap in gaps))


def _from_coords(picked: xr.DataArray) -> tuple[Any, Any]:
    pair, band = [], band_dim(picked)
    for name, none in (("scale", 1.0), ("offset", 0.0)):
        coord = picked.coords.get(name)
        if coord is None:
            pair.append(np.array([none]))
            continue
        if coord.dims not in ((), (band,)) or coord.dtype.kind not in "fiu":
            raise UnitError(
                f"the coordinate {name!r} ({coord.dtype} along {coord.dims}) would scale the pixels and must "
                f"hold one number, or one a band: rename or drop it, da.drop_vars({name!r}), or say "
                f"describe({name}=...)"
            )
        pair.append(np.atleast_1d(coordinate(coord)).astype(float))
    scale, offset = np.broadcast_arrays(*pair)
    return scale, offset


def _from_attrs(attrs: Mapping[str, Any], dtype: Any) -> tuple[Any, Any]:
    try:
        factor, addend = (
            float(np.ravel(none if attrs.get(name) is None else attrs[name])[0])
            for name, none in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
    except (TypeError, ValueError, IndexError):
        raise UnitError(
            f"the attributes scale_factor={attrs.get('scale_factor')!r} and "
            f"add_offset={attrs.get('add_offset')!r} are no numbers: delete them and say "
            "da.cloudmask.describe(scale=..., offset=...)"
        ) from None
    if dtype.kind == "f":
        if factor != 1 or addend != 0:
            warn_user(
                f"the values are {dtype}, the attributes say scale_factor={factor:g}, add_offset={addend:g}"
                ": taking the values as they are. If they still need scaling, say "
                f"da.cloudmask.describe(scale={factor:g}, offset={addend:g}); if not, delete the attributes",
                UnitWarning,
            )
        return np.array([1.0]), np.array([0.0])
    if factor == 1:
        raise UnitError(
            f"the values are integers ({dtype}) and nothing tells their scale. Reflectance "
            f"must be 0 to 1: {REMEDY}"
        )
    return np.array([factor]), np.array([addend])


def _check_sentinel2_offset(picked: xr.DataArray, offset: Any) -> None:
    """Warn where the array says baseline 04.00 or later and no offset is declared for its integers."""
    if picked.dtype.kind not in "iu" or BASELINE not in picked.coords or (offset != 0).any():
        return
    done = picked.coords.get(OFFSET_DONE)
    if done is not None and all(bool(value) for value in coordinate(done).reshape(-1)):
        return
    baselines = {str(value) for value in coordinate(picked[BASELINE]).reshape(-1)}
    late = sorted(value for value in baselines if _is_late(value))
    if late:
        warn_user(
            f"Sentinel-2 processing baseline {', '.join(late)} stores reflectance with an offset of -1000, "
            "and none is declared here: say da.cloudmask.describe(scale=0.0001, offset=-0.1), or 0.0 after "
            "checking that the catalogue took it away; xcloudmask.load_stac decides it from the items",
            UnitWarning,
        )


def _is_late(baseline: str) -> bool:
    """Whether a baseline, written 05.10, 5.1 or N0510, is 04.00 or later."""
    digits = re.fullmatch(r"N?(\d{1,2})\.?(\d{0,2})", baseline.strip())
    return digits is not None and int(digits[1]) >= 4


def check_figures(scale: Any, offset: Any) -> None:
    """Refuse figures that cannot make reflectance of anything."""
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (scale > 0).all()):
        raise UnitError(f"scale {scale.tolist()} must be above 0, and offset {offset.tolist()} finite")
    if (np.abs(offset) > 5).any():
        raise UnitError(
            f"offset {offset.tolist()} is added after scaling, in reflectance: for Sentinel-2's -1000 that "
            "is -0.1 (reflectance = stored * 0.0001 - 0.1)"
        )


def check_numbers(values: Any, calibration: Calibration) -> None:
    """Warn of an array in memory (..., band, y, x) that holds infinities, or no usable pixel at all."""
    # In bands of rows: a scene in memory may leave little room beside it.
    blocks = [values[..., first : first + ROWS, :] for first in range(0, values.shape[-2], ROWS)]
    infinite = sum(int(np.isinf(block).sum()) for block in blocks) if values.dtype.kind == "f" else 0
    if infinite:
        warn_user(
            f"{infinite} values are infinite: they are taken as no data (255). Look for a division by "
            "zero, or replace them with NaN: da.where(np.isfinite(da))",
            NoDataWarning,
        )
    if not any(holds_data(block, calibration).any() for block in blocks):
        warn_user(
            "no pixel holds data in every band (the others are NaN, infinite or a nodata value), so the mask "
            "is 255 everywhere: check the area, the date and nodata=",
            NoDataWarning,
        )
