"""A scene as reflectance, for rules that compare numbers; predict does this window by window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.engine.input_checks import FEW, STEP, check_units
from xcloudmask.engine.pixels import calibrate
from xcloudmask.scene.scene import Scene
from xcloudmask.scene.units import calibration_of
from xcloudmask.types import Calibration


def reflectance_of(scene: Scene) -> xr.DataArray:
    """Return a scene as float32 reflectance, (..., band, y, x), NaN where a band has no data; lazy as it is.

    Examples
    --------
    >>> import xcloudmask
    >>> from xcloudmask.scene.scene import read_scene
    >>> da = xr.DataArray(np.full((1, 1, 1), 2500, "u2"), dims=("band", "y", "x"))
    >>> da = da.cloudmask.describe(bands=["red"], level="L2A", scale=1e-4)
    >>> reflectance_of(read_scene(da)).item()
    0.25
    """
    calibration = calibration_of(scene, tuple(range(len(scene.bands))))
    dims = [scene.band, scene.y, scene.x]
    da = scene.da if scene.da.chunks is None else scene.da.chunk({scene.band: -1})
    pixels = da.transpose(..., *dims).drop_attrs()
    out: xr.DataArray = pixels.copy(
        data=xr.apply_ufunc(
            _calibrated, pixels.variable, kwargs={"calibration": calibration}, dask="parallelized",
            output_dtypes=[np.float32],
        ).data
    )  # fmt: skip
    return out


def _calibrated(raw: npt.NDArray[np.generic], calibration: Calibration) -> npt.NDArray[np.float32]:
    for image in raw.reshape(-1, *raw.shape[-3:]):
        sample = image[:, ::STEP, ::STEP]
        if sample[0].size >= FEW:  # as predict asks it of a window
            check_units(sample, calibration)
    values, valid = calibrate(raw, calibration)
    return np.where(np.expand_dims(valid, -3), values, np.float32(np.nan))
