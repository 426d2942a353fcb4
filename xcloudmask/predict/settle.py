"""Every choice of a call made definite, in one frozen `Options`."""

from __future__ import annotations

from dataclasses import replace

from xcloudmask.classes import scheme
from xcloudmask.engine.devices import check_device, check_dtype
from xcloudmask.predict.options import (
    PredictOptions,
    shadow_threshold_of,
    threshold_of,
    uncertainty_of,
    views_of,
    window_of,
    working_factors,
)
from xcloudmask.types import AuxInput, Band, Calibration, ModelSpec, Options


def settle(
    asked: PredictOptions,
    spec: ModelSpec,
    calibration: Calibration,
    pixel: tuple[float, float] | None,
    shape: tuple[int, int],
    inputs: tuple[Band, ...],
    aux: tuple[AuxInput, ...],
) -> Options:
    """Return the options of a call on a model; an error where one of them cannot be.

    Parameters
    ----------
    asked : PredictOptions
        What the caller asked for.
    spec : ModelSpec
        The model that answers.
    calibration : Calibration
        How the stored numbers become reflectance.
    pixel : (float, float) or None
        Size of a pixel in metres.
    shape : (int, int)
        Rows and columns of pixels.
    inputs : tuple of Band
        The bands that the model is given, where its card does not tell.
    aux : tuple of AuxInput
        What it is given beside them.
    """
    factors = working_factors(pixel, spec, asked.working_resolution)
    patch, overlap = window_of(asked, spec, (-(-shape[0] // factors[0]), -(-shape[1] // factors[1])))
    answer = scheme(asked.scheme, spec.classes)
    options = Options(
        spec=spec,
        scheme=answer,
        calibration=calibration,
        patch=patch,
        overlap=overlap,
        factors=factors,
        inputs=inputs + tuple(each.band for each in aux) if spec.any_bands else inputs,
        output=asked.output,
        threshold=threshold_of(asked, spec, answer),
        shadow_threshold=shadow_threshold_of(asked, spec, answer),
        batch_size=None if asked.batch_size == "auto" else int(asked.batch_size),
        device=asked.device,
        dtype=asked.dtype,
        tta=views_of(asked.tta),
        aux=aux,
        uncertainty=uncertainty_of(asked, spec),
    )
    check_device(asked.device, spec)
    check_dtype(asked.dtype, spec, asked.device)
    return replace(options, record=asked.record(options))
