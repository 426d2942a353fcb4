"""Sentinel-2 products of ESA's EOPF: a ``.zarr`` store on disk, or at an address of http or S3."""

from __future__ import annotations

from dataclasses import replace

from xcloudmask.errors import AssetError, CloudMaskError
from xcloudmask.local.scene import Overrides, Plane, Scene, choose, parse_time, settle_level
from xcloudmask.stac.eopf import product_item
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.match_assets import match_item
from xcloudmask.stac.plan import make_plan
from xcloudmask.stac.transport import Transport
from xcloudmask.store.retry import is_io, messages


def scene(address: str, given: Overrides, resolution: float | None) -> Scene:
    """Return the scene of a product, each band from its copy nearest to `resolution` and no coarser."""
    try:
        item = product_item(address, Transport())
    except Exception as error:
        if not (isinstance(error, (OSError, ValueError)) or is_io(error)):
            raise
        raise AssetError(
            f"{address}: cannot be opened as Zarr: {messages(error)}. Check the address; a codec that is not"
            " known needs a newer zarr."
        ) from error
    if item is None:
        raise CloudMaskError(
            f"{address}: this Zarr store is no Sentinel-2 product of EOPF (no bands in"
            " measurements/reflectance, or nothing tells satellite and level). Open it with xr.open_zarr, and"
            " describe() its bands."
        )
    properties = item["properties"]
    level = settle_level(properties.get("processing:level"), given.level, address)
    properties["processing:level"] = {"toa": "L1C", "boa": "L2A"}[level]
    if given.sensor is not None:
        properties["platform"] = given.sensor.name
    for asset in item["assets"].values():
        _override(asset["bands"][0], given)
    stated = properties.get("datetime")  # GeoZarr loses it, and a store that is renamed
    properties.setdefault("datetime", "1970-01-01T00:00:00Z")  # a plan has one
    matched = match_item(item, resolution)
    if matched.sensor is None:
        raise CloudMaskError(
            f"{address}: its platform {properties.get('platform')!r} is not known. Pass sensor=."
        )
    chosen = choose(matched.bands, given.bands, matched.sensor)
    plan = make_plan(matched, bands=[band.name for band in chosen], sun_elevation=given.sun_elevation)
    return Scene(
        item_id=plan.item_id,
        sensor=matched.sensor,
        level=level,
        planes=tuple(_plane(source) for source in plan.assets),
        time=given.date or parse_time(stated),
        sun_elevation=plan.sun_elevation,
        sun_azimuth=plan.sun_azimuth,
    )


def _override(band: dict[str, object], given: Overrides) -> None:
    if given.scale is not None:
        band |= {"raster:scale": given.scale, "raster:offset": 0.0}
    if given.offset is not None:
        band["raster:offset"] = given.offset
    if given.nodata is not None:
        band["nodata"] = given.nodata


def _plane(source: Source) -> Plane:
    place = source.place
    assert place is not None
    assert place.bounds is not None
    assert place.res is not None
    left, bottom, right, top = place.bounds
    shape = round((top - bottom) / place.res[1]), round((right - left) / place.res[0])
    grid = Grid(str(place.crs), left, top, *place.res, shape)
    return Plane(replace(source, place=None), source.href, grid)
