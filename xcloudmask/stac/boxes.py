"""Boxes on the globe: CRS names, boxes carried from one CRS to another, the antimeridian."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.dims import transformer
from xcloudmask.stac.view import to_box

Bounds: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top

#: Points along each edge of a box that is carried into another CRS, where edges are curves.
_EDGE_POINTS = 21


@lru_cache(maxsize=256)
def _parse_crs_text(text: str) -> str:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(int(text) if text.isdigit() else text)
    except CRSError as error:
        raise OptionError("crs", text, hint=f"Give a code such as 'EPSG:32632', or WKT ({error}).") from None
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


def parse_crs(crs: Any) -> str:
    """Return ``"EPSG:..."`` (or WKT where there is no code) for anything that names a CRS.

    Examples
    --------
    >>> parse_crs(32632), parse_crs("epsg:4326")
    ('EPSG:32632', 'EPSG:4326')
    """
    return _parse_crs_text(crs.to_wkt() if hasattr(crs, "to_wkt") else str(crs))


@lru_cache(maxsize=256)
def is_geographic(crs: str) -> bool:
    """Tell if a CRS is in degrees."""
    from pyproj import CRS

    return bool(CRS.from_user_input(crs).is_geographic)


@lru_cache(maxsize=256)
def is_metric(crs: str) -> bool:
    """Tell if the axes of a CRS count metres."""
    from pyproj import CRS

    return all(axis.unit_name == "metre" for axis in CRS.from_user_input(crs).axis_info[:2])


def in_degrees(box: Sequence[float], crs: str | None) -> bool:
    """Tell if a box is in degrees though its CRS is projected, as items of eopf-stac before 0.12 state it.

    Examples
    --------
    >>> in_degrees((4.27, 45.03, 5.71, 46.05), "EPSG:32631"), in_degrees((6e5, 5e6, 7e5, 5.1e6), "EPSG:32631")
    (True, False)
    """
    return (
        crs is not None
        and max(abs(box[0]), abs(box[2])) <= 360
        and max(abs(box[1]), abs(box[3])) <= 90
        and not is_geographic(crs)
    )


@lru_cache(maxsize=4096)
def transform_box(box: Bounds, source: str, target: str) -> Bounds:
    """Carry a box into another CRS, following its curved edges.

    A box in degrees may reach beyond 180: a projected target then sees one piece, not two.
    """
    if is_geographic(target) and is_geographic(source) and box[2] > 180:
        raise _antimeridian(box, source)
    if source == target:
        return box
    left, bottom, right, top = box
    along_x, along_y = np.linspace(left, right, _EDGE_POINTS), np.linspace(bottom, top, _EDGE_POINTS)
    x = np.concatenate([along_x, along_x, np.full(_EDGE_POINTS, left), np.full(_EDGE_POINTS, right)])
    y = np.concatenate([np.full(_EDGE_POINTS, bottom), np.full(_EDGE_POINTS, top), along_y, along_y])
    out_x, out_y = transformer(source, target).transform(x, y)
    out_x, out_y = np.asarray(out_x), np.asarray(out_y)
    if not (np.isfinite(out_x).all() and np.isfinite(out_y).all()) or (
        is_geographic(source) and not _holds_inside(box, (out_x, out_y), source, target)
    ):
        raise CloudMaskError(
            f"the box {box} of {source} cannot be expressed in {target}: choose another crs="
        )
    if is_geographic(target) and out_x.max() - out_x.min() > 180:
        raise _antimeridian(box, source)
    return float(out_x.min()), float(out_y.min()), float(out_x.max()), float(out_y.max())


def _holds_inside(box: Bounds, edges: tuple[Any, Any], source: str, target: str) -> bool:
    """Tell if what is inside a box in degrees stays inside its edges: far from its zone UTM turns over."""
    x, y = np.meshgrid(np.linspace(box[0], box[2], 9)[1:-1], np.linspace(box[1], box[3], 9)[1:-1])
    inside = [np.asarray(part) for part in transformer(source, target).transform(x.ravel(), y.ravel())]
    for values, edge in zip(inside, edges, strict=True):
        slack = 0.01 * (edge.max() - edge.min())
        if not ((values >= edge.min() - slack) & (values <= edge.max() + slack)).all():  # also for inf
            return False
    return True


def _antimeridian(box: Bounds, source: str) -> CloudMaskError:
    return CloudMaskError(
        f"the box {box} of {source} crosses the antimeridian, which a grid in degrees cannot hold:"
        " pass a projected crs= (the UTM zone, for instance), or load the two sides apart"
    )


def lonlat_box(geometry: Mapping[str, Any], bbox: Any) -> Bounds | None:
    """Box of an item in degrees, from its geometry or else its bbox, east of west."""
    points = np.array(list(_points(geometry)), dtype="float64").reshape(-1, 2)
    if len(points) and np.isfinite(points).all():
        return _unwrap(points)
    box = to_box(bbox)
    if box is None:
        return None
    west, south, east, north = box if len(box) == 4 else (*box[:2], *box[3:5])
    return west, south, east + 360 if east < west else east, north


def _unwrap(points: np.ndarray[Any, np.dtype[np.float64]]) -> Bounds:
    lon, lat = points[:, 0], points[:, 1]
    if lon.max() - lon.min() > 180:  # pieces on both sides of the antimeridian
        lon = np.where(lon < 0, lon + 360, lon)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _points(geometry: Any) -> Iterable[tuple[float, float]]:
    geometry = getattr(geometry, "__geo_interface__", geometry)
    if not isinstance(geometry, Mapping):
        return
    yield from _points(geometry.get("geometry"))
    for members in (geometry.get("geometries"), geometry.get("features")):
        for member in members if isinstance(members, (list, tuple)) else ():
            yield from _points(member)
    stack = [geometry.get("coordinates")]
    while stack:
        value = stack.pop()
        if not isinstance(value, (list, tuple)):
            continue
        if len(value) > 1 and all(isinstance(number, (int, float)) for number in value[:2]):
            yield float(value[0]), float(value[1])
        else:
            stack.extend(value)


def geometry_box(geometry: Any) -> Bounds:
    """Box in degrees of GeoJSON, or of anything with ``__geo_interface__``."""
    points = np.array(list(_points(getattr(geometry, "__geo_interface__", geometry))))
    if not len(points) or not np.isfinite(points).all():
        raise OptionError("geometry", geometry, hint="Give GeoJSON or a shapely geometry, in degrees.")
    if np.abs(points[:, 0]).max() > 360 or np.abs(points[:, 1]).max() > 90:
        raise CloudMaskError(f"geometry= must be in degrees (EPSG:4326); it holds {tuple(points[0])}")
    return _unwrap(points)


def check_bbox(bbox: Sequence[float]) -> Bounds:
    """Check a box in degrees; west of east means that it crosses the antimeridian."""
    try:
        values = [float(value) for value in bbox]
    except (TypeError, ValueError):
        values = []
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise OptionError("bbox", bbox, hint="Give (west, south, east, north) in degrees.")
    west, south, east, north = values
    if 180 >= west > east >= -180 and east + 360 - west > 180:
        raise CloudMaskError(
            f"bbox={tuple(values)}: west of east means that it crosses the antimeridian, and then it would be"
            f" {east + 360 - west:g} degrees wide. Give (west, south, east, north)"
        )
    if abs(west) > 360 or abs(east) > 360 or abs(south) > 90 or abs(north) > 90 or south >= north:
        raise CloudMaskError(
            f"bbox={tuple(values)} is not (west, south, east, north) in degrees; for projected units use"
            " like= with a DataArray on the wanted grid"
        )
    return (west, south, east + 360 if east <= west else east, north)  # west of east: the antimeridian
