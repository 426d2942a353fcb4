"""What other dates say of a mask: cloud that one date missed, bright ground that is always called cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import CLEAR, CLOUDY, SURER
from xcloudmask.errors import BandError, CloudMaskError, OptionError, check_number
from xcloudmask.masks.apply import holds_class, one_of
from xcloudmask.masks.series import dated, nan_median, whole_series
from xcloudmask.scene.bands import find_band
from xcloudmask.scene.mask_classes import codes_of
from xcloudmask.scene.reflectance import reflectance_of
from xcloudmask.scene.scene import read_scene

RULES = ("persistent", "missed")
#: Of a normal distribution, the standard deviation over the median deviation.
SIGMA = 1.4826
#: How much of its usual reflectance bright ground may vary by, beside `spread`.
RELATIVE = 0.1
#: Soil that dries or is ploughed brightens more in red than in blue, by at least this factor (Hagolle, 2010).
SOIL = 1.5

Pixels = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


def time_rules(
    da: xr.DataArray, mask: xr.DataArray, rules: Sequence[str], least: int, rise: float, spread: float
) -> xr.Dataset:
    """Do what `xcloudmask.accessor.CloudMask.time_rules` documents."""
    rules = (rules,) if isinstance(rules, str) else tuple(rules)
    for rule in rules:
        if rule not in RULES:
            raise OptionError("rule", rule, allowed=RULES)
    for name, value in (("least", least), ("rise", rise), ("spread", spread)):
        check_number(name, value, above=0)
    if least < 3 or not 0 < rise < 1 or not 0 < spread < 1:
        raise CloudMaskError(
            f"least={least} must be 3 dates or more, rise={rise} and spread={spread} reflectances"
        )
    dims = mask.dims
    mask, da, dim, order = dated(mask, da)
    codes = codes_of(mask)
    cloud = next((codes[name] for name in SURER if name in codes), None)
    clear = next((codes[name] for name in CLEAR if name in codes), None)
    if cloud is None or clear is None:
        raise CloudMaskError(f"the mask's classes are {', '.join(codes)}: it needs a cloud and a clear class")
    scene = read_scene(da, measured=False)
    places = {name: find_band(scene.bands, name) for name in ("blue", "red")}
    if "missed" in rules and None in places.values():
        have = ", ".join(band.common_name or band.name for band in scene.bands)
        raise BandError(f"the rule 'missed' compares blue and red, and the scene has {have}; leave it out")
    pixels = whole_series(reflectance_of(scene), dim, scene.band)
    kinds = [one_of(mask, sorted(CLOUDY & set(codes))), one_of(mask, CLEAR), holds_class(mask)]
    change, bright = xr.apply_ufunc(
        _judge, pixels, *(whole_series(kind, dim) for kind in kinds),
        kwargs={"rules": rules, "least": least, "rise": rise, "spread": spread, **places},
        dask="parallelized",
        input_core_dims=[[dim, scene.band], *[[dim]] * 3], output_core_dims=[[dim], []],
        output_dtypes=[np.int8, bool],
    )  # fmt: skip
    change = change.assign_coords({dim: mask[dim]})
    revised = mask.where(change <= 0, cloud).where(change >= 0, clear).astype(mask.dtype)
    back = {dim: np.argsort(order)}
    revised = revised.isel(back).transpose(*(d for d in dims if d in revised.dims))
    revised.attrs = {**mask.attrs, "time_rules": ", ".join(rules)}
    changed = xr.concat([(change == -1).sum(mask.dims[1:]), (change == 1).sum(mask.dims[1:])], "rule")
    return xr.Dataset(
        {
            "cloud_mask": revised,
            "persistent_bright": bright.assign_attrs(long_name="ground that is called cloud on most dates"),
            "changed": changed.isel(back)
            .assign_coords(rule=list(RULES))
            .assign_attrs(long_name="pixels that changed"),
        }
    )


def _judge(
    pixels: Pixels, cloud: Bools, clear: Bools, valid: Bools, *, blue: Any, red: Any, rules: Sequence[str],
    least: int, rise: float, spread: float,
) -> tuple[npt.NDArray[np.int8], Bools]:  # fmt: skip
    """Return what becomes cloud (1) and clear (-1), and where ground is bright, of (..., date, band)."""
    cube = np.ascontiguousarray(np.moveaxis(pixels, (-2, -1), (0, 1)))
    cloud, clear, valid = (np.moveaxis(kind, -1, 0) for kind in (cloud, clear, valid))
    valid = valid & np.isfinite(cube).all(axis=1)
    change = np.zeros(valid.shape, np.int8)
    bright = np.zeros(valid.shape[1:], bool)
    if "persistent" in rules:
        middle, _ = _spread(cube, valid[:, None])
        usual = valid & (np.abs(cube - middle) <= 2 * np.maximum(spread, RELATIVE * middle)).all(axis=1)
        times, called = usual.sum(axis=0), (usual & cloud).sum(axis=0)
        bright = (times >= least) & (2 * times > valid.sum(axis=0)) & (2 * called >= times)
        change[cloud & usual & bright] = -1
    if "missed" in rules:
        seen = valid & (clear | (change == -1))
        change[_spikes(cube[:, blue], cube[:, red], seen, least, rise) & clear] = 1
    return np.moveaxis(change, 0, -1), bright


def _spikes(blue: Pixels, red: Pixels, seen: Bools, least: int, rise: float) -> Bools:
    """Return which clear views are brighter in blue than the others, and than those before and after."""
    (blue_usual, deviation), (red_usual, _) = (_spread(band, seen) for band in (blue, red))
    excess = blue - blue_usual
    high: Bools = seen & (excess > np.maximum(rise, 3 * deviation)) & (seen.sum(axis=0) >= least)
    high &= red - red_usual < SOIL * excess
    for order in (slice(None), slice(None, None, -1)):  # a change that stays is of the ground
        before = np.full(blue.shape[1:], np.nan, blue.dtype)
        for at in range(len(blue))[order]:
            high[at] &= ~(blue[at] - before < excess[at] / 2)
            before = np.where(seen[at], blue[at], before)
    return high


def _spread(values: Pixels, seen: Bools) -> tuple[Pixels, Pixels]:
    """Return median and robust standard deviation over dates of what is seen; NaN where nothing is."""
    known = np.where(seen, values, np.float32(np.nan))
    middle = nan_median(known)
    return middle, np.float32(SIGMA) * nan_median(np.abs(known - middle))
