"""The options of a prediction, as the caller gives them, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from xcloudmask.classes import CLOUDY, SHADOW
from xcloudmask.engine.predictor import TURNS
from xcloudmask.engine.tiling import MIN_PATCH
from xcloudmask.errors import CloudMaskError, OptionError, UnitWarning, warn_user
from xcloudmask.models.lookup import readable
from xcloudmask.predict.choose_model import too_coarse
from xcloudmask.scene.aux_inputs import AuxLike
from xcloudmask.types import ModelLike, ModelSpec, Scheme


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


def window_of(request: Request, spec: ModelSpec) -> tuple[int, int]:
    """Side of a window, and what it shares with the next."""
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


def threshold_of(request: Request, spec: ModelSpec, answer: Scheme) -> float | None:
    """Return the probability of cloud that suffices; None where the likeliest class decides."""
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


def shadow_threshold_of(request: Request, spec: ModelSpec, answer: Scheme) -> float | None:
    """Return the model's, if shadow is a class of the answer and there is another that is no cloud."""
    rest = [name for name, cloudy in zip(answer.names, answer.cloudy, strict=True) if not cloudy]
    if request.output != "classes" or SHADOW not in rest or len(rest) < 2:
        return None
    return spec.shadow_threshold


def views_of(tta: bool | int) -> int:
    """How many turns and mirrors of a window to average; 0 for the window alone."""
    if isinstance(tta, (bool, np.bool_)):
        return len(TURNS) if tta else 0
    if not isinstance(tta, (int, np.integer)) or not 1 <= tta <= len(TURNS):
        raise OptionError(
            "tta", tta, allowed=("False", "True", f"or a number of views from 1 to {len(TURNS)}")
        )
    return 0 if tta == 1 else int(tta)


def uncertainty_of(request: Request, spec: ModelSpec) -> bool:
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
    if spec.uncertainty or (views_of(request.tta) and CLOUDY & set(spec.classes)):
        return True
    having = [known.name for known in readable() if known.uncertainty]
    raise CloudMaskError(
        f"uncertainty=True: model {spec.name!r} has one member, which cannot disagree with itself. tta=True "
        "tells the spread between turns and mirrors of each window"
        + (f"; models with several members: {', '.join(having)}" if having else "")
    )


def batch_size_of(value: int | str) -> int | None:
    """Windows inferred at a time; None where the device decides."""
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
            "what it says of them was never tested. xcloudmask.models.names() names others; "
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
