"""Checks of the numbers that metadata state: each has a range that can be meant, and is refused outside.

A scale of 0, a sun on the horizon or a NaN would turn a whole scene into one value without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xcloudmask.errors import OptionError, Remedy, UnitError
from xcloudmask.stac.view import to_number

#: From and to, by the name under which metadata state it, what follows ``_BAND`` aside.
RANGES: Mapping[str, tuple[float, float]] = {
    # Landsat's MTL file
    "REFLECTANCE_MULT": (1e-7, 1.0),
    "REFLECTANCE_ADD": (-10.0, 10.0),
    "RADIANCE_MULT": (1e-7, 100.0),
    "RADIANCE_ADD": (-1000.0, 1000.0),
    "TEMPERATURE_MULT": (1e-6, 10.0),
    "TEMPERATURE_ADD": (-300.0, 300.0),
    "K1_CONSTANT": (1.0, 1e5),
    "K2_CONSTANT": (1.0, 1e5),
    "SUN_ELEVATION": (-90.0, 90.0),
    "SUN_AZIMUTH": (-360.0, 360.0),
    # Sentinel-2's metadata
    "QUANTIFICATION_VALUE": (100.0, 1e6),
    "ADD_OFFSET": (-65535.0, 65535.0),
    "band_id": (0.0, 12.0),
    "ZENITH_ANGLE": (0.0, 180.0),
    "AZIMUTH_ANGLE": (-360.0, 360.0),
    # Proba-V and SPOT-VGT: the divisor, and where the pixels are
    "SCALE": (1.0, 1e6),
    "OFFSET": (-65535.0, 65535.0),
    "degrees": (-360.0, 360.0),
    "pixel size in degrees": (1e-6, 1.0),
    # a file or an item: reflectance = number * scale + offset
    "scale": (1e-8, 1.0),
    "offset": (-10.0, 10.0),
}
#: Below this the sun gives no reflectance: its sine is what numbers are divided by.
LEAST_SUN = 0.1


def figure(value: Any, name: str, where: str, remedy: str | Remedy, *, range_of: str = "") -> float:
    """Return a number that metadata state, or say that it cannot be meant.

    Its range is the entry `range_of` of `RANGES`; by default `name`, what follows ``_BAND`` aside.

    Examples
    --------
    >>> figure("2.0E-05", "REFLECTANCE_MULT_BAND_4", "MTL", "")
    2e-05
    """
    number = to_number(value.strip() if isinstance(value, str) else value)
    low, high = RANGES[range_of or name.partition("_BAND")[0]]
    if number is None or not (math.isfinite(number) and low <= number <= high):
        raise UnitError(
            f"{where}: {name} is {str(value)[:80]!r}; it can only be a number from {low:g} to {high:g}.",
            remedy,
        )
    return number


def check_sun(degrees: Any, where: str, remedy: str | Remedy) -> float:
    """Return the sun's elevation, or say what to do where there is none or the sun is down.

    Examples
    --------
    >>> check_sun(30.0, "scene", "Pass sun_elevation=.")
    30.0
    """
    if degrees is None:
        raise UnitError(
            f"{where}: top-of-atmosphere reflectance needs the sun's elevation, and nothing tells it.", remedy
        )
    if isinstance(degrees, bool) or not isinstance(degrees, (int, float)):
        raise OptionError("sun_elevation", degrees, hint="Give degrees, or a mapping of item id to degrees.")
    if not LEAST_SUN <= degrees <= 90:
        raise UnitError(
            f"{where}: the sun's elevation is {degrees:g} degrees; reflectance needs one above 0 (from"
            f" {LEAST_SUN:g}) and up to 90. Leave night scenes out, or pass the right one: sun_elevation=..."
        )
    return float(degrees)
