"""From stored numbers to reflectance: what is data, what is a gap, and how coarse cells are made."""

from __future__ import annotations

import math

import numpy as np

from xcloudmask.engine.arrays import Array, Bool, Float
from xcloudmask.errors import NoDataWarning, UnitError, warn_user
from xcloudmask.types import Calibration

#: What no reflectance is, nor counts that were not scaled, of which `check_units` tells: a fill value that
#: nobody declared. It is no data; a network's answer would be spoilt all around it.
LOWEST, HIGHEST = -0.5, 65_535.0


APPLIED_TWICE = (
    "the scale or the offset is wrong, or was applied already. Say how the numbers are stored with "
    "da.cloudmask.describe(scale=..., offset=...), scale=1, offset=0 if they are reflectance"
)


def calibrate(raw: Array, calibration: Calibration) -> tuple[Float, Bool]:
    """Turn stored numbers (..., band, y, x) into reflectance and the pixels where every band has one."""
    with np.errstate(over="ignore"):  # what is beyond float32 is no data, see LOWEST
        values: Float = raw.astype(np.float32, copy=False)
        if calibration.scale is not None:
            values = values * np.asarray(calibration.scale, np.float32)[:, None, None]
        if calibration.offset is not None:
            values = values + np.asarray(calibration.offset, np.float32)[:, None, None]
    return values, holds_data(raw, calibration)


def holds_data(raw: Array, calibration: Calibration) -> Bool:
    """Pixels of stored numbers (..., band, y, x) that hold data in every band."""
    valid = np.ones((*raw.shape[:-3], *raw.shape[-2:]), bool)
    limits = stored_limits(calibration, raw.shape[-3])
    # a band at a time: all of them would take as much as the pixels
    for values, (low, high) in zip(np.moveaxis(raw, -3, 0), limits, strict=True):
        valid &= within(values, low, high)
        for gap in calibration.nodata:
            valid &= values != raw.dtype.type(gap)
    return valid


def within(values: Array, low: float, high: float) -> Bool:
    """Where numbers lie between two, in whatever type: NaN does not, nor does infinity.

    Examples
    --------
    >>> within(np.array([np.nan, 0.5, np.inf]), 0.0, 1.0).tolist()
    [False, True, False]
    >>> within(np.array([0, 9], "u1"), -5.0, 5.5).tolist()
    [True, False]
    """
    if values.dtype.kind == "f":
        kind = np.finfo(values.dtype)
        inside: Bool = values >= max(low, float(kind.min))
        inside &= values <= min(high, float(kind.max))
        return inside
    least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
    inside = np.ones(values.shape, bool)
    if low > least:
        inside &= values >= math.ceil(low)
    if high < most:
        inside &= values <= math.floor(high)
    return inside


def stored_limits(calibration: Calibration, bands: int) -> list[tuple[float, float]]:
    """Return what `LOWEST` and `HIGHEST` are in stored numbers, a pair a band.

    Examples
    --------
    >>> stored_limits(Calibration(scale=(1e-4,), offset=(0.0,)), 1)
    [(-5000.0, 655350000.0)]
    """
    scales, offsets = calibration.scale or (1.0,), calibration.offset or (0.0,)
    pairs = zip(np.broadcast_to(scales, bands), np.broadcast_to(offsets, bands), strict=True)
    return [(float((LOWEST - b) / a), float((HIGHEST - b) / a)) for a, b in pairs]


def name_fill_value(raw: Array, calibration: Calibration) -> None:
    """Warn of a number (..., band, y, x) that is no data only because no reflectance is so low or high.

    A lazy array can be asked no sooner than where it is computed; one and the same warning is shown once.
    """
    limits = stored_limits(calibration, raw.shape[-3])
    for values, (low, high) in zip(np.moveaxis(raw, -3, 0), limits, strict=True):
        odd = values[~within(values, low, high)]
        odd = odd[np.isfinite(odd)]
        for gap in calibration.nodata:
            odd = odd[odd != raw.dtype.type(gap)]
        if odd.size:
            worst = max(odd.min().item(), odd.max().item(), key=abs)
            number = int(worst) if float(worst).is_integer() and abs(worst) < 1e15 else float(worst)
            warn_user(
                f"values such as {number!r} are no reflectance and are taken as no data (255). Say so "
                f"with nodata={number!r}; or, if they hold data, say how they are scaled: "
                "da.cloudmask.describe(scale=..., offset=...)",
                NoDataWarning,
            )
            return


def coarsen(values: Float, valid: Bool, factors: tuple[int, int]) -> tuple[Float, Bool]:
    """Mean of the valid pixels of each cell; a cell is valid if any of its pixels is.

    Added up pixel by pixel in a fixed order, so a cell's mean never depends on what lies around it.
    """
    if factors == (1, 1):
        return values, valid
    fy, fx = factors
    rows, cols = -(-valid.shape[0] // fy), -(-valid.shape[1] // fx)
    total = np.zeros((values.shape[0], rows, cols), np.float32)
    count = np.zeros((rows, cols), np.float32)
    values = np.where(valid, values, np.float32(0))
    for dy in range(min(fy, valid.shape[0])):
        for dx in range(min(fx, valid.shape[1])):
            part, there = values[:, dy::fy, dx::fx], valid[dy::fy, dx::fx]
            total[:, : part.shape[1], : part.shape[2]] += part
            count[: there.shape[0], : there.shape[1]] += there
    total /= np.maximum(count, np.float32(1))
    return total, count > 0


def fill_gaps(pixels: Float, valid: Bool) -> Float:
    """Replace invalid cells of one window (band, y, x) by the nearest valid ones.

    Networks take no NaN. What is filled in depends on nothing but the window's valid pixels: not on the
    number stored in the gap, and not on the chunking. benchmarks/choices.py measured it against other fills.
    """
    if valid.all():
        return pixels
    from scipy.ndimage import distance_transform_edt

    rows, cols = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled: Float = pixels[:, rows, cols]
    return filled


def check_units(pixels: Float, valid: Bool, scaled: bool) -> None:
    """Refuse a window whose values cannot be reflectance; a lazy array can be asked no sooner.

    Asked of a window, as those lie the same however the array is chunked. `scaled` says that a scale was
    declared and applied.
    """
    sample = pixels[:, ::8, ::8][:, valid[::8, ::8]]
    if not sample.size:
        return
    middle, largest = float(np.median(sample)), float(np.abs(sample).max())
    if middle > 5:
        found, scale = f"half of the values are above {middle:.4g}", "0.01" if middle <= 150 else "0.0001"
        remedy = (
            f"say how they are scaled: da.cloudmask.describe(scale={scale}, offset=0.0), with the figures of "
            "your product"
        )
    elif middle < -0.1:
        found = f"half of the values are below {middle:.2g}"
        remedy = (
            f"{APPLIED_TWICE}; or these pixels hold no data: say which number means it, describe(nodata=...)"
        )
    elif scaled and 0 < largest < 1e-3:
        found, remedy = f"no value is above {largest:.2g} after the declared scale was applied", APPLIED_TWICE
    else:
        return
    raise UnitError(f"{found}: reflectance is 0 to 1, so {remedy}")
