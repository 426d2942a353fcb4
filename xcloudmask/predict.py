"""From an array and a call's arguments to a mask: normalise, plan, build, wrap."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import xarray as xr

import xcloudmask
from xcloudmask import models
from xcloudmask.bands import match_bands, read_bands
from xcloudmask.classes import NO_DATA, scheme
from xcloudmask.engine import check_device, check_dtype
from xcloudmask.errors import BandError, CloudMaskError, OptionError, UnitError, UnitWarning
from xcloudmask.tasks import Plan
from xcloudmask.tiling import MIN_PATCH
from xcloudmask.types import Calibration, ModelSpec, Options, parse_level

SPATIAL = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("Y", "X"), ("northing", "easting"))
BAND_DIMS = ("band", "bands", "wavelength", "channel")


def spatial_dims(da: xr.DataArray) -> tuple[str, str]:
    """Return the names of the row and the column dimension."""
    for y, x in SPATIAL:
        if y in da.dims and x in da.dims:
            return y, x
    raise OptionError(
        "spatial dimensions",
        da.dims,
        allowed=[f"{y}/{x}" for y, x in SPATIAL],
        hint="Rename them with da.rename.",
    )


def band_dim(da: xr.DataArray) -> str:
    """Return the name of the band dimension."""
    for name in BAND_DIMS:
        if name in da.dims:
            return name
    raise BandError(
        f"the array's dimensions are {da.dims}: none of them is a band dimension ({', '.join(BAND_DIMS)}). "
        "Rename it: da.rename(NAME='band')"
    )


def choose_model(model: str | ModelSpec, bands: Any, level: str | None) -> ModelSpec:
    """Return the model that was named or, for ``auto``, the richest that bands and level allow."""
    if isinstance(model, ModelSpec):
        return model
    if model != "auto":
        return models.get(model)
    if level is None:
        warnings.warn(
            "the processing level is not told: taking the values as top-of-atmosphere (L1C). "
            "Say describe(level='L1C') or describe(level='L2A')",
            UnitWarning,
            stacklevel=5,
        )
    wanted = parse_level(level) if level is not None else "toa"
    needs = []
    for spec in models.ukis.SPECS:
        if spec.level != wanted:
            continue
        try:
            match_bands(bands, spec)
        except BandError as error:
            needs.append(str(error))
            continue
        return spec
    raise BandError("no model fits the bands of this array. " + " | ".join(needs))


def pixel_size(da: xr.DataArray, y: str, x: str) -> tuple[float, float] | None:
    """Return the pixel size in metres along rows and columns, or None where nothing tells it."""
    out: list[float] = []
    for dim in (y, x):
        if dim not in da.coords:
            return None
        values = da[dim].values
        if len(values) > 1:
            out.append(abs(float(values[-1]) - float(values[0])) / (len(values) - 1))
    if not out:
        return None
    out = [out[0], out[-1]]  # an axis of one pixel takes the other's spacing
    crs = da.rio.crs
    if (crs is not None and crs.is_geographic) or (crs is None and y in ("lat", "latitude")):
        middle = math.radians(float(np.mean(da[y].values[[0, -1]])))
        return out[0] * 111_320, out[1] * 111_320 * max(math.cos(middle), 0.01)
    if crs is None and min(out) <= 1:  # a plain index
        return None
    return out[0], out[1]


def working_factors(
    size: tuple[float, float] | None, spec: ModelSpec, resolution: str | float
) -> tuple[int, int]:
    """How many pixels a working cell has along rows and columns."""
    if resolution == "native":
        return 1, 1
    if resolution != "auto" and (
        isinstance(resolution, str) or not math.isfinite(resolution) or resolution <= 0
    ):
        raise OptionError("resolution", resolution, allowed=("auto", "native", "metres, such as 30"))
    if resolution == "auto" and spec.gsd is None:
        return 1, 1
    if size is None:
        warnings.warn(
            f"the pixel size is not known (no coordinates in metres or degrees): model {spec.name!r} runs on the "
            "pixels as they are. Give the array y and x coordinates, or say resolution='native'",
            UnitWarning,
            stacklevel=5,
        )
        return 1, 1
    if resolution != "auto":
        return max(1, round(float(resolution) / size[0])), max(1, round(float(resolution) / size[1]))
    low, high = spec.gsd or (1.0, 1.0)
    best = math.sqrt(low * high)

    def factor(pixel: float) -> int:
        return 1 if pixel >= low else min(range(1, 200), key=lambda k: abs(math.log(k * pixel / best)))

    return factor(size[0]), factor(size[1])


def calibration_of(da: xr.DataArray, picked: xr.DataArray, nodata: float | None) -> Calibration:
    """Return how the stored numbers become reflectance; an error where nothing tells."""
    kind = da.dtype.kind
    if kind not in "fiu":
        raise UnitError(
            f"reflectance must be real numbers, got dtype {da.dtype}; take the real part, or convert"
        )
    if nodata is None:
        nodata = next((da.attrs[k] for k in ("_FillValue", "nodata", "missing_value") if k in da.attrs), None)
    elif kind in "iu" and not np.iinfo(da.dtype).min <= nodata <= np.iinfo(da.dtype).max:
        raise UnitError(f"nodata={nodata} cannot occur in {da.dtype}; name a value of that type")
    scale = offset = None
    if "scale" in picked.coords:
        scale = tuple(float(v) for v in np.atleast_1d(picked["scale"].values))
        offset = tuple(float(v) for v in np.atleast_1d(picked["offset"].values))
    elif kind in "iu":
        factor = float(da.attrs.get("scale_factor", 1.0))
        if factor == 1.0:
            raise UnitError(
                f"the values are integers ({da.dtype}) and nothing tells their scale. Reflectance must be 0 to 1: "
                "da.cloudmask.describe(scale=0.0001, offset=0.0), with the figures of your product"
            )
        scale, offset = (factor,), (float(da.attrs.get("add_offset", 0.0)),)
    return Calibration(scale, offset, None if nodata is None else float(nodata))


def predict(
    da: xr.DataArray,
    *,
    output: Literal["classes", "probabilities"],
    model: str | ModelSpec = "auto",
    threshold: float | None = None,
    scheme_name: str = "default",
    patch_size: int | None = None,
    overlap: int | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    resolution: str | float = "auto",
    nodata: float | None = None,
    valid: xr.DataArray | None = None,
    tta: bool = False,
) -> xr.DataArray:
    """Do what `accessor.CloudMaskAccessor.predict` documents."""
    y, x = spatial_dims(da)
    band = band_dim(da)
    if da.size == 0:
        raise CloudMaskError(f"the array is empty: its sizes are {dict(da.sizes)}; check the selection")
    bands = read_bands(da, band)
    spec = choose_model(model, bands, da.attrs.get("level"))
    picked = da.isel({band: list(match_bands(bands, spec))})
    check_device(device)
    check_dtype(dtype, spec)
    if threshold is not None and not 0 < threshold < 1:
        raise CloudMaskError(f"threshold={threshold} must lie between 0 and 1")
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise CloudMaskError(f"batch_size={batch_size!r} must be 'auto' or a whole number above 0")
    patch = spec.patch if patch_size is None else patch_size
    if patch < MIN_PATCH or (spec.patch_fixed and patch != spec.patch):
        need = f"exactly {spec.patch}" if spec.patch_fixed else f"at least {MIN_PATCH}"
        raise CloudMaskError(f"patch_size={patch}: model {spec.name!r} takes {need}")
    shared = min(spec.overlap, patch // 2) if overlap is None else overlap
    if not 0 <= shared < patch:
        raise CloudMaskError(f"overlap={shared} must be at least 0 and less than patch_size={patch}")
    options = Options(
        spec, scheme(scheme_name, spec.classes), calibration_of(da, picked, nodata), patch, shared,
        working_factors(pixel_size(da, y, x), spec, resolution), output, threshold,
        None if batch_size == "auto" else int(batch_size), device, dtype, tta,
    )  # fmt: skip
    if valid is not None:
        if not set(valid.dims) <= set(da.dims) or any(valid.sizes[d] != da.sizes[d] for d in valid.dims):
            raise CloudMaskError(f"valid has sizes {dict(valid.sizes)}, which do not fit {dict(da.sizes)}")
        if picked.dtype.kind != "f":  # so that there is a NaN to mark the masked pixels with
            picked = picked.astype(np.float32)
        picked = picked.where(valid.astype(bool).reset_coords(drop=True))
    lead = [str(dim) for dim in da.dims if dim not in (band, y, x)]
    return _wrap(_run(picked.transpose(*lead, band, y, x), options), da, options, lead, (band, y, x))


def _run(picked: xr.DataArray, options: Options) -> Any:
    plan = Plan.make(options, (picked.shape[-2], picked.shape[-1]))
    if picked.chunks is None:
        from xcloudmask import direct

        return direct.run(plan, picked.values)
    from xcloudmask import lazy

    return lazy.run(plan, picked.data)


def _wrap(
    data: Any, da: xr.DataArray, options: Options, lead: list[str], dims: tuple[str, str, str]
) -> xr.DataArray:
    band, y, x = dims
    probabilities = options.output == "probabilities"
    spec, answer = options.spec, options.scheme
    attrs = {
        "model": spec.name, "model_version": spec.version, "model_sha256": spec.sha256,
        "patch_size": options.patch, "overlap": options.overlap, "working_factors": list(options.factors),
        "xcloudmask_version": xcloudmask.__version__,
    }  # fmt: skip
    if not probabilities:
        attrs["flag_values"] = [*answer.codes, NO_DATA]
        attrs["flag_meanings"] = " ".join([*answer.names, "no_data"])
    coords = {name: c for name, c in da.coords.items() if band not in c.dims}
    out_dims = [*lead, *(["class"] if probabilities else []), y, x]
    out = xr.DataArray(data, dims=out_dims, coords=coords, attrs=attrs)
    out.name = "cloud_probability" if probabilities else "cloud_mask"
    if probabilities:
        out = out.assign_coords({"class": list(answer.names)})
    order = ["class" if d == band and probabilities else d for d in da.dims if d != band or probabilities]
    return out.transpose(*order)
