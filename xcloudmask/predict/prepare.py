"""The public call: read the scene, choose the model, settle the options, plan, run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.engine.kernel import reflectance
from xcloudmask.engine.plan import Plan
from xcloudmask.engine.progress import Progress, progress_bar
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.own.modules import send_registered
from xcloudmask.predict.choose_model import choose_model, saturation_for
from xcloudmask.predict.job import Job
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.settle import settle
from xcloudmask.scene.aux_inputs import add_planes, take_aux
from xcloudmask.scene.bands import choose_bands
from xcloudmask.scene.same_grid import check_same_grid
from xcloudmask.scene.scene import Scene, read_scene
from xcloudmask.scene.units import calibration_of, check_numbers
from xcloudmask.tidy.steps import HYSTERESIS, read_steps


def predict(da: xr.DataArray, asked: PredictOptions, progress: Progress = "auto") -> xr.DataArray:
    """Return classes or probabilities for `da`; lazy if it is."""
    steps = () if asked.post is None else read_steps(asked.post)
    if steps and steps[0].name == HYSTERESIS:  # it decides the classes itself
        asked = replace(asked, output="probabilities", post=None)
    job = prepare(da, asked)
    out = job.wrap(run(job, progress))
    if not steps:
        return out
    from xcloudmask.tidy.clean import clean

    return clean(out, steps, progress)


def prepare(da: xr.DataArray, asked: PredictOptions) -> Job:
    """Check options against an array and settle every choice; each module is asked once."""
    scene = read_scene(da)
    if asked.output == "probabilities" and scene.band != "class" and "class" in da.dims:
        raise CloudMaskError(
            "the array has a dimension 'class', which probabilities need: da.rename({'class': ...})"
        )
    coarsest = None if scene.pixel is None else max(scene.pixel)
    spec = choose_model(asked.model, scene.bands, scene.level, coarsest)
    saturation = saturation_for(spec, asked.saturation)
    places, inputs = choose_bands(scene.bands, spec)
    calibration = calibration_of(scene, places, asked.nodata, saturation)
    pixels = _picked(scene, places)
    if asked.valid is not None:
        pixels = _masked(pixels, asked.valid, scene)
    aux = take_aux(asked.aux, spec)
    if aux:
        pixels = add_planes(pixels, aux, da)
    shape = da.sizes[scene.y], da.sizes[scene.x]
    options = settle(asked, spec, calibration, scene.pixel, shape, inputs, tuple(aux))
    plan = Plan.make(options, shape)
    return Job(da, asked, pixels, plan, scene.pixel)


def run(job: Job, progress: Progress) -> Any:
    """Carry a job out: now on NumPy arrays, as a graph on Dask's."""
    if job.pixels.chunks is None:
        from xcloudmask.engine import run_numpy

        values = job.pixels.values
        check_numbers(reflectance(job.plan, values), job.options.calibration)
        with progress_bar(progress, "cloud mask", "window") as tell:
            return run_numpy.run(job.plan, values, tell)
    if progress not in ("auto", False):
        raise CloudMaskError(
            "progress= shows the work of this call, and a lazy scene is worked on later:",
            "leave it out, and say: with tqdm.dask.TqdmCallback(desc='cloud mask'): mask.compute()",
        )
    from xcloudmask.engine import run_dask

    send_registered(job.options.spec)
    return run_dask.run(job.plan, job.pixels.data)


def _picked(scene: Scene, places: tuple[int, ...]) -> xr.DataArray:
    """Return some of the bands, in this order, as (..., band, y, x)."""
    first, count = places[0], len(places)
    run = places == tuple(range(first, first + count))
    # A slice where they follow each other: a list makes a copy of every chunk.
    picked = scene.da.isel({scene.band: slice(first, first + count) if run else list(places)})
    return picked.transpose(*scene.lead, scene.band, scene.y, scene.x)


def _masked(picked: xr.DataArray, valid: xr.DataArray, scene: Scene) -> xr.DataArray:
    """Return the picked bands with NaN where `valid` is false."""
    if not isinstance(valid, xr.DataArray) or valid.dtype != bool:
        kind = f"{valid.dtype}" if isinstance(valid, xr.DataArray) else type(valid).__name__
        raise CloudMaskError(
            f"valid must be a DataArray of booleans, True where pixels are to be used, got {kind}; say, for "
            "example, valid=(quality == 0)"
        )
    check_same_grid(valid, scene.da, "valid")
    if scene.band in valid.dims:
        valid = valid.all(scene.band)
    if picked.chunks is not None:  # chunks of the data stay as they are
        valid = valid.chunk({dim: scene.da.chunksizes[dim] for dim in valid.dims})
    if picked.dtype.kind != "f":  # so that there is a NaN to mark the masked pixels with
        picked = picked.astype(np.float32)
    return picked.where(valid.drop_vars(valid.coords))
