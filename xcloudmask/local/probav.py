"""Proba-V in HDF5: L2A, and the syntheses S1, S5, S10, at the top of the atmosphere or of the canopy.

The header is read with h5py, the pixels with GDAL; GDAL knows neither their place nor their scale, so each
plane is wrapped in a small VRT. The place comes from the file's own ``crs`` where it has one (since
Collection 1), else from ``MAPPING``, whose corner is the centre of the first pixel, as in SPOT-VGT.
Reflectance is ``(number - OFFSET) / SCALE``. A pixel counts for a band where the status map says that this
band's radiometry is good; its cloud flags are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from xcloudmask import sensors
from xcloudmask.errors import AssetError, CloudMaskError, Remedy, Use
from xcloudmask.local.dates import date_in_name
from xcloudmask.local.files import Files
from xcloudmask.local.scene import Overrides, Plane, Scene, choose, good_radiometry, parse_time, settle_level
from xcloudmask.models.weights.hdf5 import import_h5py, is_hard_link, is_kept_elsewhere
from xcloudmask.stac.figures import figure
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.view import to_number
from xcloudmask.types import Band

_ENDS = (".hdf5", ".h5")
_LEVELS = ("LEVEL3", "LEVEL2A")
_BANDS = ("BLUE", "RED", "NIR", "SWIR")

#: GDAL takes this text in the place of a file's name.
_VRT = """<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}"><SRS>{crs}</SRS>
<GeoTransform>{left!r}, {dx!r}, 0, {top!r}, 0, {minus_dy!r}</GeoTransform>
<VRTRasterBand dataType="{dtype}" band="1"><SimpleSource>
<SourceFilename
relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""
_GDAL_TYPES = {"uint8": "Byte", "int16": "Int16", "uint16": "UInt16", "int32": "Int32", "uint32": "UInt32",
               "float32": "Float32", "float64": "Float64"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plane:
    """A plane of the file, as its header tells."""

    path: str
    shape: tuple[int, int]
    dtype: str
    attributes: Mapping[str, Any]

    def number(self, *names: str) -> Any:
        """Return the first attribute of these names that is there."""
        for name in names:
            if name in self.attributes and np.size(self.attributes[name]):
                return np.asarray(self.attributes[name]).ravel()[0].item()
        return None


@dataclass(frozen=True, slots=True)
class _Content:
    """What the file's header tells."""

    file: str
    planes: Mapping[tuple[str, str], _Plane]  # by band, and TOA or TOC
    status: _Plane | None
    transform: tuple[float, ...] | None  # GDAL's
    observed: Mapping[str, str] = field(default_factory=dict)


def recognises(files: Files) -> bool:
    """Tell if this is a Proba-V HDF5 file, or a folder that holds one."""
    return files.name.lower().endswith(_ENDS) if files.is_single else len(files.ending(*_ENDS)) > 0


def scene(files: Files, given: Overrides) -> Scene:
    """Return the scene of a Proba-V file."""
    file = str(files.path)
    if '"' in file or "\n" in file:  # GDAL takes the name in quotes
        raise CloudMaskError(f"{file!r}: HDF5 is not read from a path with a quote in it. Rename it.")
    if not files.is_single:
        names = files.ending(*_ENDS)
        if len(names) > 1:
            raise CloudMaskError(
                f"{files.path}: holds {len(names)} HDF5 files: {', '.join(names[:4])}. Open them one at a"
                f" time."
            )
        if files.prefix.startswith("/vsi"):
            raise CloudMaskError(f"{files.path}: HDF5 is not read inside an archive. Unpack it first.")
        file = files.href(names[0])
    content = _content(file)
    kinds = {kind for _, kind in content.planes}
    own = kinds.pop() if len(kinds) == 1 else None
    if own is None and given.level is None:
        raise CloudMaskError(
            f"{file}: holds both TOA and TOC reflectance",
            Remedy("Pass {} or {}.", Use(level="toa"), Use(level="boa")),
        )
    level = settle_level(own, given.level, file)
    kind = "TOC" if level == "boa" else "TOA"
    sensor = given.sensor or sensors.get("proba-v")
    held = [band for band in sensor.bands if (band.name, kind) in content.planes]
    planes = tuple(_plane(content, band, kind, given) for band in choose(held, given.bands, sensor))
    name = file.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
    return Scene(name, sensor, level, planes, given.date or _time(content, name))


def _content(file: str) -> _Content:
    """Read the header; no pixel."""
    h5py = import_h5py(f"{file}: Proba-V in HDF5")
    try:
        source = h5py.File(file, "r")
    except OSError as error:
        raise AssetError(f"{file}: cannot be opened as HDF5: {error}. Fetch it again.") from error
    with source:
        level = next((name for name in _LEVELS if _is_there(source, f"{name}/RADIOMETRY", file)), None)
        planes = {}
        for plane in product(_BANDS, ("TOA", "TOC")):
            path = f"{level}/RADIOMETRY/{'/'.join(plane)}"
            if _is_there(source, path, file):
                planes[plane] = _header(source[path], file)
        if not planes:
            raise CloudMaskError(
                f"{file}: no reflectance of Proba-V in it (LEVEL3/RADIOMETRY/RED/TOA, .../TOC or"
                f" LEVEL2A/...); it holds {', '.join(source) or 'nothing'}. L1C products lie on no grid and"
                " NDVI products hold no reflectance: take S1, S5, S10 or L2A."
            )
        status = f"{level}/QUALITY/SM"
        has_crs = _is_there(source, "crs", file)
        text = _text(source["crs"].attrs.get("GeoTransform")) if has_crs else None
        remedy = "Fetch the product again."
        transform = tuple(
            figure(number, "GeoTransform", file, remedy, range_of="degrees")
            for number in (text or "").split()[:6]
        )
        observed: dict[str, str] = {}
        for place in (source, source[f"{level}/RADIOMETRY/{next(iter(planes))[0]}"]):
            for name in ("OBSERVATION_START_DATE", "OBSERVATION_START_TIME"):
                if name in place.attrs:
                    observed[name] = _text(place.attrs[name]) or ""
        return _Content(
            file,
            planes,
            _header(source[status], file) if _is_there(source, status, file) else None,
            transform or None,
            observed,
        )


def _is_there(source: Any, path: str, file: str) -> bool:
    """Tell if a path leads to something in this very file; links elsewhere, or in a loop, are refused."""
    import h5py

    place = source
    for name in path.split("/"):
        links = place.id.links if isinstance(place, h5py.Group) else None
        if links is None or not links.exists(name.encode()):
            return False
        if not is_hard_link(place, name):
            raise CloudMaskError(
                f"{file}: {path} is a link, which no Proba-V product holds: it may lead to any other file."
                " Fetch the product again."
            )
        place = place[name]
    return True


def _header(dataset: Any, file: str) -> _Plane:
    import h5py

    name = dataset.name
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or dataset.dtype.kind not in "iuf":
        raise CloudMaskError(
            f"{file}: {name} is no plane of numbers (rows, columns). Fetch the product again."
        )
    if is_kept_elsewhere(dataset):
        raise CloudMaskError(
            f"{file}: the numbers of {name} are kept in other files, which no Proba-V product does. Fetch the"
            " product again."
        )
    rows, columns = dataset.shape
    return _Plane(dataset.name, (int(rows), int(columns)), str(dataset.dtype), dict(dataset.attrs))


def _text(value: Any) -> str | None:
    """Return an attribute's text; HDF5 may keep it as bytes, or as a list of one."""
    if value is None:
        return None
    first = np.asarray(value).ravel()[0]
    return first.decode() if isinstance(first, bytes) else str(first)


def _plane(content: _Content, band: Band, kind: str, given: Overrides) -> Plane:
    header = content.planes[band.name, kind]
    grid = _grid(content, header)
    if given.scale is not None:
        scale, offset = given.scale, given.offset or 0.0
    else:
        scale, offset = _calibration(content.file, header)
        offset = offset if given.offset is None else given.offset
    nodata = to_number(header.number("NO_DATA", "_FillValue")) if given.nodata is None else given.nodata
    valid = None
    if content.status is not None:
        valid = good_radiometry(_vrt(content, content.status, grid), band)
    nodata = -1.0 if nodata is None else nodata
    source = Source(band.name, _vrt(content, header, grid), band, scale, offset, nodata, valid=valid)
    return Plane(source, content.file, grid)


def _calibration(file: str, header: _Plane) -> tuple[float, float]:
    """Return scale and offset as the file states them; where it does not, those of all products."""
    where, remedy = f"{file}: {header.path}", "Pass scale= and offset=."
    divisor, factor, shift = (header.number(name) for name in ("SCALE", "scale_factor", "OFFSET"))
    if divisor is not None:
        scale = 1 / figure(divisor, "SCALE", where, remedy)
    else:
        factor = 1 / 2000 if factor is None else factor
        scale = figure(factor, "scale_factor", where, remedy, range_of="scale")
    return scale, -figure(shift or 0.0, "OFFSET", where, remedy) * scale


def _grid(content: _Content, header: _Plane) -> Grid:
    """Return where the pixels lie."""
    if content.transform is not None and len(content.transform) == 6:
        left, dx, _, top, _, minus_dy = content.transform
        return Grid("EPSG:4326", left, top, dx, -minus_dy, header.shape)
    mapping = [_text(item) or "" for item in np.asarray(header.attributes.get("MAPPING", [])).ravel()]
    ranges = ("degrees", "degrees", "pixel size in degrees", "pixel size in degrees")
    try:
        left, top, dx, dy = (
            figure(text, "MAPPING", content.file, "", range_of=name)
            for text, name in zip(mapping[3:7], ranges, strict=True)
        )
    except ValueError:
        raise CloudMaskError(
            f"{content.file}: neither crs/GeoTransform nor the attribute MAPPING of {header.path} ({mapping})"
            " tells where its pixels lie. Fetch the product again."
        ) from None
    return Grid("EPSG:4326", left - dx / 2, top + dy / 2, dx, dy, header.shape)


def _vrt(content: _Content, header: _Plane, grid: Grid) -> str:
    if header.dtype not in _GDAL_TYPES:
        raise CloudMaskError(f"{content.file}: {header.path} holds {header.dtype}, which GDAL does not read.")
    return _VRT.format(
        rows=grid.shape[0],
        columns=grid.shape[1],
        crs=grid.crs,
        left=grid.left,
        top=grid.top,
        dx=grid.res_x,
        minus_dy=-grid.res_y,
        dtype=_GDAL_TYPES[header.dtype],
        source=escape(f'HDF5:"{content.file}":/{header.path}'),
    )


def _time(content: _Content, name: str) -> datetime | None:
    day = content.observed.get("OBSERVATION_START_DATE")
    if day:
        hour = content.observed.get("OBSERVATION_START_TIME")
        return parse_time(f"{day}T{hour}" if hour else day)
    return parse_time(date_in_name(name))
