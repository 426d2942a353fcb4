"""Sentinel-2 products as ESA delivers them: a .SAFE folder or its zip, level 1C or 2A, old naming or new.

Scale and offset are read from the product's own metadata, never assumed: since processing baseline 04.00
(January 2022) the numbers carry an offset, -1000 as a rule. Saturated pixels (65535) stay what they are, very
bright: they are most often clouds.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, Remedy, UnitError, Use
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
from xcloudmask.stac.figures import figure
from xcloudmask.stac.item_plan import Source
from xcloudmask.types import Band, Sensor

_PRODUCT_XML = re.compile(
    r"(^|/)(MTD_MSIL(1C|2A)|S2\w_\w{4}_MTD_(SAF|DMP)L(1C|2A)_[^/]*)\.xml$", re.IGNORECASE
)
_TILE_XML = re.compile(r"(^|/)(MTD_TL|S2\w_\w{4}_MTD_L(1C|2A)_TL_[^/]*)\.xml$")
_GRANULE = re.compile(r"(^|/)GRANULE/([^/]+)/")
#: ..._B04.jp2 (L1C), ..._B04_10m.jp2 (L2A)
_IMAGE = re.compile(r"_(B\d[0-9A])(?:_(\d\d)m)?\.jp2$", re.IGNORECASE)
#: The metadata number bands from 0, in this order.
_BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

_Xml = ElementTree.Element


def recognises(files: Files) -> bool:
    """Tell if this is a Sentinel-2 product."""
    return any(_PRODUCT_XML.search(name) for name in files.names)


def scene(files: Files, given: Overrides) -> Scene:
    """Return the scene of a Sentinel-2 product."""
    name = files.only(_PRODUCT_XML, "Sentinel-2 products")
    where = f"{files.path}/{name}"
    product = _parse(files, name)
    granule = _one_granule(files)
    level = settle_level("L2A" if "L2A" in name.rsplit("/", 1)[-1].upper() else "L1C", given.level, where)
    sensor = given.sensor or _sensor(product, where)
    images = _images(files, granule, sensor)
    held = [sensor.band(name) for name in images]
    warn_of_absent(sensor.bands, held, given, where)
    chosen = choose(held, given.bands, sensor)
    scale, offsets = _numbers(product, level, where, given)
    try:
        elevation, azimuth = _sun(files, granule)
    except CloudMaskError:
        if given.sun_elevation is None:
            raise
        elevation = azimuth = None
    planes = tuple(
        _plane(files, images[band.name], band, scale, offsets.get(band.name, 0.0), given) for band in chosen
    )
    return Scene(
        item_id=_name(product, files),
        sensor=sensor,
        level=level,
        planes=planes,
        time=given.date or parse_time(_text(product, "PRODUCT_START_TIME")),
        sun_elevation=elevation if given.sun_elevation is None else given.sun_elevation,
        sun_azimuth=azimuth,
    )


def _plane(files: Files, name: str, band: Band, scale: float, offset: float, given: Overrides) -> Plane:
    href = files.href(name)
    nodata = 0.0 if given.nodata is None else given.nodata
    return Plane(Source(band.name, href, band, scale, offset, nodata), href, grid_of(href, href))


def _parse(files: Files, name: str) -> _Xml:
    try:
        return ElementTree.fromstring(files.read_bytes(name))
    except ElementTree.ParseError as error:
        raise CloudMaskError(
            f"{files.path}/{name}: not well-formed XML: {error}. Fetch the product again."
        ) from error


def _all(root: _Xml, tag: str) -> list[_Xml]:
    """Find elements by name alone: their namespace holds the version of the format."""
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == tag]


def _text(root: _Xml, *tags: str) -> str | None:
    """Return the text of the first element that has one of the names, the first name first."""
    return next((elements[0].text for tag in tags if (elements := _all(root, tag))), None)


def _one_granule(files: Files) -> str:
    """Return the name of the tile's folder."""
    granules = sorted({match[2] for name in files.names if (match := _GRANULE.search(name))})
    if len(granules) == 1:
        return granules[0]
    if not granules:
        raise CloudMaskError(f"{files.path}: there is no GRANULE folder in it. Fetch the product again.")
    raise CloudMaskError(
        f"{files.path}: an old product of {len(granules)} tiles, each on its own grid:"
        f" {', '.join(granules[:3])}, ..."
        " Move all but one of the folders in GRANULE elsewhere, and open it again."
    )


def _sensor(product: _Xml, where: str) -> Sensor:
    platform = need(
        _text(product, "SPACECRAFT_NAME"),
        "SPACECRAFT_NAME",
        where,
        Remedy("Pass {} (or b, c).", Use(sensor="sentinel-2a")),
    )
    sensor = sensors.identify(platform)
    if sensor is None:
        raise CloudMaskError(
            f"{where}: SPACECRAFT_NAME is {platform!r}, which is no Sentinel-2 known here. Pass sensor=."
        )
    return sensor


def _images(files: Files, granule: str, sensor: Sensor) -> dict[str, str]:
    """Return the file of each band, at the pixel size nearest to the band's own, in the bands' order."""
    best: dict[str, tuple[float, str]] = {}
    for name in files.names:
        match = _IMAGE.search(name)
        if match is None or f"GRANULE/{granule}/IMG_DATA/" not in name:
            continue
        band = sensor.band(match[1].upper())
        size = float(match[2] or band.gsd or 10)
        rank = abs(size - (band.gsd or size))
        if band.name not in best or rank < best[band.name][0]:
            best[band.name] = (rank, name)
    if not best:
        raise CloudMaskError(
            f"{files.path}: no band image (*_B04.jp2 or *_B04_10m.jp2) in GRANULE/{granule}/IMG_DATA."
            " Fetch the product again."
        )
    return {band.name: best[band.name][1] for band in sensor.bands if band.name in best}


def _numbers(product: _Xml, level: str, where: str, given: Overrides) -> tuple[float, dict[str, float]]:
    """Return the scale and each band's offset: reflectance = number * scale + offset."""
    quantification = _text(
        product,
        *(("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE") if level == "boa" else ()),
        "QUANTIFICATION_VALUE",
    )
    if given.scale is not None:
        scale = given.scale
    else:
        remedy = "Pass scale= (1e-4 for ESA's products) and offset=."
        text = need(quantification, "QUANTIFICATION_VALUE", where, remedy)
        scale = 1 / figure(text, "QUANTIFICATION_VALUE", where, remedy)
    if given.offset is not None:
        return scale, dict.fromkeys(_BAND_IDS, given.offset)
    elements = _all(product, "BOA_ADD_OFFSET" if level == "boa" else "RADIO_ADD_OFFSET")
    baseline = (_text(product, "PROCESSING_BASELINE") or "").strip()
    if not elements and re.match(r"\d\d\.\d\d$", baseline) and "04.00" <= baseline < "90":
        raise UnitError(
            f"{where}: processing baseline {baseline} is of those whose numbers carry an offset (since"
            " 04.00), but the file states none. Was it altered, or the image harmonised?",
            Remedy(
                "Pass {} if the numbers are ESA's own, {} if 1000 was taken from them already.",
                Use(offset=-0.1),
                Use(offset=0),
            ),
        )
    remedy = "Fetch the product again, or pass offset=."
    offsets = {}
    for element in elements:
        index = figure(element.attrib.get("band_id"), "band_id", where, remedy)
        number = figure(element.text, "ADD_OFFSET", where, remedy)
        if index != int(index) or _BAND_IDS[int(index)] in offsets:
            raise UnitError(
                f"{where}: band_id {index:g} of its offsets is no whole number or repeats. {remedy}"
            )
        offsets[_BAND_IDS[int(index)]] = number * scale
    return scale, offsets


def _name(product: _Xml, files: Files) -> str:
    uri = _text(product, "PRODUCT_URI", "PRODUCT_URI_1C", "PRODUCT_URI_2A") or files.name
    return uri.strip().removesuffix(".zip").removesuffix(".SAFE")


def _sun(files: Files, granule: str) -> tuple[float | None, float | None]:
    """Return the tile's mean elevation and azimuth; for information, ESA has divided by the sine already."""
    names = [name for name in files.names if _TILE_XML.search(name) and f"GRANULE/{granule}/" in name]
    if not names:
        return None, None
    where, remedy = f"{files.path}/{names[0]}", "Fetch the product again, or pass sun_elevation=."
    for angles in _all(_parse(files, names[0]), "Mean_Sun_Angle"):
        zenith, azimuth = _text(angles, "ZENITH_ANGLE"), _text(angles, "AZIMUTH_ANGLE")
        if zenith:
            return (
                90 - figure(zenith, "ZENITH_ANGLE", where, remedy),
                figure(azimuth, "AZIMUTH_ANGLE", where, remedy) if azimuth else None,
            )
    return None, None
