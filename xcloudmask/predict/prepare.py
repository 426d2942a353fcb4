"""From an array and a call's arguments to a mask: normalise, plan, run, wrap."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import scheme
from xcloudmask.engine.devices import check_device, check_dtype
from xcloudmask.engine.kernel import reflectance
from xcloudmask.engine.plan import Plan
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.own.modules import send_registered
from xcloudmask.predict.choose_model import choose_model
from xcloudmask.predict.job import Job
from xcloudmask.predict.options import (
    Request,
    batch_size_of,
    shadow_threshold_of,
    threshold_of,
    uncertainty_of,
    views_of,
    window_of,
    working_factors,
)
from xcloudmask.scene.aux_inputs import add_planes, take_aux
from xcloudmask.scene.bands import choose_bands, read_bands
from xcloudmask.scene.dims import band_dim, check_same_grid, pixel_size, spatial_dims
from xcloudmask.scene.units import calibration_of, check_numbers
from xcloudmask.types import Options


def predict(da: xr.DataArray, request: Request) -> xr.DataArray:
    """Return classes or probabilities for `da`; lazy if it is."""
    job = prepare(da, request)
    return job.wrap(run(job))


def prepare(da: xr.DataArray, request: Request) -> Job:
    """Check a request against an array and settle every choice."""
    y, x = spatial_dims(da)
    band = band_dim(da)
    if da.size == 0:
        raise CloudMaskError(f"the array is empty: its sizes are {dict(da.sizes)}; check the selection")
    _check_form(da, band, request.output)
    bands = read_bands(da, band)
    pixel = pixel_size(da, y, x)
    spec = choose_model(request.model, bands, da.attrs.get("level"), None if pixel is None else max(pixel))
    planes = take_aux(request.aux, spec)
    places, inputs = choose_bands(bands, spec)
    if spec.any_bands:
        inputs += tuple(aux.band for aux in planes)
    picked = da.isel({band: _as_slice(places)})
    calibration = calibration_of(picked, request.nodata)
    patch, overlap = window_of(request, spec)
    answer = scheme(request.scheme, spec.classes)
    options = Options(
        spec=spec,
        scheme=answer,
        calibration=calibration,
        patch=patch,
        overlap=overlap,
        factors=working_factors(pixel, spec, request.resolution),
        inputs=inputs,
        output=request.output,
        threshold=threshold_of(request, spec, answer),
        shadow_threshold=shadow_threshold_of(request, spec, answer),
        batch_size=batch_size_of(request.batch_size),
        device=request.device,
        dtype=request.dtype,
        tta=views_of(request.tta),
        aux=tuple(planes),
        uncertainty=uncertainty_of(request, spec),
    )
    check_device(request.device, spec)
    check_dtype(request.dtype, spec, request.device)
    if request.valid is not None:
        picked = _masked(picked, request.valid, da, band)
    lead = [dim for dim in da.dims if dim not in (band, y, x)]
    picked = picked.transpose(*lead, band, y, x)
    plan = Plan.make(options, (da.sizes[y], da.sizes[x]))
    return Job(da, add_planes(picked, planes, da) if planes else picked, plan, pixel)


def _check_form(da: xr.DataArray, band: str, output: str) -> None:
    if any(size != size for sizes in da.chunks or () for size in sizes):
        raise CloudMaskError(
            "the array has chunks of unknown size: call da.data.compute_chunk_sizes(), or give it "
            "coordinates before what made them unknown"
        )
    if output == "probabilities" and band != "class" and "class" in da.dims:
        raise CloudMaskError(
            "the array has a dimension 'class', which probabilities need: da.rename({'class': ...})"
        )


def run(job: Job) -> Any:
    """Carry a job out: now on NumPy arrays, as a graph on Dask's."""
    if job.pixels.chunks is None:
        from xcloudmask.engine import run_numpy

        values = job.pixels.values
        check_numbers(reflectance(job.plan, values), job.options.calibration)
        return run_numpy.run(job.plan, values)
    from xcloudmask.engine import run_dask

    send_registered(job.options.spec)
    return run_dask.run(job.plan, job.pixels.data)


def _as_slice(places: tuple[int, ...]) -> slice | list[int]:
    """Return positions as a slice where they follow each other: a list makes a copy of every chunk."""
    if places == tuple(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return list(places)


def _masked(picked: xr.DataArray, valid: xr.DataArray, da: xr.DataArray, band: str) -> xr.DataArray:
    """Return the picked bands with NaN where `valid` is false."""
    if not isinstance(valid, xr.DataArray) or valid.dtype != bool:
        kind = f"{valid.dtype}" if isinstance(valid, xr.DataArray) else type(valid).__name__
        raise CloudMaskError(
            f"valid must be a DataArray of booleans, True where pixels are to be used, got {kind}; say, for "
            "example, valid=(quality == 0)"
        )
    check_same_grid(valid, da, "valid")
    if band in valid.dims:
        valid = valid.all(band)
    if picked.chunks is not None:  # chunks of the data stay as they are
        valid = valid.chunk({dim: da.chunksizes[dim] for dim in valid.dims})
    if picked.dtype.kind != "f":  # so that there is a NaN to mark the masked pixels with
        picked = picked.astype(np.float32)
    return picked.where(valid.drop_vars(valid.coords))
