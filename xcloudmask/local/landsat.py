"""Landsat scenes: a folder (or tar) of band files with the MTL file, Collection 1 or 2, level 1 or 2.

Level 1 becomes reflectance at the top of the atmosphere, ``(M * DN + A) / sin(sun elevation)``, and
brightness temperature; level 2 surface reflectance and surface temperature. All coefficients come from the
MTL file, by group, since a level-2 file repeats those of the level 1 it was made of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, OptionError, Remedy, Use
from xcloudmask.local.build import grid_of
from xcloudmask.local.files import Files
from xcloudmask.local.scene import (
    Overrides,
    Plane,
    Scene,
    choose,
    need,
    parse_time,
    settle_level,
    warn_of_absent,
)
from xcloudmask.stac.figures import check_sun
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.mtl import IMAGE, RESCALING, THERMAL, Groups, mtl_number, parse_mtl
from xcloudmask.stac.mtl import coefficient as mtl_coefficient
from xcloudmask.types import Band, Level, Sensor

_MTL_ENDS = ("_mtl.json", "_mtl.xml", "_mtl.txt")
#: Where Collection 2, and Collection 1 before it, tell what the product is.
_PRODUCT = ("PRODUCT_CONTENTS", "IMAGE_ATTRIBUTES", "PRODUCT_METADATA", "METADATA_FILE_INFO")
_FILE_KEY = re.compile(r"FILE_NAME_BAND_(?:ST_B)?(\d+(?:_VCID_\d)?)$")
_SURFACE = ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",)
_TEMPERATURE = ("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS",)


class Numbers(NamedTuple):
    """How numbers become values: ``number * scale + offset``, then kelvin where K1 and K2 are given."""

    scale: float
    offset: float
    k1: float | None = None
    k2: float | None = None


#: Reflectance of every level-1 product of Landsat 8 and 9 so far, before the sun's elevation is divided out.
OLI = Numbers(2e-5, -0.1)
#: Thermal bands of the same: radiance coefficients, K1, K2.
TIRS: Mapping[tuple[str, str], Numbers] = {
    ("landsat-8", "B10"): Numbers(3.342e-4, 0.1, 774.8853, 1321.0789),
    ("landsat-8", "B11"): Numbers(3.342e-4, 0.1, 480.8883, 1201.1442),
    ("landsat-9", "B10"): Numbers(3.8e-4, 0.1, 799.0284, 1329.2405),
    ("landsat-9", "B11"): Numbers(3.49e-4, 0.1, 475.6581, 1198.3494),
}


def recognises(files: Files) -> bool:
    """Tell if this is a Landsat scene with its MTL file."""
    return bool(files.ending(*_MTL_ENDS))


def scene(files: Files, given: Overrides) -> Scene:
    """Return the scene that an MTL file describes."""
    name = _mtl_name(files)
    where = f"{files.path}/{name}"
    groups = parse_mtl(files.read_text(name), where=where)
    level = _level(groups, given.level, where)
    sensor = given.sensor or _sensor(groups, where)
    elevation = given.sun_elevation
    if elevation is None:
        elevation = mtl_number(groups, IMAGE, "SUN_ELEVATION", where)
    held = _bands(files, groups, sensor, name)
    if not held:
        raise CloudMaskError(
            f"{where}: none of the band files that it names is beside it. It names"
            f" {', '.join(file for _, file in _named_files(groups)) or 'none'}. Put them into one folder,",
            Remedy("or open them without the MTL file: {}, {}.", Use(sensor=...), Use(sun_elevation=...)),
        )
    planes = []
    named = [sensor.band(f"B{number}") for number, _ in _named_files(groups)]
    warn_of_absent(named, [band for band, _, _ in held], given, where)
    for band in choose([band for band, _, _ in held], given.bands, sensor):
        number, file = next((number, file) for each, number, file in held if each == band)
        numbers = _numbers(groups, band, number, level, elevation, where, given)
        href = files.href(file)
        nodata = 0.0 if given.nodata is None else given.nodata
        source = Source(band.name, href, band, numbers.scale, numbers.offset, nodata, numbers.k1, numbers.k2)
        planes.append(Plane(source, href, grid_of(href, href)))
    product = _text(groups, "LANDSAT_PRODUCT_ID") or _text(groups, "LANDSAT_SCENE_ID")
    return Scene(
        item_id=product or name.rsplit("/", 1)[-1][: -len("_MTL.txt")],
        sensor=sensor,
        level=level,
        planes=tuple(planes),
        time=given.date or _time(groups),
        sun_elevation=elevation,
        sun_azimuth=mtl_number(groups, IMAGE, "SUN_AZIMUTH", where),
    )


def raw_numbers(sensor: Sensor, band: Band, elevation: float) -> Numbers | None:
    """Return what the level-1 numbers of Landsat 8 and 9 mean where the MTL file is lost, None for others.

    `elevation` is the sun's, in degrees.

    Examples
    --------
    >>> landsat = sensors.get("landsat-8")
    >>> raw_numbers(landsat, landsat.band("red"), 30.0).offset
    -0.2
    """
    if sensor.name not in ("landsat-8", "landsat-9"):
        return None
    if band.kind == "brightness_temperature":
        return TIRS[sensor.name, band.name]
    sine = math.sin(math.radians(elevation))
    return Numbers(OLI.scale / sine, round(OLI.offset / sine, 12))


def _mtl_name(files: Files) -> str:
    """Return the MTL file; USGS gives the same in three forms."""
    names = files.ending(*_MTL_ENDS)
    scenes = {name[: name.rindex(".")].casefold() for name in names}
    if len(scenes) > 1:
        raise CloudMaskError(
            f"{files.path}: holds the MTL files of {len(scenes)} scenes: {', '.join(names[:4])}. Open the"
            " folder of one scene, with one level."
        )
    return names[0]


def _text(groups: Groups, key: str) -> str | None:
    return next((groups[group][key] for group in _PRODUCT if key in groups.get(group, {})), None)


def _level(groups: Groups, given: Level | None, where: str) -> Level:
    own = _text(groups, "PROCESSING_LEVEL") or _text(groups, "DATA_TYPE")
    if own is None:
        return settle_level(None, given, where)
    return settle_level({"L1": "toa", "L2": "boa"}.get(own[:2], own), given, where)


def _sensor(groups: Groups, where: str) -> Sensor:
    platform = need(_text(groups, "SPACECRAFT_ID"), "SPACECRAFT_ID", where, "Pass sensor=.")
    instrument = _text(groups, "SENSOR_ID") or ""
    sensor = sensors.identify(platform, [instrument] if instrument else None)
    if sensor is None:
        raise OptionError(
            "Landsat in the MTL file", f"{platform} {instrument}", hint=f"{where}. Pass sensor= to settle it."
        )
    return sensor


def _time(groups: Groups) -> datetime | None:
    day, hour = _text(groups, "DATE_ACQUIRED"), _text(groups, "SCENE_CENTER_TIME")
    return parse_time(f"{day}T{hour}" if day and hour else day)


def _named_files(groups: Groups) -> list[tuple[str, str]]:
    """Return number and file of each band: this product's own, not those of the level 1 behind a level 2."""
    for group in ("PRODUCT_CONTENTS", "PRODUCT_METADATA"):
        pairs = [(m[1], v) for k, v in groups.get(group, {}).items() if (m := _FILE_KEY.match(k))]
        if pairs:
            return pairs
    return []


def _bands(files: Files, groups: Groups, sensor: Sensor, mtl_name: str) -> list[tuple[Band, str, str]]:
    """Return band, number and file of each band that is there, in the sensor's order."""
    folder = mtl_name.rpartition("/")[0]
    names = {name.casefold(): name for name in files.names}
    held = [
        (sensor.band(f"B{number}"), number, names[path])
        for number, file in _named_files(groups)
        if (path := f"{folder}/{file}".lstrip("/").casefold()) in names
    ]
    return sorted(held, key=lambda each: sensor.bands.index(each[0]))


def _numbers(
    groups: Groups,
    band: Band,
    number: str,
    level: Level,
    elevation: float | None,
    where: str,
    given: Overrides,
) -> Numbers:
    thermal = band.kind == "brightness_temperature"
    if given.scale is not None and not thermal:
        return Numbers(given.scale, given.offset or 0.0)

    def coefficients(places: tuple[str, ...], *keys: str) -> list[float]:
        remedy = f"Leave band {band.name} out, pass scale= and offset=, or fetch the scene as Collection 2."
        return [mtl_coefficient(groups, places, key + number, f"{where}: it", remedy) for key in keys]

    if level == "boa" and thermal:
        keys = "TEMPERATURE_MULT_BAND_ST_B", "TEMPERATURE_ADD_BAND_ST_B"
        return Numbers(*coefficients(_TEMPERATURE, *keys))
    if level == "boa":
        return Numbers(*coefficients(_SURFACE, "REFLECTANCE_MULT_BAND_", "REFLECTANCE_ADD_BAND_"))
    if thermal:
        radiance = coefficients(RESCALING, "RADIANCE_MULT_BAND_", "RADIANCE_ADD_BAND_")
        return Numbers(*radiance, *coefficients(THERMAL, "K1_CONSTANT_BAND_", "K2_CONSTANT_BAND_"))
    sun = check_sun(elevation, where, Remedy("Pass it in degrees: {}", Use(sun_elevation=...)))
    sine = math.sin(math.radians(sun))
    scale, offset = coefficients(RESCALING, "REFLECTANCE_MULT_BAND_", "REFLECTANCE_ADD_BAND_")
    return Numbers(scale / sine, offset / sine)
