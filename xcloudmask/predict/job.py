"""A prediction made definite for one array, and how its output is wrapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from xcloudmask._version import __version__
from xcloudmask.classes import EMPTY, NO_DATA, SHADOW
from xcloudmask.engine.plan import Plan
from xcloudmask.predict.options import PredictOptions
from xcloudmask.scene.dims import crs_of
from xcloudmask.types import Options


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Options made definite for one array; no pixel has been read yet."""

    source: xr.DataArray
    asked: PredictOptions
    pixels: xr.DataArray  # (..., band, y, x): the bands of the model, in its order
    plan: Plan
    pixel: tuple[float, float] | None  # metres, rows and columns

    @property
    def options(self) -> Options:
        """Every choice of the call."""
        return self.plan.options

    def wrap(self, data: Any) -> xr.DataArray:
        """Return the output (..., y, x) or (..., class, y, x) as the source's kind of array."""
        return _wrap(self, data)


def _wrap(job: Job, data: Any) -> xr.DataArray:
    da, options = job.source, job.options
    band, y, x = (str(dim) for dim in job.pixels.dims[-3:])
    probabilities = options.output == "probabilities"
    # with their indexes: those of rasterix and xproj are no pandas', and would be lost
    coords = da.coords.to_dataset().drop_vars([n for n, c in da.coords.items() if band in c.dims]).coords
    lead = job.pixels.dims[:-3]
    dims = [*lead, *(["class"] if probabilities else []), y, x]
    out = xr.DataArray(data, dims=dims, coords=coords, attrs=_attrs(job))
    if job.pixel is not None and out.rio.crs is None and (crs := crs_of(out)) is not None:
        out = out.rio.write_crs(crs)  # an index alone is not written to a store
    if not probabilities:
        out.name = "cloud_mask"
        out.encoding["fill_value"] = NO_DATA  # a Zarr chunk that was never written must not read as clear
        return out.transpose(*(dim for dim in da.dims if dim != band))
    out.name = "cloud_probability"
    names = [*options.scheme.names, *(["uncertainty"] if options.uncertainty else [])]
    out = out.assign_coords({"class": names})
    return out.transpose(*("class" if dim == band else dim for dim in da.dims))


def _attrs(job: Job) -> dict[str, Any]:
    """Return what made the mask, in forms that netCDF and Zarr can hold."""
    options = job.options
    spec, answer = options.spec, options.scheme
    attrs: dict[str, Any] = {"long_name": "cloud mask", **job.asked.without_defaults(options.record)}
    attrs["xcloudmask_version"] = __version__
    if job.pixel is not None:
        attrs["working_resolution_m"] = [
            round(size * factor, 3) for size, factor in zip(job.pixel, options.factors, strict=True)
        ]
    if options.input_band_names and spec.fills:
        given = options.input_band_names.split()
        attrs["bands_estimated"] = " ".join(name for name in spec.bands if name not in given)
    if options.output == "probabilities":
        attrs["long_name"] = "class probability"
        if SHADOW in answer.names and spec.shadow_threshold is not None:  # for who decides classes later
            attrs["shadow_threshold"] = spec.shadow_threshold
        if options.uncertainty:
            between = "members of the model" if spec.uncertainty else "turns and mirrors of a window"
            attrs["uncertainty"] = f"standard deviation of the probability of cloud between {between}"
    else:
        codes = {**dict(zip(answer.names, answer.codes, strict=True)), EMPTY: NO_DATA}
        attrs["flag_values"] = [*codes.values()]
        attrs["flag_meanings"] = " ".join(codes)
        attrs["nodata"] = NO_DATA  # what rioxarray looks for when it writes a GeoTIFF
    return attrs
