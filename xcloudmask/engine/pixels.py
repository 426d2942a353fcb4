"""From stored numbers to reflectance: what is data, what is a gap, and how coarse cells are made."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from xcloudmask.engine.arrays import Array, Bool, Float
from xcloudmask.types import Calibration, Gaps

#: What no reflectance is: a fill value that nobody declared, or counts that were not scaled (of which
#: `input_checks.check_units` tells). It is no data; a network's answer would be spoilt all around it.
LOWEST, HIGHEST = -0.5, 20.0
#: Brighter than this is as bright as it gets: one pixel of glint or garbage must not spoil its surroundings.
CEILING = 3.0
#: What programs fill gaps with.
FILLS = (9999.0, 10_000.0, 32_767.0, 65_535.0)
#: How near to a fill value a float may lie that went through a scale and an offset in single precision.
NEAR = 1e-6
#: Bands that differ by less hold one number: below the step of any product's, above rounding in float32.
SAME = 5e-6
#: So many pixels of all bands are calibrated and averaged at a time.
PIXELS_AT_ONCE = 2**14


def calibrate(raw: Array, calibration: Calibration) -> tuple[Float, Bool]:
    """Turn stored numbers (..., band, y, x) into reflectance and the pixels where every band has one."""
    with np.errstate(over="ignore"):  # what is beyond float32 is no data, see LOWEST
        scaled = calibration.scale is not None or calibration.offset is not None
        values: Float = raw.astype(np.float32, copy=scaled)
        if calibration.scale is not None:
            values *= np.asarray(calibration.scale, np.float32)[:, None, None]
        if calibration.offset is not None:
            values += np.asarray(calibration.offset, np.float32)[:, None, None]
    if values.size and np.fmax.reduce(values, axis=None) > CEILING:  # a copy only where there is need
        values = np.minimum(values, np.float32(CEILING))
    return values, holds_data(raw, calibration)


def holds_data(raw: Array, calibration: Calibration, highest: float = HIGHEST) -> Bool:
    """Pixels of stored numbers (..., band, y, x) that hold data in every band, and no fill value in all.

    Decided pixel by pixel, so that it never depends on the chunking.
    """
    valid = np.ones((*raw.shape[:-3], *raw.shape[-2:]), bool)
    limits = stored_limits(calibration, raw.shape[-3], highest)
    # a band at a time: all of them would take as much as the pixels
    for values, (low, high) in zip(np.moveaxis(raw, -3, 0), limits, strict=True):
        valid &= within(values, low, high)
        for gap in calibration.nodata:
            valid &= values != raw.dtype.type(gap)
    for number in calibration.fill:
        valid &= ~filled(raw, number)
    return valid


def saturated(raw: Array, calibration: Calibration) -> Bool:
    """Pixels of stored numbers (..., band, y, x) that are saturated in each band that is looked at.

    If `calibration.alike`, only where all of these come to one and the same reflectance, which is none above
    `CEILING`, nor a number in every band that programs fill gaps with.

    Examples
    --------
    >>> saturated(np.array([[[4000, 4000]], [[4100, 3999]]]), Calibration((1e-4,), saturation=(0.4, 0.4)))
    array([[ True, False]])
    """
    here = np.ones((*raw.shape[:-3], *raw.shape[-2:]), bool)
    count = raw.shape[-3]
    scales, offsets = (
        np.broadcast_to(figures or (none,), count)
        for figures, none in ((calibration.scale, 1.0), (calibration.offset, 0.0))
    )
    for band, limit in enumerate(calibration.saturation or ()):
        if math.isfinite(limit):
            here &= raw[..., band, :, :] >= float((limit - NEAR - offsets[band]) / scales[band])
            if not here.any():  # as a rule after the first band
                return here
    if calibration.alike:
        places = np.nonzero(here)
        seen = [band for band, limit in enumerate(calibration.saturation or ()) if math.isfinite(limit)]
        stored = np.moveaxis(raw, -3, -1)[places]
        values = stored[:, seen].astype(np.float64) * scales[seen] + offsets[seen]
        fills = (stored == stored[:, :1]).all(axis=-1) & np.isin(stored[:, 0], FILLS)
        with np.errstate(invalid="ignore"):  # infinity is as much as no other
            here[places] = (np.ptp(values, axis=-1) <= SAME) & (values[:, 0] <= CEILING) & ~fills
    return here


def filled(raw: Array, number: float) -> Bool:
    """Pixels of stored numbers (..., band, y, x) that hold a number in all of their bands.

    Examples
    --------
    >>> filled(np.array([[[0, 0, 5]], [[0, 1, 0]]]), 0).tolist()
    [[True, False, False]]
    """
    here: Bool | None = None
    for values in np.moveaxis(raw, -3, 0):
        same = (
            within(values, number - NEAR, number + NEAR)
            if raw.dtype.kind == "f" and number != 0
            else values == raw.dtype.type(number)
        )
        here = same if here is None else np.logical_and(here, same, out=here)
        if not here.any():  # as a rule after the first band
            break
    if here is None:
        raise ValueError("pixels without a band cannot hold a number")
    return here


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


def stored_limits(
    calibration: Calibration, bands: int, highest: float = HIGHEST
) -> list[tuple[float, float]]:
    """Return what `LOWEST` and `highest` are in stored numbers, a pair a band.

    Examples
    --------
    >>> stored_limits(Calibration(scale=(1e-4,), offset=(0.0,)), 1)
    [(-5000.0, 200000.0)]
    """
    scales, offsets = calibration.scale or (1.0,), calibration.offset or (0.0,)
    pairs = zip(np.broadcast_to(scales, bands), np.broadcast_to(offsets, bands), strict=True)
    return [(float((LOWEST - b) / a), float((highest - b) / a)) for a, b in pairs]


def cells_of(raw: Array, calibration: Calibration, factors: tuple[int, int]) -> tuple[Float, Bool, bool]:
    """Turn stored numbers (band, y, x) into reflectance of cells, which are valid, and if there are gaps.

    A few rows at a time, which stay in the processor's cache on their way; without scale and cells there is
    nothing to do but to look.
    """
    _, height, width = raw.shape
    unscaled = calibration.scale is None and calibration.offset is None
    if factors == (1, 1) and raw.dtype == np.float32 and unscaled:
        values, valid = calibrate(raw, calibration)
        return values, valid, not valid.all()
    fy, fx = factors
    shape = -(-height // fy), -(-width // fx)
    cells, cell_valid, gaps = np.empty((len(raw), *shape), np.float32), np.empty(shape, bool), False
    rows = max(1, PIXELS_AT_ONCE // (width * fy))
    for top in range(0, shape[0], rows):
        part = slice(top, top + rows)
        values, valid = calibrate(raw[:, top * fy : (top + rows) * fy], calibration)
        gaps |= not valid.all()
        cells[:, part], cell_valid[part] = coarsen(values, valid, factors)
    return cells, cell_valid, gaps


def coarsen(
    values: Array, valid: Bool, factors: tuple[int, int], dtype: Any = np.float32
) -> tuple[Array, Bool]:
    """Mean of the valid pixels (..., y, x) of each cell, 0 if there are none; and which cells have any.

    Added up pixel by pixel in a fixed order, so a cell's mean never depends on what lies around it.
    """
    if factors == (1, 1):
        return values, valid
    fy, fx = factors
    rows, cols = -(-valid.shape[-2] // fy), -(-valid.shape[-1] // fx)
    total = np.zeros((*values.shape[:-2], rows, cols), dtype)
    count = np.zeros((*valid.shape[:-2], rows, cols), dtype)
    if not valid.all():
        values = np.where(valid, values, dtype(0))
    for dy, dx in product(range(min(fy, valid.shape[-2])), range(min(fx, valid.shape[-1]))):
        part, there = values[..., dy::fy, dx::fx], valid[..., dy::fy, dx::fx]
        place = ..., slice(part.shape[-2]), slice(part.shape[-1])
        total[place] += part
        count[place] += there
    total /= np.maximum(count, dtype(1))
    return total, count > 0


def fill_gaps(pixels: Float, valid: Bool, gaps: Gaps = "nearest") -> Float:
    """Replace invalid cells of one window (band, y, x) by the nearest valid ones, by zero or by NaN.

    Networks take no NaN, but for those whose card says so. What is filled in depends on nothing but the
    window's valid pixels: not on the number stored in the gap, and not on the chunking. benchmarks/choices.py
    measured the nearest against other fills.
    """
    if valid.all():
        return pixels
    if gaps != "nearest":
        return np.where(valid, pixels, np.float32(0 if gaps == "zero" else np.nan))
    from scipy.ndimage import distance_transform_edt

    rows, cols = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled: Float = pixels[:, rows, cols]
    return filled
