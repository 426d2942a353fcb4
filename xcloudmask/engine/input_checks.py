"""What is odd about stored numbers: refused where they cannot be reflectance, named where they may not be.

Arrays come as (band, y, x) with a `Calibration`. A lazy array can be asked no sooner than where it is
computed; one and the same warning is shown once, so no message holds a count.
"""

from __future__ import annotations

import math

import numpy as np

from xcloudmask.engine.arrays import Array, Float
from xcloudmask.engine.pixels import (
    CEILING,
    FILLS,
    HIGHEST,
    NEAR,
    filled,
    holds_data,
    saturated,
    stored_limits,
    within,
)
from xcloudmask.errors import NoDataWarning, Remedy, UnitError, UnitWarning, Use, warn_user
from xcloudmask.types import Calibration

#: Up to here, numbers may be counts that were not scaled, of which `check_units` tells.
COUNTS = 65_535.0
#: Every n-th row and column is looked at: what is worth a warning is seen on a sixteenth of the pixels, or
#: on about so many, where that is less.
STEP, ENOUGH = 4, 2**14
#: Pixels of that sample below which nothing is said of a band, and the share of it from which zeros are many.
FEW, MANY = 50, 0.2

APPLIED_TWICE = "the scale or the offset is wrong, or was applied already"
HOW_STORED = "Say how the numbers are stored with {}, {} if they are reflectance"
STORED = (Use("da.cloudmask.describe", scale=..., offset=...), Use(scale=1, offset=0))
#: What numbers up to 255 may be, and what to try if they are reflectance after all.
PICTURE = "looks like an 8-bit picture, which is no reflectance: give the product it was made from"
OF_PICTURE = Use("da.cloudmask.describe", scale=round(1 / 255, 6), offset=0)
FIGURES = (
    "with the figures of your product (Sentinel-2: 0.0001, and an offset of -0.1 from processing baseline "
    "04.00 on, 0 before it; Landsat Collection 2, surface: 2.75e-5 and -0.2)"
)


def check_units(raw: Array, calibration: Calibration) -> None:
    """Refuse a sample (band, y, x) of a window whose values cannot be reflectance.

    Asked of a window, as those lie the same however the array is chunked.
    """
    valid = holds_data(raw, calibration, COUNTS)
    values = to_reflectance(raw[:, valid], calibration)
    if not values.size:
        return
    if calibration.scale is None and float(values.min()) >= -0.1 and float(values.max()) <= 5:
        return  # nothing below is said of these, and the median is slow
    fills = (raw == raw[:1]).all(axis=0)[valid] & np.isin(raw[0, valid], FILLS)
    gaps = fills & (values[0] > HIGHEST)  # beside data they are no counts, and no data by `holds_data`
    sample = values if gaps.all() else values[:, ~gaps]
    middle = float(np.median(sample))
    most = float(sample.max())
    if middle > 5 and calibration.scale is None and 20 < most <= 255:
        percent = raw.dtype != np.uint8 and most <= 120
        raise UnitError(
            f"half of the values are above {middle:.4g} and none is above {most:.4g}; reflectance is 0 to 1, "
            f"and this {PICTURE}.",
            Remedy(
                "If the picture is reflectance times 255, try {}" + "; if it is percent, say {}" * percent,
                *(OF_PICTURE, Use("da.cloudmask.describe", scale=0.01, offset=0))[: 1 + percent],
            ),
        )
    if middle > 5:
        scale = 0.01 if middle <= 150 else 0.0001
        numbers = np.unique(raw[0, valid][fills])
        raise UnitError(
            f"half of the values are above {middle:.4g}: reflectance is 0 to 1, so say how they are scaled:",
            Remedy(
                f"{{}}, {FIGURES}" + "".join(f"; or, if {n:g} means no data, {{}}" for n in numbers),
                Use("da.cloudmask.describe", scale=scale, offset=...),
                *(Use(nodata=float(f"{n:g}")) for n in numbers),
            ),
        )
    if middle < -0.1:
        raise UnitError(
            f"half of the values are below {middle:.2g}: reflectance is 0 to 1, so {APPLIED_TWICE}",
            Remedy(
                HOW_STORED + "; or these pixels hold no data: say which number means it, {}",
                *STORED,
                Use("describe", nodata=...),
            ),
        )
    if calibration.scale is not None:
        # What the scale makes of the stored numbers, before the offset hides how little it is.
        offset = np.asarray(calibration.offset or (0.0,), np.float32)
        spread = float(np.abs(sample - offset[:, None]).max())
        if 0 < spread < 1e-3:
            what = f"no value is above {spread:.2g} after the declared scale was applied"
            if offset.any():
                what = f"the values lie within {spread:.2g} of the declared offset"
            raise UnitError(f"{what}: reflectance is 0 to 1, so {APPLIED_TWICE}", Remedy(HOW_STORED, *STORED))


def to_reflectance(raw: Array, calibration: Calibration) -> Float:
    """Return stored numbers (band, n) as reflectance, however bright."""
    values: Float = raw.astype(np.float32)
    if calibration.scale is not None:
        values *= np.asarray(calibration.scale, np.float32)[:, None]
    if calibration.offset is not None:
        values += np.asarray(calibration.offset, np.float32)[:, None]
    return values


def name_gaps(raw: Array, calibration: Calibration) -> None:
    """Warn of numbers that are no data though nobody said so.

    Those that no reflectance can be, and a fill value in all bands that is assumed and not known.
    """
    if calibration.assumed:
        for number in calibration.fill:
            if filled(raw, number).any():
                warn_user(
                    f"pixels that are {number:g} in every band are taken as no data (255): that is how most "
                    f"products mark it, and this array does not say what it holds",
                    NoDataWarning,
                    Remedy(
                        "Say {}, whose products tell what fills them, or {}, where they are reflectance. ({} "
                        "would take a pixel as no data where any one of its bands is that)",
                        Use("da.cloudmask.describe", sensor=...),
                        Use(nodata=None),
                        Use(nodata=int(number) if float(number).is_integer() else float(f"{number:g}")),
                    ),
                )
    limits = stored_limits(calibration, raw.shape[-3])
    for values, (low, high) in zip(np.moveaxis(raw, -3, 0), limits, strict=True):
        odd = values[~within(values, low, high)]
        odd = odd[np.isfinite(odd)]
        for gap in (*calibration.nodata, *calibration.fill):
            odd = odd[np.abs(odd - gap) > NEAR]
        if odd.size:
            worst = max(odd.min().item(), odd.max().item(), key=abs)
            number = int(worst) if float(worst).is_integer() and abs(worst) < 1e15 else float(worst)
            warn_user(
                f"values such as {number!r} are no reflectance and are taken as no data (255)",
                NoDataWarning,
                Remedy(
                    "Say so with {}; or, if they hold data, say how they are scaled: {}",
                    Use(nodata=number),
                    Use("da.cloudmask.describe", scale=..., offset=...),
                ),
            )
            return


def name_oddities(raw: Array, calibration: Calibration) -> None:
    """Warn of data that is taken as it is and may be none: fill values, a band of zeros, a ceiling."""
    step = max(STEP, math.isqrt(raw[0].size // ENOUGH))
    sample = raw[:, ::step, ::step]
    sample = sample[:, holds_data(sample, calibration)]
    if sample.shape[1] < FEW:
        return
    same = (sample == sample[:1]).all(axis=0)
    for number in FILLS if same.any() else ():
        if (sample[0, same] == number).any():
            warn_user(
                f"pixels that are {number:.0f} in every band are taken as reflectance, and many products "
                "fill gaps with that number:",
                NoDataWarning,
                Remedy("say {} if it means no data here", Use(nodata=round(number))),
            )
    factors = np.broadcast_to(calibration.scale or (1.0,), len(sample)).tolist()
    addends = np.broadcast_to(calibration.offset or (0.0,), len(sample)).tolist()
    dull = np.ones(sample.shape[1], bool)
    if calibration.alike:
        dull = ~saturated(sample[..., None], calibration)[:, 0]
        if (~dull).sum() >= FEW:
            warn_user(
                "many pixels hold one and the same reflectance in all visible bands, and are brighter than "
                "ground: they are taken as saturated cloud",
                UnitWarning,
                Remedy("Where that is snow, say {}: the model decides", Use(saturation=None)),
            )
    for band, values in enumerate(sample):
        zero = values == 0
        if zero.sum() >= FEW and MANY <= zero.mean() < 1 and (sample[:, zero] != 0).any():
            warn_user(
                f"band {band + 1} of those that the model is given is 0 where the others are not: it is "
                "taken as data, and looks like a defect of that band. Mark such pixels with valid=, or give "
                "the model other bands",
                NoDataWarning,
            )
        declared = not (calibration.saturation is None or calibration.alike)
        limit = calibration.saturation[band] if declared and calibration.saturation else math.inf
        name_ceiling(values[dull], factors[band], addends[band], limit)


def name_ceiling(values: Array, factor: float, addend: float, declared: float = math.inf) -> None:
    """Warn where very many pixels of a band (n,) are exactly as bright as its brightest: it is cut off.

    Nothing is said of a ceiling that was `declared`.
    """
    if not values.size:
        return
    top = values.max()
    at_top = int((values == top).sum())
    if at_top < max(FEW, 0.002 * values.size):
        return
    brightest = float(top) * factor + addend
    if not 0.2 <= brightest < min(CEILING, declared - NEAR):
        return
    below = values[(values > (0.8 * brightest - addend) / factor) & (values < top)]
    # Without a ceiling the brightest value is rarer than the next; a flat field has nothing near it at all.
    if below.size > at_top / 50 and at_top > 5 * (below == below.max()).sum():
        warn_user(
            f"many pixels of a band are exactly {brightest:.4g}, its brightest: the numbers look cut off or "
            "saturated there, and clouds as flat as that may be called clear",
            UnitWarning,
            Remedy(
                "Give numbers that were not clipped, or say {}: where every visible band reaches it, a "
                "pixel is cloud",
                Use(saturation=float(f"{brightest:.4g}")),
            ),
        )
