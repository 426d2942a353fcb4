"""SPOT-VGT products (VGT-P, S1, S10): a folder of HDF4 planes with a LOG file, or the zip they come in.

The planes ``B0 B2 B3 MIR SM`` are one file each. The LOG file gives the corner (the centre of the first
pixel), the pixel size and the dates. HDF4 is read with pyhdf; planes that were converted to GeoTIFF are taken
in its place. Reflectance is ``number * 0.0005``; 0 is no data (the syntheses keep the sea at 0). A pixel
counts for a band where the status map says that this band's radiometry is good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, Remedy, Use
from xcloudmask.local.build import grid_of
from xcloudmask.local.files import Files
from xcloudmask.local.hdf4 import plane_shape
from xcloudmask.local.scene import (
    HDF4,
    Overrides,
    Plane,
    Scene,
    choose,
    good_radiometry,
    need,
    parse_time,
    settle_level,
)
from xcloudmask.stac.figures import figure
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source
from xcloudmask.types import Band, Level, Sensor

_LOG = re.compile(r"(^|[/_])LOG\.TXT$", re.IGNORECASE)
_PLANE = re.compile(r"(?:^|[/_])(B0|B2|B3|MIR|SM)\.(hdf|tiff?)$", re.IGNORECASE)
_SCALE = 0.0005


def recognises(files: Files) -> bool:
    """Tell if this is a SPOT-VGT product."""
    planes = {match[1].upper() for name in files.names if (match := _PLANE.search(name))}
    return "B2" in planes and any(_LOG.search(name) for name in files.names)


def scene(files: Files, given: Overrides) -> Scene:
    """Return the scene of a SPOT-VGT product."""
    name = files.only(_LOG, "SPOT-VGT products")
    where = f"{files.path}/{name}"
    lines = (line.split(None, 1) for line in files.read_text(name).splitlines())  # a key, blanks and a value
    log = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    product = log.get("PRODUCT_ID") or files.name
    planes = _planes(files)
    sensor = given.sensor or _sensor(log, product, where)
    level = settle_level(_level(log, product), given.level, where)
    held = [band for band in sensor.bands if band.name in planes]
    status, day = planes.get("SM"), log.get("SYNTHESIS_FIRST_DATE")
    if not day and "SEGM_FIRST_DATE" in log:
        day = log["SEGM_FIRST_DATE"] + log.get("SEGM_FIRST_TIME", "000000")
    chosen = tuple(
        _plane(files, planes[band.name], status, band, log, where, given)
        for band in choose(held, given.bands, sensor)
    )
    return Scene(product, sensor, level, chosen, given.date or parse_time(day))


def _planes(files: Files) -> dict[str, str]:
    """Return the file of each plane; a GeoTIFF is preferred to the HDF4 file it was made of."""
    planes: dict[str, str] = {}
    for name in sorted(files.names, key=lambda name: name.lower().endswith(".hdf"), reverse=True):
        match = _PLANE.search(name)
        if match:
            planes[match[1].upper()] = name
    return planes


def _sensor(log: Mapping[str, str], product: str, where: str) -> Sensor:
    text = f"{log.get('SENSOR_CODE', '')} {product}"
    match = re.search(r"\b(?:VGT|VEGETATION|V)\s?([12])", text, re.IGNORECASE)
    number = need(
        match[1] if match else None, "which VEGETATION instrument it was (PRODUCT_ID V1... or V2...)", where,
        Remedy("Pass {} or {}.", Use(sensor="spot-vgt1"), Use(sensor="spot-vgt2")),
    )  # fmt: skip
    return sensors.get(f"spot-vgt{number}")


def _level(log: Mapping[str, str], product: str) -> Level | None:
    """Return the level: P products are at the top of the atmosphere, syntheses at the surface, as a rule."""
    text = f"{product} {log.get('PRODUCT_CODE', '')} {log.get('PROCESSING_LEVEL', '')}".upper()
    if "TOA" in text or re.search(r"KRNP|VGT_?P\b|\bP\b", text):
        return "toa"
    return "boa" if "TOC" in text or re.search(r"KRNS|\bS10?\b", text) else None


def _plane(
    files: Files,
    name: str,
    status: str | None,
    band: Band,
    log: Mapping[str, str],
    where: str,
    given: Overrides,
) -> Plane:
    href, grid = _place(files, name, log, where)
    valid = None
    if status is not None:
        map_href = _place(files, status, log, where)[0]
        if map_href.startswith(HDF4) != href.startswith(HDF4):
            raise CloudMaskError(
                f"{files.path}: {name} and {status} are of different formats. Convert all planes, or none."
            )
        valid = good_radiometry(map_href, band)
    scale = _SCALE if given.scale is None else given.scale
    nodata = 0.0 if given.nodata is None else given.nodata
    source = Source(band.name, href, band, scale, given.offset or 0.0, nodata, valid=valid)
    return Plane(source, files.href(name), grid)


def _place(files: Files, name: str, log: Mapping[str, str], where: str) -> tuple[str, Grid]:
    """Return what is opened for a plane, and where its pixels lie."""
    href = files.href(name)
    if not name.lower().endswith(".hdf"):
        return href, grid_of(href, href)
    if href.startswith("/vsi"):
        raise CloudMaskError(
            f"{files.path}: HDF4 is not read inside an archive. Unpack it and open the folder."
        )
    family = log.get("MAP_PROJ_FAMILY", "UNPROJECTED").upper()
    if "UNPROJECTED" not in family:
        raise CloudMaskError(
            f"{where}: its map projection is {log.get('MAP_PROJ_NAME', family)!r}; only plate carree"
            f" (longitude and"
            " latitude) is read. Warp the planes with GDAL to EPSG:4326 GeoTIFFs in the same folder."
        )
    remedy = "Fetch the product again."
    left, top, step = (
        figure(need(log.get(key), key, where, remedy), key, where, remedy, range_of=of)
        for key, of in (
            ("CARTO_UPPER_LEFT_X", "degrees"),
            ("CARTO_UPPER_LEFT_Y", "degrees"),
            ("MAP_PROJ_RESOLUTION", "pixel size in degrees"),
        )
    )
    # the file rounds 1/112 of a degree: 40,000 columns later that is a pixel
    step = 1 / max(round(1 / step), 1)
    return HDF4 + href, Grid("EPSG:4326", left - step / 2, top + step / 2, step, step, plane_shape(href))
