"""Distances and areas as a user writes them, and what they come to in pixels of a grid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.errors import CloudMaskError, CloudMaskWarning, OptionError, Remedy, warn_user
from xcloudmask.scene.dims import is_geographic, pixel_size, spatial_dims

#: A longer distance in pixels needs its unit: whoever writes 150 means metres.
MOST_PIXELS = 20
LENGTHS: Mapping[str, float] = {"m": 1, "km": 1000}
AREAS: Mapping[str, float] = {"m2": 1, "ha": 1e4, "km2": 1e6}
#: Pixels that coordinates, which are rounded, may lack.
SLACK = 1e-6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PixelSize:
    """How large pixels are: metres along rows and columns, and how the latter change from row to row."""

    size: tuple[float, float] | None  # height and width in the middle row; None where nothing tells them
    scale: Floats | None = None  # the width of each row's pixels by that; None where all are as wide

    @classmethod
    def of(cls, da: xr.DataArray) -> PixelSize:
        """Return that of an array.

        Examples
        --------
        >>> lat = [60.0, 0.0, -60.0]
        >>> grid = PixelSize.of(xr.DataArray(np.zeros((3, 2)), dims=("lat", "lon"),
        ...                             coords={"lat": lat, "lon": [0.0, 60.0]}))
        >>> [round(float(s), 3) for s in grid.scale]
        [0.5, 1.0, 0.5]
        """
        y, x = spatial_dims(da)
        size = pixel_size(da, y, x)
        if size is None or not is_geographic(da, y):
            return cls(size)
        cosines = np.maximum(np.cos(np.radians(da[y].values.astype(float))), 0.01)
        middle = math.cos(math.radians(float(np.mean(da[y].values[[0, -1]]))))
        return cls(size, cosines / max(middle, 0.01))

    def known(self, option: str, size: Size) -> tuple[float, float]:
        """Return the size of a pixel; an error where it is not known."""
        if self.size is None:
            raise CloudMaskError(
                f"{option}={str(size)!r}: the pixel size is not known (no coordinates in metres or degrees); "
                "give a number of pixels"
            )
        return self.size


@dataclass(frozen=True, slots=True)
class Size:
    """A distance or an area: a number, and its unit.

    Examples
    --------
    >>> str(Size.length("buffer", "150 m")), str(Size.length("buffer", 3)), Size.area("sieve", "1 ha").unit
    ('150 m', '3 px', 'ha')
    """

    number: float
    unit: str

    def __str__(self) -> str:
        return f"{self.number:g} {self.unit}"

    @classmethod
    def length(cls, option: str, value: Any) -> Size:
        """Read a distance: text with its unit, or a number of pixels."""
        size = _read(option, value, LENGTHS, ("150 m", "0.5 km", "3 px", "a number of pixels"))
        if size.number > MOST_PIXELS and not isinstance(value, str):
            raise CloudMaskError(
                f"{option}={value:g} would be pixels, and metres may be meant",
                f"Give its unit: '{value:g} m' or '{value:g} px'",
            )
        return size

    @classmethod
    def area(cls, option: str, value: Any) -> Size:
        """Read an area: text with its unit, or a number of pixels."""
        return _read(option, value, AREAS, ("1 ha", "5000 m2", "0.1 km2", "25 px", "a number of pixels"))

    def disc(self, option: str, grid: PixelSize) -> tuple[float, float, bool]:
        """Return the distance in rows and in columns, and whether the latter change with the row."""
        if self.unit == "px":
            return self.number, self.number, False
        height, width = grid.known(option, self)
        metres = self.number * LENGTHS[self.unit]
        return metres / height, metres / width, grid.scale is not None

    def pixels(self, option: str, grid: PixelSize) -> float:
        """Return the area in pixels of the middle row."""
        if self.unit == "px":
            return self.number
        height, width = grid.known(option, self)
        return self.number * AREAS[self.unit] / (height * width)


def warn_of_nothing(what: str, rows: float, columns: float) -> None:
    """Warn where a distance in pixels reaches no neighbour, so that what goes by it changes nothing."""
    if 0 < max(rows, columns) < 1 - SLACK:
        warn_user(
            f"{what} is {max(rows, columns):.2g} pixels, and the next pixel is 1 away: it changes nothing",
            CloudMaskWarning,
            Remedy("Give the size of a pixel at least, or leave it out"),
        )


def _read(option: str, value: Any, units: Mapping[str, float], allowed: tuple[str, ...]) -> Size:
    if isinstance(value, str):
        match = re.fullmatch(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(units)}|px)\s*", value)
        if match:
            return Size(float(match[1]), match[2])
    elif isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return Size(float(value), "px")
    raise OptionError(option, value, allowed=allowed)
