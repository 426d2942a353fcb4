"""Where the sun stood for each date of a scene: as given, as its metadata says, or by date and place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import CloudMaskError, OptionError, Remedy, Use
from xcloudmask.scene.dims import coordinate, crs_of, is_geographic, spatial_dims, transformer
from xcloudmask.scene.sun import sun_position

#: Names of coordinates, and degrees by which metadata and the almanac may differ: a scene is 200 km wide, and
#: the time of a Sentinel-2 item may be that at which its strip begins, 20 minutes earlier (4.8 degrees).
ELEVATION = ("sun_elevation", "view:sun_elevation", "s2:mean_solar_elevation", "eo:sun_elevation")
AZIMUTH = ("sun_azimuth", "view:sun_azimuth", "s2:mean_solar_azimuth", "eo:sun_azimuth")
ZENITH = ("s2:mean_solar_zenith", "view:sun_zenith")
NEAR = 6.0


def is_zenith(stated: float, known: float) -> bool:
    """Whether a sun elevation is the zenith angle, as items of EOPF have it, by what the almanac says.

    Examples
    --------
    >>> is_zenith(28.1, 61.9), is_zenith(61.0, 61.9), is_zenith(46.0, 44.0)
    (True, False, False)
    """
    return abs(90 - stated - known) <= NEAR < abs(stated - known)


def describe_sun(
    da: xr.DataArray, stated: Sequence[Sequence[tuple[float | None, float | None]]]
) -> xr.DataArray:
    """Return `da` with where the sun stood at each time, if any scene says: a mean, or NaN.

    For each time, elevation and azimuth of each of its scenes are stated in degrees.

    Examples
    --------
    >>> da = xr.DataArray([0.0, 0.0], dims="time")
    >>> da = describe_sun(da, [[(40.0, 350.0), (42.0, 20.0)], [(None, None)]])
    >>> da.sun_elevation.values.tolist(), da.sun_azimuth.values.round(6).tolist()
    ([41.0, nan], [5.0, nan])
    """
    for at, name in enumerate((ELEVATION[0], AZIMUTH[0])):
        known = [[float(angle) for pair in pairs if (angle := pair[at]) is not None] for pairs in stated]
        means = np.array([_middle(each) if each else np.nan for each in known])
        if any(known):
            da = da.assign_coords({name: ("time", means % 360 if at else means)})
    return da


def _middle(angles: Sequence[float]) -> float:
    """Return the mean of angles that lie near each other: 5 of 350 and 20 (as 365)."""
    first = angles[0]
    return float(first + np.mean([(angle - first + 180) % 360 - 180 for angle in angles]))


def sun_angles(da: xr.DataArray, given: tuple[Any, Any] | None = None) -> list[tuple[float, float]]:
    """Return the sun's elevation and azimuth in degrees for each index of the dimensions beside the grid.

    Parameters
    ----------
    da : DataArray
        A mask or one band: rows, columns and, it may be, time.
    given : tuple, optional
        Elevation and azimuth: numbers, or one for each date.

    Raises
    ------
    CloudMaskError
        Where nothing tells them, or an elevation contradicts date and place: some catalogues state the zenith
        angle as elevation.

    Examples
    --------
    >>> da = xr.DataArray(np.zeros((1, 2, 2)), dims=("time", "lat", "lon"), coords={
    ...     "time": [np.datetime64("2020-06-21T12:00", "ns")], "lat": [51.6, 51.4], "lon": [-0.1, 0.1]})
    >>> [(round(elevation), round(azimuth)) for elevation, azimuth in sun_angles(da)]
    [(62, 179)]
    >>> sun_angles(da.assign_coords(sun_elevation=28.1))
    Traceback (most recent call last):
    xcloudmask.errors.CloudMaskError: the sun's elevation is stated as 28.1 degrees, and by date and place ...
    """
    lead = [dim for dim in da.dims if dim not in spatial_dims(da)]
    plane = xr.DataArray(np.zeros([da.sizes[dim] for dim in lead]), dims=lead)
    almanac = _by_date_and_place(da, plane)
    columns = [_stated(da, plane, names, at, given) for at, names in enumerate((ELEVATION, AZIMUTH))]
    out = []
    for elevation, azimuth, known in zip(*columns, almanac, strict=True):
        if known is not None and not np.isnan(elevation) and abs(elevation - known[0]) > NEAR:
            zenith = ": it may be the zenith angle" if is_zenith(elevation, known[0]) else ""
            raise CloudMaskError(
                f"the sun's elevation is stated as {elevation:.1f} degrees, and by date and place it was "
                f"{known[0]:.1f}{zenith};",
                Remedy(
                    "set {}, or check its time and place"
                    if zenith
                    else "check its time and place, or say {}",
                    Use(sun=(round(known[0], 1), round(known[1], 1))),
                )
                if known[0] > 0
                else "the sun was down: check its time and place",
            )
        elevation, azimuth = (
            value if known is None or not np.isnan(value) else almanac_value
            for value, almanac_value in zip((elevation, azimuth), known or (0.0, 0.0), strict=True)
        )
        if np.isnan(elevation) or np.isnan(azimuth):
            raise CloudMaskError(
                "nothing tells where the sun stood: no coordinates sun_elevation and sun_azimuth, and no "
                "time of day and place to compute them;",
                Remedy("say it in degrees: {}", Use(sun=(45.0, 150.0))),
            )
        if not 0 < elevation <= 90:
            raise OptionError("sun's elevation", elevation, hint="Give degrees above 0 and up to 90.")
        out.append((float(elevation), float(azimuth) % 360))
    return out


def _stated(da: xr.DataArray, plane: xr.DataArray, names: tuple[str, ...], at: int, given: Any) -> Any:
    """Return one angle of each index of `plane` as given or, if not, as a coordinate has it, or NaN."""
    if given is not None:
        try:
            degrees = np.broadcast_to(np.asarray(given[at], float), plane.shape).ravel()
            if len(given) == 2 and not (abs(degrees) > 360).any():
                return degrees
        except (TypeError, ValueError, IndexError):
            pass
        raise OptionError("sun", given, hint="Give elevation and azimuth in degrees: sun=(45.0, 150.0).")
    for name in names:
        if name in da.coords and set(da[name].dims) <= set(plane.dims):
            bare = xr.DataArray(coordinate(da[name]).astype(float), dims=da[name].dims)
            return np.asarray(bare.broadcast_like(plane).transpose(*plane.dims)).ravel()
    return np.full(plane.size, np.nan)


def _by_date_and_place(da: xr.DataArray, plane: xr.DataArray) -> list[tuple[float, float] | None]:
    """Return the sun's angles at the middle of the grid; None where no time of day or no place is known."""
    place = middle(da)
    if place is None or "time" not in da.coords or not set(da["time"].dims) <= set(plane.dims):
        return [None] * plane.size
    stamps = xr.DataArray(coordinate(da["time"]), dims=da["time"].dims)
    if stamps.dtype.kind != "M":
        return [None] * plane.size
    out: list[tuple[float, float] | None] = []
    for stamp in np.asarray(stamps.broadcast_like(plane).transpose(*plane.dims)).ravel():
        seconds = stamp.astype("datetime64[s]").astype(float)
        dated = not np.isnat(stamp) and seconds % 86400  # midnight to the second is a date without a time
        out.append(sun_position(datetime.fromtimestamp(seconds, UTC), *place) if dated else None)
    return out


def middle(da: xr.DataArray) -> tuple[float, float] | None:
    """Return latitude and longitude of the middle of a grid, None where no CRS tells."""
    import rioxarray  # noqa: F401  registers .rio

    y, x = spatial_dims(da)
    if y not in da.coords or x not in da.coords:
        return None
    at = [float(np.mean(da[dim].values[[0, -1]])) for dim in (x, y)]
    if not is_geographic(da, y):
        if crs_of(da) is None:
            return None
        at = list(transformer(crs_of(da), "EPSG:4326").transform(*at))
    return at[1], at[0]


def grid_north(da: xr.DataArray) -> float:
    """Return the azimuth in degrees of the direction in which a projection's y grows, in the middle.

    Examples
    --------
    >>> import rioxarray
    >>> axes = {"y": [6.7e6, 6.6e6], "x": [6.5e5, 7.5e5]}
    >>> da = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), coords=axes)
    >>> round(grid_north(da.rio.write_crs("EPSG:32632")), 1)
    3.1
    """
    y, x = spatial_dims(da)
    if is_geographic(da, y) or crs_of(da) is None:
        return 0.0
    from pyproj import Geod

    at = [float(np.mean(da[dim].values[[0, -1]])) for dim in (x, y)]
    to = transformer(crs_of(da), "EPSG:4326")
    here, there = to.transform(*at), to.transform(at[0], at[1] + 1000)
    return float(Geod(ellps="WGS84").inv(*here, *there)[0])
