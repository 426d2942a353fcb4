"""Scale and offset of Landsat scenes of raw numbers: from an MTL file, or from path, row and date.

References
----------
G. Chander, B. Markham, D. Helder, "Summary of current radiometric calibration coefficients for Landsat MSS,
TM, ETM+, and EO-1 ALI sensors", Remote Sensing of Environment 113, 2009 (irradiances, distance of the sun)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

from xcloudmask.errors import CloudMaskError, UnitError
from xcloudmask.local.landsat import raw_numbers
from xcloudmask.scene.sun import descending_pass, sun_position
from xcloudmask.stac.mtl import IMAGE, coefficient, parse_mtl
from xcloudmask.types import Band, Sensor

Figures = tuple[list[float], list[float]]
#: Solar irradiance in ETM+'s bands in W/(m2 um), Chander et al. 2009, Table 3.
IRRADIANCE = {"B1": 1997.0, "B2": 1812.0, "B3": 1533.0, "B4": 1039.0, "B5": 230.8, "B7": 84.90}


def from_mtl(sensor: Sensor, bands: Sequence[Band], text: str, where: str) -> Figures:
    """Return scale and offset of each band by the sun's elevation in an MTL file (Landsat 8, 9)."""
    sun = coefficient(parse_mtl(text, where=where), IMAGE, "SUN_ELEVATION", where, "Fetch the file again.")
    return _oli(sensor, bands, sun)


def from_scene(sensor: Sensor, bands: Sequence[Band], scene: str) -> Figures:
    """Return scale and offset of each band by the path, row and date in the scene's name (Landsat 8, 9).

    The sun's elevation is that of the scene's centre at the satellite's mean time: within 0.2 degrees of what
    ten real products say, from 19 to 58 degrees.

    Examples
    --------
    >>> from xcloudmask import sensors
    >>> landsat = sensors.get("landsat-8")
    >>> from_scene(landsat, [landsat.band("red")], "LC08_L1TP_044034_20170605_20170616_01_T1")[0]
    [2.1...e-05]
    """
    named = re.search(r"(\d{3})(\d{3})_?(\d{8}|\d{7})", scene)
    if named is None:
        raise CloudMaskError(f"{scene}: no path, row and date of a Landsat scene in its name")
    day = datetime.strptime(named[3], "%Y%m%d" if len(named[3]) == 8 else "%Y%j")
    latitude, longitude = wrs2_centre(int(named[1]), int(named[2]))
    return _oli(
        sensor, bands, sun_position(descending_pass(day, latitude, longitude), latitude, longitude)[0]
    )


def wrs2_centre(path: int, row: int) -> tuple[float, float]:
    """Return latitude and longitude of a scene of WRS-2 on its day side, within some 0.2 degrees.

    A circular orbit of 98.2 degrees, 233 paths and 248 rows; row 60 lies on the equator, path 1 crosses it at
    64.6 W.

    Examples
    --------
    >>> [round(degrees, 1) for degrees in wrs2_centre(44, 34)]  # San Francisco
    [37.5, -122.1]
    """
    along = math.radians((row - 60) * 360 / 248)
    tilt = math.radians(180 - 98.2)
    latitude = -math.asin(math.sin(along) * math.sin(tilt))
    # from the earth's centre to upright on the ellipsoid
    latitude = math.atan(math.tan(latitude) / 0.9933056)
    west = math.atan2(math.sin(along) * math.cos(tilt), math.cos(along)) + along * 16 / 233
    longitude = -64.6 - (path - 1) * 360 / 233 - math.degrees(west)
    return math.degrees(latitude), (longitude + 180) % 360 - 180


def from_radiance(sensor: Sensor, bands: Sequence[Band], text: str, where: str) -> Figures:
    """Return scale and offset of each band of a Landsat 7 scene with an MTL file of before 2012.

    Such a file has the radiances that the lowest and the highest number stand for, and no reflectance.
    """
    held = {key: value for group in parse_mtl(text, where=where).values() for key, value in group.items()}
    try:
        sine = math.sin(math.radians(float(held["SUN_ELEVATION"])))
        day = datetime.strptime(held["ACQUISITION_DATE"], "%Y-%m-%d").timetuple().tm_yday
        distance = 1 - 0.01672 * math.cos(math.radians(0.9856 * (day - 4)))  # astronomical units
        scales, offsets = [], []
        for band in bands:
            number = f"BAND{band.name[1:]}"
            low, high, first, last = (
                float(held[f"{key}_{number}"]) for key in ("LMIN", "LMAX", "QCALMIN", "QCALMAX")
            )
            gain = (high - low) / (last - first)
            reflected = math.pi * distance**2 / (IRRADIANCE[band.name] * sine)
            scales.append(gain * reflected)
            offsets.append((low - gain * first) * reflected)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UnitError(
            f"{where}: no MTL file of Landsat 7 from before 2012: {error}", "Fetch it again."
        ) from error
    return scales, offsets


def _oli(sensor: Sensor, bands: Sequence[Band], sun: float) -> Figures:
    numbers = [raw_numbers(sensor, band, sun) for band in bands]
    known = [number for number in numbers if number is not None and number.k1 is None]
    if len(known) != len(bands):
        raise UnitError(f"{sensor.name}: its raw numbers are known for reflectance of Landsat 8 and 9 alone")
    return [number.scale for number in known], [number.offset for number in known]
