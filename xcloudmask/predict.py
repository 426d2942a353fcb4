"""From an array and a call's arguments to a mask: normalise, plan, run, wrap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from xcloudmask import models
from xcloudmask._version import __version__
from xcloudmask.aux_inputs import AuxLike, add_planes, take_aux
from xcloudmask.bands import choose_bands, read_bands
from xcloudmask.choose import choose_model, too_coarse
from xcloudmask.classes import CLOUDY, NO_DATA, SHADOW, scheme
from xcloudmask.devices import check_device, check_dtype
from xcloudmask.dims import band_dim, check_same_grid, pixel_size, spatial_dims
from xcloudmask.engine import TURNS
from xcloudmask.errors import CloudMaskError, OptionError, UnitWarning
from xcloudmask.tasks import Plan, reflectance
from xcloudmask.tiling import MIN_PATCH
from xcloudmask.types import ModelLike, ModelSpec, Options, Scheme
from xcloudmask.units import calibration_of, check_numbers
from xcloudmask.warn import warn_user


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request:
    """What the caller asked for, in the caller's words; `xcloudmask.accessor` tells what they mean."""

    output: Literal["classes", "probabilities"] = "classes"
    model: ModelLike = "auto"
    threshold: float | None = None
    scheme: str = "default"
    patch_size: int | None = None
    overlap: int | None = None
    batch_size: int | str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    resolution: str | float = "auto"
    nodata: float | None = None
    valid: xr.DataArray | None = None
    tta: bool | int = False
    aux: AuxLike | None = None
    uncertainty: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A request made definite for one array; no pixel has been read yet."""

    source: xr.DataArray
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
    patch, overlap = _window(request, spec)
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
        threshold=_threshold(request, spec, answer),
        shadow_threshold=_shadow_threshold(request, spec, answer),
        batch_size=_batch_size(request.batch_size),
        device=request.device,
        dtype=request.dtype,
        tta=_views(request.tta),
        aux=tuple(planes),
        uncertainty=_uncertainty(request, spec),
    )
    check_device(request.device, spec)
    check_dtype(request.dtype, spec)
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
        from xcloudmask import direct

        values = job.pixels.values
        check_numbers(reflectance(job.plan, values), job.options.calibration)
        return direct.run(job.plan, values)
    from xcloudmask import lazy

    models.ready(job.options.spec)
    return lazy.run(job.plan, job.pixels.data)


def _as_slice(places: tuple[int, ...]) -> slice | list[int]:
    """Return positions as a slice where they follow each other: a list makes a copy of every chunk."""
    if places == tuple(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return list(places)


def _window(request: Request, spec: ModelSpec) -> tuple[int, int]:
    patch = spec.patch if request.patch_size is None else request.patch_size
    for name, value in (("patch_size", patch), ("overlap", request.overlap)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
            raise CloudMaskError(f"{name}={value!r} must be a whole number of pixels")
    if patch < MIN_PATCH or (spec.patch_fixed and patch != spec.patch):
        need = f"exactly {spec.patch}" if spec.patch_fixed else f"at least {MIN_PATCH}"
        raise CloudMaskError(
            f"patch_size={patch}: model {spec.name!r} takes {need}; leave it out for the default"
        )
    overlap = min(spec.overlap, patch // 2) if request.overlap is None else request.overlap
    if not 0 <= overlap < patch:
        raise CloudMaskError(f"overlap={overlap} must be at least 0 and less than patch_size={patch}")
    return int(patch), int(overlap)


def _threshold(request: Request, spec: ModelSpec, answer: Scheme) -> float | None:
    value: Any = request.threshold
    if value is None and request.output == "classes" and any(answer.cloudy) and not all(answer.cloudy):
        value = spec.threshold  # what the model's author says suffices
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < 1:
        raise CloudMaskError(
            f"threshold={value!r} must lie between 0 and 1: the probability of cloud that suffices"
        )
    if not any(answer.cloudy) or all(answer.cloudy):
        raise CloudMaskError(
            f"threshold={value!r} decides between cloud and the rest, and the scheme {answer.name!r} of "
            f"model {spec.name!r} has only {', '.join(answer.names)}; leave threshold out"
        )
    return float(value)


def _shadow_threshold(request: Request, spec: ModelSpec, answer: Scheme) -> float | None:
    """Return the model's, if shadow is a class of the answer and there is another that is no cloud."""
    rest = [name for name, cloudy in zip(answer.names, answer.cloudy, strict=True) if not cloudy]
    if request.output != "classes" or SHADOW not in rest or len(rest) < 2:
        return None
    return spec.shadow_threshold


def _views(tta: bool | int) -> int:
    """How many turns and mirrors of a window to average; 0 for the window alone."""
    if isinstance(tta, (bool, np.bool_)):
        return len(TURNS) if tta else 0
    if not isinstance(tta, (int, np.integer)) or not 1 <= tta <= len(TURNS):
        raise OptionError(
            "tta", tta, allowed=("False", "True", f"or a number of views from 1 to {len(TURNS)}")
        )
    return 0 if tta == 1 else int(tta)


def _uncertainty(request: Request, spec: ModelSpec) -> bool:
    """Whether the spread is asked for; an error where there is nothing to tell it from."""
    if not isinstance(request.uncertainty, (bool, np.bool_)):
        raise OptionError("uncertainty", request.uncertainty, allowed=(False, True))
    if not request.uncertainty:
        return False
    if request.output != "probabilities":
        raise CloudMaskError(
            "uncertainty=True comes with probabilities: predict_proba(uncertainty=True), or "
            "stream(output='probabilities', uncertainty=True)"
        )
    if spec.uncertainty or (_views(request.tta) and CLOUDY & set(spec.classes)):
        return True
    having = [known.name for known in models.readable() if known.uncertainty]
    raise CloudMaskError(
        f"uncertainty=True: model {spec.name!r} has one member, which cannot disagree with itself. tta=True "
        "tells the spread between turns and mirrors of each window"
        + (f"; models with several members: {', '.join(having)}" if having else "")
    )


def _batch_size(value: int | str) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise CloudMaskError(f"batch_size={value!r} must be 'auto' or a whole number above 0")
    return int(value)


def working_factors(
    size: tuple[float, float] | None, spec: ModelSpec, resolution: str | float
) -> tuple[int, int]:
    """How many pixels a working cell has along rows and columns."""
    if resolution == "native":
        return 1, 1
    if resolution != "auto" and (
        isinstance(resolution, bool)
        or not isinstance(resolution, (int, float, np.number))
        or not 0 < resolution < math.inf
    ):
        raise OptionError("resolution", resolution, allowed=("auto", "native", "metres, such as 30"))
    if resolution == "auto" and spec.gsd is None:
        return 1, 1
    if size is None:
        warn_user(
            f"the pixel size is not known (no coordinates in metres or degrees): model {spec.name!r} runs on "
            "the pixels as they are. Give the array y and x coordinates, or say resolution='native'",
            UnitWarning,
        )
        return 1, 1
    if resolution != "auto":
        wanted = float(resolution)
        if wanted < 0.75 * min(size):
            warn_user(
                f"resolution={resolution} m is finer than the pixels ({min(size):.3g} m): model "
                f"{spec.name!r} runs on the pixels as they are",
                UnitWarning,
            )
        return max(1, round(wanted / size[0])), max(1, round(wanted / size[1]))
    low, high = spec.gsd or size
    if too_coarse(max(size), spec):
        warn_user(
            f"the pixels are {max(size):.4g} m and model {spec.name!r} was trained on {low:g} to {high:g} m: "
            "what it says of them was never tested. xcloudmask.models.list() names others; "
            "resolution='native' runs it without this warning",
            UnitWarning,
        )
    best = math.sqrt(low * high)

    def factor(pixel: float) -> int:
        if pixel >= low:
            return 1
        guess = math.floor(best / pixel)
        return min((max(guess, 1), guess + 1), key=lambda k: abs(math.log(k * pixel / best)))

    return factor(size[0]), factor(size[1])


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


def _wrap(job: Job, data: Any) -> xr.DataArray:
    da, options = job.source, job.options
    band, y, x = (str(dim) for dim in job.pixels.dims[-3:])
    probabilities = options.output == "probabilities"
    coords = {name: coord for name, coord in da.coords.items() if band not in coord.dims}
    lead = job.pixels.dims[:-3]
    dims = [*lead, *(["class"] if probabilities else []), y, x]
    out = xr.DataArray(data, dims=dims, coords=coords, attrs=_attrs(job))
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
    attrs: dict[str, Any] = {
        "long_name": "cloud mask",
        "model": spec.name,
        "model_version": spec.version,
        "model_sha256": spec.sha256,
        "scheme": answer.name,
        "patch_size": options.patch,
        "overlap": options.overlap,
        "working_factors": list(options.factors),
        "xcloudmask_version": __version__,
    }
    if job.pixel is not None:
        attrs["working_resolution_m"] = [
            round(size * factor, 3) for size, factor in zip(job.pixel, options.factors, strict=True)
        ]
    if options.threshold is not None:
        attrs["threshold"] = options.threshold
    if options.shadow_threshold is not None:
        attrs["shadow_threshold"] = options.shadow_threshold
    if options.tta:
        attrs["tta"] = options.tta
    if options.dtype != "auto":
        attrs["dtype"] = options.dtype
    if options.told:
        attrs["bands"] = options.told
        if spec.fills:
            given = options.told.split()
            attrs["bands_estimated"] = " ".join(name for name in spec.bands if name not in given)
    if options.aux:
        attrs["aux"] = " ".join(aux.name for aux in options.aux)
    if options.output == "probabilities":
        attrs["long_name"] = "class probability"
        if options.uncertainty:
            between = "members of the model" if spec.uncertainty else "turns and mirrors of a window"
            attrs["uncertainty"] = f"standard deviation of the probability of cloud between {between}"
    else:
        attrs["flag_values"] = [*answer.codes, NO_DATA]
        attrs["flag_meanings"] = " ".join([*answer.names, "no_data"])
        attrs["nodata"] = NO_DATA  # what rioxarray looks for when it writes a GeoTIFF
    return attrs
