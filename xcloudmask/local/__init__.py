"""Scenes on disk, without STAC: `open` gives what `load_stac` gives.

Each format is one module with two functions: ``recognises(files)`` and ``scene(files, given)``, which reads
headers and metadata and returns a `Scene`; `build` turns any scene into a lazy DataArray.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from importlib import import_module
from os import PathLike
from os.path import expanduser
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import CloudMaskError, OptionError, check_number, names_checked
from xcloudmask.types import parse_level

if TYPE_CHECKING:
    import xarray as xr

    from xcloudmask.local.files import Files
    from xcloudmask.local.scene import Overrides, Scene

__all__ = ["open"]


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)


#: What `eopf` reads, which is known by its address alone.
ZARR = "a Sentinel-2 product of EOPF (.zarr)"
#: Modules in the order in which they are asked, and what they read, for messages.
FORMATS = {
    "safe": "a Sentinel-2 .SAFE folder or its zip",
    "landsat": "a Landsat scene folder or tar with its MTL file",
    "probav": "a Proba-V HDF5 file (L2A, S1, S5, S10)",
    "vgt": "a SPOT-VGT product folder (planes and LOG file)",
    "geotiff": "a GeoTIFF, or a folder of band files, with sensor=",
}


@names_checked
def open(
    path: str | PathLike[str],
    *,
    bands: str | Sequence[str] = "auto",
    sensor: str | None = None,
    level: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    chunks: Any = 1024,
    sun_elevation: float | None = None,
    date: str | date | datetime | None = None,
) -> xr.DataArray:
    """Open a scene on disk as a lazy, calibrated, described DataArray, the same as `load_stac` gives.

    Understood are Sentinel-2 .SAFE products and EOPF stores (.zarr), Landsat scenes with their MTL file,
    Proba-V HDF5, SPOT-VGT products, and plain GeoTIFFs or folders of band files. Headers and metadata are
    read at once, pixels when they are computed.

    Parameters
    ----------
    path : str or path-like
        Folder, file, zip (Sentinel-2) or tar (Landsat); of a Zarr store also an address of http or s3.
    bands : "auto", "all" or sequence of str
        ``"auto"``: those of blue, green, red, near infrared and the two short-wave infrareds that are there,
        which is what the models that come with the library use. ``"all"``: every reflectance band. Else
        names: common names, the sensor's own, or aliases. For a GeoTIFF whose bands bear no names: the name
        of each, in order.
    sensor : str, optional
        Needed where the product does not tell: GeoTIFFs.
    level : {"toa", "boa"}, optional
        Processing level, or any of its usual names (``"L1C"``, ``"L2A"``). Needed where the product does
        not tell; else it must agree.
    scale, offset : float, optional
        ``reflectance = number * scale + offset``, in the place of what the product says. A scale given alone
        has an offset of 0.
    nodata : float, optional
        The number that marks no data, in the place of the product's, and besides what a file itself states.
    resolution : float, optional
        Pixel size in units of the CRS. Default: that of the finest band chosen (10 m for Sentinel-2), so
        that nothing is lost; `predict` brings its input to the pixel size of the model itself. Coarser
        bands are repeated (nearest pixel), finer ones averaged over their valid pixels. Of a band that EOPF
        holds at several sizes, the nearest is read that is no coarser.
    chunks : int, tuple, dict or "auto"
        Chunks along y and x; along time and band a chunk holds one.
    sun_elevation : float, optional
        Degrees. Needed for Landsat level 1 where metadata do not tell, unless `date` is given.
    date : str, date or datetime, optional
        When the scene was taken (UTC), in the place of the product's own date. Of a GeoTIFF or a
        folder of band files the name tells it (``2020-06-15.tif``, or a product's name).

    Returns
    -------
    DataArray
        float32, dims ``(time, band, y, x)`` with a time of length 1. Reflectance from 0 to 1, temperature in
        kelvin, NaN where there is no data. Coordinates along band: common_name, band_name, center_wavelength
        and full_width_half_max (µm), min_nm, max_nm, gsd (m), kind; along time: item_id, sensor, and
        sun_elevation and sun_azimuth where known. Attributes ``level`` and ``sensor``; ``.rio.crs`` works.

    Raises
    ------
    CloudMaskError
        Where the path is of no known kind, or a file is missing or broken: the message names it.
    UnitError
        Where nothing tells what the numbers mean: the message names the argument that settles it.

    Examples
    --------
    >>> import tempfile, numpy as np, rasterio, xcloudmask.local
    >>> from rasterio.transform import from_origin
    >>> folder = tempfile.TemporaryDirectory()
    >>> form = {"driver": "GTiff", "width": 2, "height": 1, "count": 1, "dtype": "uint16", "nodata": 0}
    >>> place = {"crs": "EPSG:32632", "transform": from_origin(600000, 4900000, 10, 10)}
    >>> with rasterio.open(f"{folder.name}/T32TPQ_B04.tif", "w", **form, **place) as file:
    ...     file.write(np.array([[[0, 2500]]], dtype="uint16"))
    >>> scene = xcloudmask.local.open(folder.name, sensor="sentinel-2", level="toa", scale=1e-4)
    >>> dict(scene.sizes), scene.band.values.tolist(), scene.values.ravel().round(4).tolist()
    ({'time': 1, 'band': 1, 'y': 1, 'x': 2}, ['red'], [nan, 0.25])
    >>> folder.cleanup()
    """
    from xcloudmask.local import eopf
    from xcloudmask.local.build import build
    from xcloudmask.local.files import list_files
    from xcloudmask.stac.opening import is_zarr

    numbers = {"scale": scale, "offset": offset, "nodata": nodata, "sun_elevation": sun_elevation}
    given = _overrides(bands, sensor, level, date, numbers)
    if is_zarr(str(path)):
        address = expanduser(str(path).removeprefix("file://"))
        return build(eopf.scene(address, given, resolution), resolution, chunks)
    return build(_scene(list_files(_checked_path(path)), given), resolution, chunks)


def _checked_path(path: object) -> str:
    """Return a path as text, or say what is no path of this machine."""
    if not isinstance(path, (str, PathLike)) or not str(path).strip():
        raise OptionError(
            "path", path, hint="Give the path of a product's folder or file, as text or a Path."
        )
    if isinstance(path, str) and re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise CloudMaskError(
            f"{path}: open() reads files of this machine, and this is a URL. Give STAC items to load_stac(), "
            "or fetch the product first"
        )
    return str(path).removeprefix("file://")


def _scene(files: Files, given: Overrides) -> Scene:
    """Ask each format in turn."""
    for name in FORMATS:
        module = import_module(f"xcloudmask.local.{name}")
        if module.recognises(files):
            scene: Scene = module.scene(files, given)
            return scene
    inside = ", ".join(files.names[:6]) + (", ..." if len(files.names) > 6 else "")
    kinds = "; ".join((*FORMATS.values(), ZARR))
    content = (
        "a single file of an unknown kind" if files.is_single else f"{len(files.names)} files ({inside})"
    )
    raise CloudMaskError(
        f"{files.path}: found {content}, which is none of: {kinds}. Open the product's own folder or"
        " file, or read it with rioxarray and describe() it."
    )


def _overrides(
    bands: str | Sequence[str],
    sensor: str | None,
    level: str | None,
    when: str | date | datetime | None,
    numbers: Mapping[str, float | None],
) -> Overrides:
    from xcloudmask import sensors
    from xcloudmask.local.scene import Overrides

    for name, value in numbers.items():
        if value is not None:
            check_number(name, value)
    scale, sun_elevation = numbers["scale"], numbers["sun_elevation"]
    if scale is not None and not scale > 0:
        raise OptionError("scale", scale, hint="reflectance = number * scale + offset: give a scale above 0.")
    if sun_elevation is not None and not 0 < sun_elevation <= 90:
        raise OptionError("sun_elevation", sun_elevation, hint="Give degrees above 0 and up to 90.")
    moment, day_only = _moment(when)
    if isinstance(bands, str):
        asked: str | tuple[str, ...] = bands if bands in ("auto", "all") else (bands,)
    else:
        asked = tuple(str(name) for name in bands)
    return Overrides(
        bands=asked,
        sensor=sensors.get(sensor) if sensor is not None else None,
        level=parse_level(level) if level is not None else None,
        date=moment,
        date_only=day_only,
        **numbers,
    )


def _moment(when: str | date | datetime | None) -> tuple[datetime | None, bool]:
    """Return a naive UTC time, and whether only a day was given."""
    if when is None:
        return None, False
    try:
        day_only = not isinstance(when, datetime) and len(str(when)) <= 10
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(str(when))
    except ValueError:
        raise OptionError(
            "date", when, hint="Give ISO 8601 in UTC: '2020-01-31' or '2020-01-31T10:20:30'."
        ) from None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)), day_only
