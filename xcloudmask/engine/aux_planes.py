"""Aux planes: height, radar and thermal bands as the network is given them. Functions from arrays to arrays.

On their way the planes hold metres, degrees, kelvin and backscatter as a ratio of powers, because means of
that are right and means of decibels are not; NaN where nothing is known. A window of them is turned into what
the network was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.engine.arrays import Bool, Float
from xcloudmask.errors import Remedy, UnitError, Use
from xcloudmask.types import THERMAL_EDGES, AuxInput, AuxName

RADAR = ("vv", "vh")
#: So many pixels are never all brighter than 0 dB; ratios that are called decibels are.
MANY = 64
#: Heights that mean no data in most terrain models, and so are no height in one that does not say it.
NO_HEIGHT = (-9999.0, -32768.0)
DECIBELS = ("db", "decibel", "decibels")


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is known of an aux input beside its names and its scaling."""

    units: tuple[str, ...]  # which the attribute `units` may name, in lower case; "" where it may be left out
    unit: str  # in words
    remedy: Remedy  # where it is another unit
    low: float  # the middle of a window's values cannot be below this, or above the next
    high: float
    expected: str  # what the values are, and what to do where they are not


def _set(units: str) -> Use:
    return Use("assign_attrs", units=units)


_BACKSCATTER = Quantity(
    (*DECIBELS, "linear", "power", "1", "natural", "m2 m-2", "m2/m2", "m^2/m^2"),
    "decibels or a ratio of powers", Remedy("say {} or {}", _set("dB"), _set("linear")),
    -1.0, 50.0,  # where noise was taken away, calm water may be a little less than nothing
    "backscatter (sigma or gamma nought): say how it is stored with attrs units='dB' or units='linear' (a "
    "ratio of powers, neither amplitude nor digital numbers)",
)  # fmt: skip
_TEMPERATURE = Quantity(
    ("", "k", "kelvin"), "kelvin",
    Remedy("convert it, + 273.15 for degrees Celsius, and say {}", _set("K")), 150, 360,
    "brightness temperature in kelvin: + 273.15 for degrees Celsius",
)  # fmt: skip
QUANTITIES: Mapping[AuxName, Quantity] = {
    "elevation": Quantity(
        ("", "1", "m", "metre", "metres", "meter", "meters"), "metres",
        Remedy("convert it, dem * 0.3048 for feet, and say {}", _set("m")), -12_000, 10_000,
        "metres: aux=dem * 0.3048 for feet",
    ),
    "angle": Quantity(
        ("", "1", "deg", "degree", "degrees", "°"), "degrees",
        Remedy("convert it, numpy.degrees(angle), and say {}", _set("degrees")), 5, 90,
        "degrees: numpy.degrees(angle) for radians",
    ),
    "vv": _BACKSCATTER, "vh": _BACKSCATTER, "lwir11": _TEMPERATURE, "lwir12": _TEMPERATURE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cleaner:
    """What makes a plane of stored numbers.

    Examples
    --------
    >>> Cleaner(nodata=(-9999.0,))(np.array([[100, -9999]], "int16")).tolist()
    [[100.0, nan]]
    >>> Cleaner(decibels=True)(np.array([-10.0, np.inf])).round(6).tolist()
    [0.10000000149011612, nan]
    >>> Cleaner(name="elevation")(np.array([[100, -9999]], "int16"))
    Traceback (most recent call last):
    ...
    xcloudmask.errors.UnitError: aux input 'elevation' holds -9999 m, which is no height: say which number ...
    """

    nodata: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    decibels: bool = False
    name: AuxName | None = None

    def __call__(self, stored: npt.NDArray[Any]) -> Float:
        """Return the plane."""
        with np.errstate(over="ignore"):
            values: Float = stored.astype(np.float32)
        gap = ~np.isfinite(values)
        for number in self.nodata:
            gap |= stored == number
        values *= np.float32(self.scale)
        values += np.float32(self.offset)
        if self.decibels:
            with np.errstate(all="ignore"):
                values = np.power(np.float32(10), values / np.float32(10))
        if self.name in RADAR:  # nothing comes back from no data; less than nothing is noise taken away
            gap |= values == 0
        values[gap] = np.nan
        if self.name == "elevation":
            self._check_heights(stored, values)
        return values

    def _check_heights(self, stored: npt.NDArray[Any], values: Float) -> None:
        """Refuse numbers that are no heights: a few of them among others would be interpolated unseen."""
        height = QUANTITIES["elevation"]
        strange = (values < height.low) | (values > height.high)
        for number in NO_HEIGHT:
            strange |= (stored == number) & np.isfinite(values)
        if not strange.any():
            return
        raw, metres = stored[strange][0], float(values[strange][0])
        kept = "" if raw == metres else f" (stored as {raw:.9g})"
        raise UnitError(
            f"aux input 'elevation' holds {metres:.9g} m{kept}, which is no height: say which number is no "
            f"data: dem.attrs['_FillValue'] = {raw:.9g}. Heights in feet: dem * 0.3048; depths, if this is "
            "one: dem.clip(min=-9000)"
        )


def encode(values: Float, valid: Bool, aux: AuxInput) -> Float:
    """Turn a window's gapless plane into what the network is given, 0 if the window knew nothing.

    Examples
    --------
    >>> encode(np.full((8, 8), 2000.0, "f4"), np.ones((8, 8), bool), AuxInput("elevation"))[0, 0].item()
    1.0
    """
    if not valid.any():
        return np.zeros_like(values)
    check(values[::4, ::4][valid[::4, ::4]], aux.name)
    if aux.name in RADAR:
        # below -50 dB there is only noise, which may even be negative
        values = np.log10(np.maximum(values, np.float32(1e-5))) * np.float32(10)
    out: Float = (values - np.float32(aux.mean)) / np.float32(aux.std)
    return np.clip(out, 0, 1) if aux.name in THERMAL_EDGES else out


def check(values: Float, name: AuxName) -> None:
    """Refuse values of a window that cannot be what they are said to be.

    Examples
    --------
    >>> check(np.array([0.6, 0.7]), "angle")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.UnitError: aux input 'angle': the middle of the values is 0.65, which cannot be deg...
    """
    if not values.size:
        return
    quantity = QUANTITIES[name]
    middle = float(np.median(values))
    oddity = f"the middle of the values is {middle:.5g}"
    if name in RADAR:
        oddity += " as a ratio of powers"
    if quantity.low <= middle <= quantity.high:
        if name not in RADAR or values.size < MANY or values.min() < 1:
            return
        oddity = "all values are above 0 dB"
    raise UnitError(f"aux input {name!r}: {oddity}, which cannot be {quantity.expected}")
