"""Plain raster files: one GeoTIFF of several bands, or a folder of files of one band each.

Such files tell little: which band is which comes from band descriptions, file names or ``bands=``; what the
numbers mean from the file's own scale and offset, from what is known of the sensor's product, or from the
caller. What nobody tells is an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np

from xcloudmask import sensors
from xcloudmask.engine.input_checks import OF_PICTURE, PICTURE
from xcloudmask.errors import BandError, CloudMaskError, Remedy, UnitError, Use
from xcloudmask.local.build import grid_of, opened
from xcloudmask.local.dates import date_in_name, without_dates
from xcloudmask.local.files import Files
from xcloudmask.local.landsat import Numbers, raw_numbers
from xcloudmask.local.scene import Overrides, Plane, Scene, choose, good_radiometry, parse_time, settle_level
from xcloudmask.scene.sun import descending_pass, sun_position
from xcloudmask.stac.figures import check_sun, figure
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source, ValidRule
from xcloudmask.types import Band, Sensor

_RASTERS = (".tif", ".tiff", ".jp2")
#: Of a file's own name, where it follows its agency's rules: sensor, and which group of it is the level.
_NAMES: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"PROBAV_(?:S1|S5|S10)_(?P<level>TOA|TOC)_\w{6}_\d{8}_", re.I), "proba-v"),
    (re.compile(r"PROBAV_L2A_\d{8}_", re.I), "proba-v"),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One band of one file, as its header tells."""

    label: str
    href: str  # what rasterio opens
    file: str  # as the user knows it
    index: int  # band of the file, from 1
    dtype: str
    scale: float  # as the file states it, 1 and an offset of 0 mean nothing
    offset: float
    nodata: float | None
    date: str | None = None  # the file's own
    is_named: bool = True  # `label` is more than the number of a band in its file


def recognises(files: Files) -> bool:
    """Tell if there are raster files."""
    name = files.name.lower()
    return name.endswith(_RASTERS) if files.is_single else bool(files.ending(*_RASTERS))


def scene(files: Files, given: Overrides) -> Scene:
    """Return the scene of a raster file, or of a folder of them."""
    where = str(files.path)
    layers = read_layers(files)
    known = told_by_names(layers)
    sensor = given.sensor or (sensors.get(known["sensor"]) if known else None)
    if sensor is None:
        raise CloudMaskError(
            f"{where}: nothing tells which instrument took it",
            Remedy(
                f"Pass {{}}, one of {', '.join(sensors.names())}."
                + ("" if files.is_single else f" If it holds several scenes: {_SEVERAL}"),
                Use(sensor=...),
            ),
        )
    given = _dated(files, layers, given)
    layers, asked = _named_by_caller(layers, given, sensor)
    held = [(layer, band) for layer, band in zip(layers, _match(layers, sensor, where), strict=True) if band]
    by_band = {band.name: layer for layer, band in held}
    chosen = choose([band for band in sensor.bands if band.name in by_band], asked, sensor)
    raw = _is_raw_landsat(sensor, given, by_band.values())
    level = settle_level("toa" if raw and given.level is None else known.get("level"), given.level, where)
    time = given.date or parse_time(_tagged(layers))
    grids = {band.name: grid_of(by_band[band.name].href, by_band[band.name].file) for band in chosen}
    elevation = given.sun_elevation
    if raw and elevation is None:
        elevation = _elevation(min(grids.values(), key=lambda grid: grid.res_x), given)
    planes = []
    for band in chosen:
        layer = by_band[band.name]
        sun = check_sun(elevation, where, _SUN_REMEDY) if raw else None
        numbers = _numbers(layer, band, sensor, given, sun)
        nodata = _nodata(layer, sensor, given, raw=raw)
        valid = _status_map(files, layer, band) if known else None
        source = Source(
            band.name, layer.href, band, numbers.scale, numbers.offset, nodata, numbers.k1, numbers.k2,
            layer.index, valid=valid,
        )  # fmt: skip
        planes.append(Plane(source, layer.file, grids[band.name]))
    name = files.path.stem if files.is_single else files.name
    return Scene(name, sensor, level, tuple(planes), time, elevation)


_SEVERAL = (
    "give each scene by itself, its file or a folder of its own. `xcloudmask predict SCENE... --out-dir "
    "MASKS` writes a mask for each, `xcloudmask stream SCENE... OUT.zarr` all of them into one store."
)
_SUN_REMEDY = Remedy(
    "These look like Landsat level-1 numbers without their MTL file. Pass {} (degrees), or {} (UTC) to have"
    " it worked out; or {} and {} if they are something else.",
    Use(sun_elevation=...), Use(date="YYYY-MM-DDTHH:MM"), Use(scale=...), Use(offset=...),
)  # fmt: skip


def read_layers(files: Files) -> list[Layer]:
    """Return every band of every raster file; reads headers only."""
    if files.is_single:
        return _layers_of(str(files.path), str(files.path), alone=True)
    names = files.ending(*_RASTERS)
    layers = [layer for name in names for layer in _layers_of(files.href(name), files.href(name))]
    _check_one_scene(files, layers)
    # What all files begin with is the scene's name and tells nothing of the band.
    shared = commonprefix([layer.label for layer in layers])  # noqa: RUF071  (labels, not paths)
    start = max(shared.rfind(mark) for mark in "_-. ") + 1
    return [replace(layer, label=layer.label[start:]) for layer in layers] if len(layers) > 1 else layers


def _check_one_scene(files: Files, layers: Sequence[Layer]) -> None:
    """Refuse a folder of several scenes: of each band the last file's would be taken, without a word."""
    same: dict[str, set[str]] = defaultdict(set)
    bands: dict[str, int] = defaultdict(int)
    for layer in layers:
        same[without_dates(layer.label)].add(layer.file)
        bands[layer.file] += 1
    for group in same.values():
        names = sorted(file.removeprefix(f"{files.prefix}/") for file in group)
        # Band files of several resolutions may share a name; files of several bands that do are scenes.
        if len({date_in_name(name) for name in names}) > 1 or len(names) > 1 < min(bands[f] for f in group):
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            raise CloudMaskError(f"{files.path}: holds {len(names)} scenes ({shown}), not one: {_SEVERAL}")


def _dated(files: Files, layers: Sequence[Layer], given: Overrides) -> Overrides:
    """Take the date in the names of files or folder where the caller gives none."""
    inside = () if files.is_single else {layer.file.removeprefix(f"{files.prefix}/") for layer in layers}
    names = {date_in_name(name) for name in inside} - {None} or {date_in_name(files.name)}
    named = names.pop() if len(names) == 1 else None
    when, tagged = parse_time(named), parse_time(_tagged(layers))
    if named is None or when is None or given.date is not None:
        return given
    # The tag tells when the file was made, maybe in local time: that is not before the scene was taken.
    if tagged is not None and tagged < when - timedelta(days=1):
        raise CloudMaskError(
            f"{files.path}: its name says {named}, its tag TIFFTAG_DATETIME the earlier {tagged.isoformat()}",
            Remedy("Pass {} if the name is right, or else rename it.", Use(date=named)),
        )
    return replace(given, date=when, date_only=len(named) == 10)


def _tagged(layers: Sequence[Layer]) -> str | None:
    return next((layer.date for layer in layers if layer.date), None)


def _layers_of(href: str, file: str, *, alone: bool = False) -> list[Layer]:
    stem = file.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
    with opened(href, file, "fetch it again, or leave it out of the folder") as dataset:
        if alone and {"flag_values", "flag_meanings"} <= set(dataset.tags()):
            raise BandError(f"{file} is a mask: predict takes the reflectance it was made from")
        return [
            Layer(
                label=_label(dataset, index) or (stem if dataset.count == 1 else f"{stem} band {index}"),
                href=href,
                file=file,
                index=index,
                dtype=dataset.dtypes[index - 1],
                scale=dataset.scales[index - 1],
                offset=dataset.offsets[index - 1],
                nodata=dataset.nodatavals[index - 1],
                date=_date(dataset.tags().get("TIFFTAG_DATETIME")),
                is_named=dataset.count == 1 or _is_name(_label(dataset, index), index),
            )
            for index in range(1, dataset.count + 1)
        ]


def _label(dataset: Any, index: int) -> str | None:
    """Return what the file calls a band: its description, or the tag that VITO writes."""
    label: str | None = dataset.descriptions[index - 1] or dataset.tags(index).get("BAND")
    return label


def _is_name(label: str | None, index: int) -> bool:
    """Tell if a description names a band: what only counts ("Band 1") says nothing of the sensor's bands."""
    counts = re.fullmatch(r"(?:band|layer|channel|bidx)?[ _-]?0*(\d+)", label or "", re.IGNORECASE)
    return bool(label) and not (counts and int(counts[1]) == index)


def _date(tag: str | None) -> str | None:
    """Return TIFF's ``YYYY:MM:DD HH:MM:SS`` as ISO 8601."""
    match = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)\s*", tag or "")
    return f"{match[1]}-{match[2]}-{match[3]}T{match[4]}" if match else None


def told_by_names(layers: Sequence[Layer]) -> Mapping[str, str]:
    """Return sensor, level and day where the files bear an agency's names."""
    for layer in layers:
        for pattern, sensor in _NAMES:
            match = pattern.search(layer.file)
            if match:
                groups = {key: value for key, value in match.groupdict().items() if value}
                return {"level": "toa", **groups, "sensor": sensor}
    return {}


def _named_by_caller(
    layers: list[Layer], given: Overrides, sensor: Sensor
) -> tuple[list[Layer], str | tuple[str, ...]]:
    """Take ``bands=`` as the names of the bands in order, where the file itself names none of them."""
    if isinstance(given.bands, str) or any(sensors.match(_names(layers), sensor)):
        return layers, given.bands
    if len(given.bands) != len(layers):
        raise BandError(
            f"{layers[0].file}: {len(layers)} bands that bear no names, and bands= gives {len(given.bands)}."
            f" Give one name a band, in the file's order, out of {', '.join(b.name for b in sensor.bands)}."
        )
    pairs = zip(layers, given.bands, strict=True)
    return [replace(layer, label=name, is_named=True) for layer, name in pairs], given.bands


def _names(layers: Sequence[Layer]) -> list[str]:
    """Return what each band is called, nothing where it is only counted."""
    return [layer.label if layer.is_named else "" for layer in layers]


def _match(layers: Sequence[Layer], sensor: Sensor, where: str) -> tuple[Band | None, ...]:
    bands = sensors.match(_names(layers), sensor)
    if not any(bands):
        raise BandError(
            f"{where}: no band of {sensor.name} ({', '.join(b.name for b in sensor.bands)}) is found in what"
            f" its files and bands are called: {', '.join(repr(layer.label) for layer in layers)}",
            Remedy("Pass {}: one name a band, in the file's order.", Use(bands=[...])),
        )
    return bands


def _is_raw_landsat(sensor: Sensor, given: Overrides, layers: Iterable[Layer]) -> bool:
    """Whether these must be level-1 numbers of Landsat 8 or 9: 16 bits, no scale, not said to be level 2."""
    return (
        sensor.name in ("landsat-8", "landsat-9")
        and given.scale is None
        and given.level != "boa"
        and all(la.dtype == "uint16" and la.scale == 1 and la.offset == 0 for la in layers)
    )


def _elevation(grid: Grid, given: Overrides) -> float | None:
    """Return the sun's elevation over the middle of the scene at the time given."""
    if given.date is None:
        return None
    from rasterio.warp import transform

    left, bottom, right, top = grid.bounds
    (longitude,), (latitude,) = transform(grid.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
    when = descending_pass(given.date, latitude, longitude) if given.date_only else given.date
    return sun_position(when, latitude, longitude)[0]


def _numbers(
    layer: Layer, band: Band, sensor: Sensor, given: Overrides, raw_elevation: float | None
) -> Numbers:
    """Settle scale and offset: the caller's, the file's, the product's; floating point is reflectance."""
    default = dict(sensor.metadata)
    is_reflectance = band.kind == "reflectance"
    if given.scale is not None and is_reflectance:
        return Numbers(given.scale, given.offset or 0.0)
    if (layer.scale, layer.offset) != (1.0, 0.0):
        if is_reflectance:
            remedy = "Pass scale= and offset=."
            figure(layer.scale, "its scale", layer.file, remedy, range_of="scale")
            figure(layer.offset, "its offset", layer.file, remedy, range_of="offset")
        return Numbers(layer.scale, layer.offset)
    if raw_elevation is not None and (numbers := raw_numbers(sensor, band, raw_elevation)):
        return numbers
    if np.issubdtype(np.dtype(layer.dtype), np.floating):
        return Numbers(1.0, given.offset or 0.0)
    if is_reflectance and layer.dtype == "uint8":
        raise UnitError(
            f"{layer.file}: band {layer.label!r} is {layer.dtype} and states no scale: this {PICTURE}.",
            Remedy("If it is reflectance times 255, pass {}", Use(**OF_PICTURE.options)),
        )
    if is_reflectance and "scale" in default:
        return Numbers(default["scale"], default.get("offset", 0.0))
    raise UnitError(
        f"{layer.file}: band {layer.label!r} holds whole numbers ({layer.dtype}) and states no scale, so"
        " their unit is unknown. Pass scale= and offset= (reflectance = number * scale + offset; Sentinel-2:"
        " 1e-4 and 0, or -0.1 since January 2022; Landsat Collection 2 level 2: 2.75e-5 and -0.2)."
    )


def _nodata(layer: Layer, sensor: Sensor, given: Overrides, *, raw: bool) -> float | None:
    if given.nodata is not None:
        return given.nodata
    if layer.nodata is not None:
        return layer.nodata
    if raw:
        return 0.0
    value = dict(sensor.metadata).get("nodata")
    return None if value is None or np.issubdtype(np.dtype(layer.dtype), np.floating) else float(value)


def _status_map(files: Files, layer: Layer, band: Band) -> ValidRule | None:
    """Return the rule of a Proba-V status map that lies beside: ``..._SM.tif``."""
    if files.is_single:
        beside = Path(re.sub(r"_RADIOMETRY(\.\w+)$", r"_SM\1", layer.file, flags=re.I))
        href = str(beside) if beside.is_file() and str(beside) != layer.file else None
    else:
        href = next((files.href(name) for name in files.ending("_sm.tif", "_sm.tiff")), None)
    return None if href is None else good_radiometry(href, band)
