"""What a plot shows: which bands, pixels, axes and colours; arrays and names. No matplotlib here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import GAP_FACE, GAP_LINES, NO_DATA, class_colours
from xcloudmask.errors import BandError, CloudMaskError, OptionError, warn_user
from xcloudmask.scene.bands import find_band, labels_of, sensor_of
from xcloudmask.scene.dims import BAND_DIMS, spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of
from xcloudmask.scene.same_grid import labels_along
from xcloudmask.scene.scene import read_scene
from xcloudmask.scene.units import declared_nodata
from xcloudmask.types import Band

#: A plot has no more pixels than this along a side.
LIMIT = 1500
#: Of several times in one picture.
MOST_TIMES = 36
#: The eye sees steps in the dark better than a linear scale shows them.
GAMMA = 1 / 1.5
TRUE_COLOUR = ("red", "green", "blue")
#: Tried in turn where there is no true colour.
FALSE_COLOURS = (("nir", "red", "green"), ("swir16", "nir", "red"), ("swir22", "swir16", "nir"))
#: Left over a scene as the picture shows them.
UNTINTED = frozenset({"clear", "not_cloud", "land"})

Pixels = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the picture lies: edges (left, right, bottom, top) and what the axes count."""

    extent: tuple[float, float, float, float]
    xlabel: str
    ylabel: str

    @property
    def unit(self) -> str:
        """What both axes count."""
        return "°" if "°" in self.xlabel else "km" if "(km" in self.xlabel else self.ylabel

    @property
    def shape(self) -> float:
        """Height over width, as drawn."""
        left, right, bottom, top = self.extent
        return abs((top - bottom) / (right - left)) * self.aspect

    @property
    def aspect(self) -> float:
        """How much longer a unit of the vertical axis is drawn: degrees of longitude shrink polewards."""
        if not self.xlabel.startswith("Longitude"):
            return 1.0
        middle = math.radians((self.extent[2] + self.extent[3]) / 2)
        return 1 / max(math.cos(middle), 0.1)


def bands_to_show(da: xr.DataArray, dim: str, rgb: str | Sequence[str]) -> tuple[list[int], str]:
    """Return the positions of the bands to show (three or one), and what that picture is called.

    The default, true colour, gives way to what there is; other bands must be there if asked for.
    """
    bands, labels = read_scene(da, measured=False).bands, labels_of(da, dim)
    wanted = (rgb,) if isinstance(rgb, str) else tuple(rgb)
    if len(wanted) not in (1, 3):
        raise CloudMaskError(f"rgb={rgb!r} must name three bands, or one for a grey picture")
    tries = (wanted, *FALSE_COLOURS) if wanted == TRUE_COLOUR else (wanted,)
    for names in tries:
        positions = [_position(bands, labels, name) for name in names]
        if None not in positions:
            title = "true colour" if names == TRUE_COLOUR else ", ".join(names)
            return [i for i in positions if i is not None], title
    if len(tries) == 1:
        missing = [n for n in wanted if _position(bands, labels, n) is None]
        there = dict.fromkeys([*(b.common_name or b.name for b in bands), *labels])
        raise BandError(f"rgb names {', '.join(missing)}, which the array lacks; it has {', '.join(there)}")
    first = next((i for i, band in enumerate(bands) if band.kind == "reflectance"), 0)
    return [first], bands[first].common_name or labels[first]


def _position(bands: Sequence[Band], labels: Sequence[str], name: str) -> int | None:
    same = [
        i for i, band in enumerate(bands) if name.casefold() in (labels[i].casefold(), band.name.casefold())
    ]
    return same[0] if len(same) == 1 else find_band(bands, name)


def picture_of(da: xr.DataArray, rgb: str | Sequence[str]) -> tuple[xr.DataArray, str]:
    """Return the bands to show as float (band, y, x), NaN for no data, still lazy; and the picture's name."""
    y, x = spatial_dims(da)
    dim = next((name for name in BAND_DIMS if name in da.dims), None)
    if dim is None:
        known = next((da.coords[n] for n in ("common_name", *BAND_DIMS) if n in da.coords), None)
        title = str(known.values) if known is not None and known.ndim == 0 else str(da.name or "one band")
        shown = da.expand_dims("band")
        dim = "band"
    else:
        positions, title = bands_to_show(da, dim, rgb)
        shown = da.isel({dim: positions})
    gaps = declared_nodata(da.attrs)
    numbers = shown.astype(np.float32)
    numbers = numbers.where(~shown.isin(gaps)) if gaps else numbers
    return numbers.transpose(dim, y, x), title


def name_of(da: xr.DataArray) -> str:
    """Return the short title of the array's sensor, or nothing."""
    try:
        sensor = sensor_of(da)
    except CloudMaskError:
        return ""
    return re.split(r",| \(", sensor.title)[0] if sensor is not None else ""


def times_of(arrays: Sequence[xr.DataArray], time: Any) -> list[int] | None:
    """Return the positions of several times that are asked for: all, a list, a slice; None for one."""
    timed = next((da for da in arrays if "time" in da.dims), None)
    if timed is None or not (isinstance(time, (list, tuple, slice, np.ndarray)) or time == "all"):
        return None
    places = np.arange(timed.sizes["time"])
    if isinstance(time, slice) and not isinstance(time.start or time.stop or 0, (int, np.integer)):
        places = places[timed.indexes["time"].slice_indexer(time.start, time.stop, time.step)]
    elif isinstance(time, slice):
        places = places[time]
    elif not isinstance(time, str):
        places = np.array([_time_index(timed, len(places), one) for one in time], int)
    if not 0 < len(places) <= MOST_TIMES:
        raise CloudMaskError(
            f"time={time!r} is {len(places)} times, and a picture shows 1 to {MOST_TIMES}",
            "Choose with a list of positions or dates, or a slice",
        )
    return [int(place) for place in places]


def one_time(arrays: Sequence[xr.DataArray], time: Any, call: str = "plot") -> tuple[list[xr.DataArray], str]:
    """Return the arrays at one time, and its name for the title; other leading dimensions must be 1 long."""
    out = []
    counts = {da.sizes["time"] for da in arrays if "time" in da.dims}
    if len(counts) > 1:
        raise CloudMaskError(
            f"the scene and the mask have other numbers of times ({sorted(counts)}): select the same in both"
        )
    count = counts.pop() if counts else 0
    timed = next((da for da in arrays if "time" in da.dims), None)
    index = 0 if timed is None else _time_index(timed, count, time, call)
    for da in arrays:
        da = da.isel(time=index) if "time" in da.dims else da
        keep = {*spatial_dims(da), *BAND_DIMS, "class"}
        for dim in [dim for dim in da.dims if dim not in keep]:
            if da.sizes[dim] > 1:
                raise CloudMaskError(
                    f"dimension {dim!r} has {da.sizes[dim]} entries and a picture shows one: select it with "
                    f".isel({dim}=0)"
                )
            da = da.isel({dim: 0})
        out.append(da)
    return out, _time_name(out[0], index, count)


def _time_index(da: xr.DataArray, count: int, time: Any, call: str = "plot") -> int:
    if time is None:
        if count > 1:
            warn_user(
                f"the array has {count} times: drawing the first, {_time_name(da.isel(time=0), 0, 0) or 0}. "
                f"Choose with {call}(time=...): 0 to {count - 1}, or a date"
                + ("; time='all' draws all" if call == "plot" and count <= MOST_TIMES else ""),
                UserWarning,
            )
        return 0
    if isinstance(time, (int, np.integer)) and not isinstance(time, bool):
        if not -count <= time < count:
            raise OptionError("time", time, hint=f"The array has {count} times: 0 to {count - 1}, or a date.")
        return int(time) % count
    index = labels_along(da, "time")
    try:
        if index is None:
            raise KeyError(time)
        at = np.atleast_1d(np.arange(count)[index.get_loc(time)])
        return int(at[0])
    except (KeyError, TypeError, ValueError):
        names = [] if index is None else [str(label) for label in index[:12]]
        raise OptionError("time", time, allowed=names, hint=f"Or a position, 0 to {count - 1}.") from None


def _time_name(da: xr.DataArray, index: int, count: int) -> str:
    coord = da.coords.get("time")
    if count <= 1 and "composite_of" in da.attrs:
        return str(da.attrs["composite_of"])
    name = ""
    if coord is not None and coord.ndim == 0 and coord.dtype.kind == "M" and not np.isnat(coord.values):
        name = np.datetime_as_string(coord.values, unit="m").replace("T", " ")
    return f"{name} ({index + 1} of {count})".strip() if count > 1 else name


def thin(da: xr.DataArray, limit: int = LIMIT) -> xr.DataArray:
    """Return every n-th pixel, (..., y, x), north up, west left, no side longer than `limit`; lazy."""
    y, x = spatial_dims(da)
    da = da.transpose(..., y, x)
    steps = {dim: slice(None, None, -(-da.sizes[dim] // limit)) for dim in (y, x)}
    for dim, falling in ((y, True), (x, False)):
        values = _ruler(da, dim)
        if values is not None and (values[0] > values[-1]) != falling and len(values) > 1:
            da = da.isel({dim: slice(None, None, -1)})
    return da.isel(steps)


def frame_of(da: xr.DataArray) -> Frame:
    """Return edges and labels for an array's axes: km, degrees, or pixels where nothing tells."""
    import rioxarray  # noqa: F401  registers .rio

    y, x = spatial_dims(da)
    rulers = _ruler(da, x), _ruler(da, y)
    if rulers[0] is None or rulers[1] is None:
        return Frame((0, da.sizes[x], da.sizes[y], 0), "Column (pixels)", "Row (pixels)")
    (left, right), (bottom, top) = (_edges(ruler) for ruler in rulers if ruler is not None)
    crs = da.rio.crs
    extent = (left, right, bottom, top)
    if (crs is not None and crs.is_geographic) or (crs is None and y in ("lat", "latitude")):
        return Frame(extent, "Longitude (°)", "Latitude (°)")
    if crs is None:
        return Frame(extent, x, y)
    unit = str(crs.linear_units or "").lower()
    code = crs.to_epsg()
    place = f", EPSG:{code}" if code else ""
    if unit in ("metre", "meter", "m"):
        return Frame(
            (left / 1000, right / 1000, bottom / 1000, top / 1000), f"Easting (km{place})", "Northing (km)"
        )
    return Frame(extent, f"Easting ({unit or 'units of the CRS'}{place})", f"Northing ({unit or 'same'})")


def _ruler(da: xr.DataArray, dim: str) -> npt.NDArray[np.float64] | None:
    """Return the coordinate of a dimension if it is one of numbers that rise or fall."""
    if dim not in da.coords or da[dim].dtype.kind not in "fiu" or da.sizes[dim] < 2:
        return None
    values = np.asarray(da[dim].values, float)
    steps = np.diff(values)
    return values if (steps > 0).all() or (steps < 0).all() else None


def _edges(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    half = abs(float(values[-1] - values[0])) / (len(values) - 1) / 2
    return float(values.min()) - half, float(values.max()) + half


def stretch_colours(values: Pixels, percentiles: tuple[float, float]) -> Pixels:
    """Return (y, x, 4): each band between two of its percentiles, transparent where one has no number.

    Examples
    --------
    >>> bands = np.array([[[0.0, 0.5, 1.0, np.nan]]], "f4")
    >>> stretch_colours(bands, (0, 100))[0, :, 3].tolist()
    [1.0, 1.0, 1.0, 0.0]
    """
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise CloudMaskError(f"stretch={percentiles!r} must be two rising percentiles, such as (2, 98)")
    finite = np.isfinite(values).all(axis=0)
    out = np.zeros((*values.shape[1:], 4), np.float32)
    if not finite.any():
        return out
    for channel in range(3):
        band = values[channel if len(values) == 3 else 0]
        dark, light = np.percentile(band[finite], (low, high))
        span = light - dark
        level = (np.where(finite, band, dark) - dark) / span if span > 0 else np.full(band.shape, 0.5)
        out[..., channel] = np.where(finite, np.clip(level, 0, 1) ** GAMMA, 0)
    out[..., 3] = finite
    return out


def kind_of(da: xr.DataArray) -> str:
    """Return what an array is: a scene, classes, probabilities or booleans."""
    if "class" in da.coords and da.dtype.kind == "f":
        return "probabilities"
    if da.dtype.kind == "b":
        return "boolean"
    return "classes" if "flag_values" in da.attrs else "scene"


def check_pair(
    scene_or_mask: xr.DataArray, mask: xr.DataArray | None
) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """Return the scene and the mask, one of which there need not be, if they can be drawn together."""
    first, mask = as_mask(scene_or_mask), None if mask is None else as_mask(mask)
    scene: xr.DataArray | None = first
    if mask is None and kind_of(first) != "scene":
        scene, mask = None, first
    if mask is not None and kind_of(mask) == "scene":
        codes_of(mask)  # says how to come by a mask
    arrays = [da for da in (scene, mask) if da is not None]
    sizes = [tuple(da.sizes[dim] for dim in spatial_dims(da)) for da in arrays]
    if len(set(sizes)) > 1:
        raise CloudMaskError(
            f"the scene has {sizes[0]} rows and columns, the mask {sizes[1]}: take this scene's own mask, "
            "or bring it to its grid with mask.rio.reproject_match(scene)"
        )
    for da in arrays:
        if 0 in da.shape:
            raise CloudMaskError(f"there is nothing to draw: the array's sizes are {dict(da.sizes)}")
    return scene, mask


def class_codes(mask: xr.DataArray) -> dict[str, int]:
    """Return the codes of a mask's classes, no data included."""
    return {"masked": 1} if mask.dtype.kind == "b" else {**codes_of(mask), "no_data": NO_DATA}


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Return the three numbers of a colour such as ``#E69F00``."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def paint(
    values: npt.NDArray[Any], codes: Mapping[str, int], skip: Iterable[str] = (), *, gaps: bool = False
) -> Bytes:
    """Return (y, x, 4) colours of class codes; what is skipped is transparent, no data that, or hatched.

    Examples
    --------
    >>> paint(np.array([[0, 1]]), {"clear": 0, "cloud": 1}, ["clear"]).tolist()
    [[[0, 0, 0, 0], [230, 159, 0, 255]]]
    """
    out = np.zeros((*values.shape, 4), np.uint8)
    for name, colour in class_colours(codes).items():
        if name not in skip and name != "no_data":
            out[values == codes[name]] = (*rgb_of(colour), 255)
    if gaps and "no_data" in codes:
        gap = ~np.isin(values, [code for name, code in codes.items() if name != "no_data"])
        out[gap] = _hatching(values.shape)[gap]
    return out


def over_gaps(bands: Pixels, percentiles: tuple[float, float]) -> Bytes:
    """Return (y, x, 4) bytes of `stretch_colours`, transparent pixels hatched."""
    picture = np.round(255 * stretch_colours(bands, percentiles)).astype(np.uint8)
    return np.where(picture[..., 3:] > 0, picture, _hatching(picture.shape[:2]))


def _hatching(shape: tuple[int, ...]) -> Bytes:
    lines = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 6 < 2
    colours = np.array([(*rgb_of(colour), 255) for colour in (GAP_FACE, GAP_LINES)], np.uint8)
    hatched: Bytes = colours[lines.astype(int)]
    return hatched
