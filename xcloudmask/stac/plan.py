"""From a STAC item to an `ItemPlan`: which asset is which band, and what its numbers mean; reads no pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from xcloudmask.errors import CloudMaskError, OptionError, UnitError
from xcloudmask.scene.sun import sun_position
from xcloudmask.scene.sun_angles import AZIMUTH, ELEVATION, ZENITH, is_zenith
from xcloudmask.stac.boxes import Bounds, lonlat_box
from xcloudmask.stac.calibration import SUN_REMEDY, ReadText, calibrate
from xcloudmask.stac.figures import check_sun
from xcloudmask.stac.grid import asset_grid
from xcloudmask.stac.item_plan import ItemPlan, Source, ValidRule
from xcloudmask.stac.match_assets import MatchedItem
from xcloudmask.stac.offset import OffsetMode, baseline_text
from xcloudmask.stac.place import is_known_crs, item_crs
from xcloudmask.stac.profiles import Profile, Quality, coarse_level_of, level_of, unlisted_profile
from xcloudmask.stac.view import ItemView, access_of
from xcloudmask.types import Level

_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d(?![^T ])[^/]*$")


def make_plan(
    item: MatchedItem,
    *,
    bands: Sequence[str] | Literal["all"] | None = "all",
    offset: OffsetMode = "auto",
    sun_elevation: float | None = None,
    read_text: ReadText | None = None,
) -> ItemPlan:
    """Return everything that is needed to load an item as calibrated reflectance.

    What had to be assumed is in the plan; who plans many items warns of it once. The bands are names, aliases
    or common names of the sensor's, or all; whether Sentinel-2's offset is added, `xcloudmask.stac.offset`
    tells. A sun elevation that is given wins over the item's own; `read_text` returns the text behind an
    href: Landsat level 1 needs it for the MTL file.

    Examples
    --------
    >>> from xcloudmask.stac.match_assets import match_item
    >>> numbers = {"raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
    >>> item = {
    ...     "id": "S2A_T34RCT_20240517T091933_L2A", "collection": "sentinel-2-c1-l2a",
    ...     "properties": {"datetime": "2024-05-17T09:19:33Z", "s2:processing_baseline": "05.10"},
    ...     "assets": {"red": {"href": "B04.tif", **numbers}},
    ... }
    >>> plan = make_plan(match_item(item), bands=["red"])
    >>> plan.sensor, plan.level, plan.assets[0].band.name, plan.assets[0].offset
    ('sentinel-2a', 'boa', 'B04', -0.1)
    """
    if offset not in get_args(OffsetMode):
        raise OptionError("offset", offset, allowed=get_args(OffsetMode))
    view, sensor = item.view, item.sensor
    choices = item.choose(bands)
    level = _level(view, item.profile)
    profile = item.profile or unlisted_profile(sensor, level)
    lonlat = lonlat_box(view.geometry, view.bbox)
    time = item_time(view)
    if sun_elevation is None:
        elevation = _sun_elevation(view, lonlat, time)
    else:
        elevation = check_sun(sun_elevation, f"item {view.id!r}", SUN_REMEDY)
    numbers = calibrate(
        view,
        choices,
        profile,
        offset=offset,
        sun_elevation=elevation,
        read_text=read_text,
        every=bands is None or bands == "all",
    )
    crs, misplaced = item_crs(view, [choice.asset for choice in choices])
    valid = _valid_rule(view, profile.quality, numbers.assets)
    bits = profile.quality.good_bits if profile.quality else {}
    edges = dict(sensor.metadata).get("edges") if sensor else None

    def placed(source: Source) -> Source:
        band, asset = source.band, view.assets[source.key]
        own_crs = crs
        if misplaced is None and crs is None and asset.crs and is_known_crs(asset.crs):
            own_crs = asset.crs  # the assets do not agree
        place = asset_grid(view, asset, own_crs, band.gsd if band else None, lonlat, edges)
        return replace(
            source,
            item_id=view.id,
            crs=own_crs,
            valid=valid,
            place=place,
            unplaced=place.assumed,
            good_bit=bits.get(band.name) if band else None,
            remote=view.remote,
            access=access_of(asset.raw, view.properties),
        )

    return ItemPlan(
        item_id=view.id,
        collection=view.collection,
        catalogue=profile.catalogue,
        sensor=item.sensor_name,
        level=level,
        datetime=_datetime(view),
        time=time,
        assets=tuple(placed(source) for source in numbers.assets),
        valid=valid,
        sun_elevation=numbers.sun_elevation,
        sun_azimuth=view.number(*AZIMUTH),
        crs=crs,
        baseline=baseline_text(view) if profile.calibration == "sentinel-2" else None,
        updated=view.text("updated"),
        offset_rule=numbers.rule,
        evidence=numbers.evidence,
        address=view.address,
        assumptions=(*numbers.assumptions, *([misplaced] if misplaced else [])),
    )


def _level(view: ItemView, profile: Profile | None) -> Level:
    if profile and profile.level:
        return profile.level
    where = f"item {view.id!r} (collection {view.collection!r})"
    level = coarse_level_of(view) if profile else level_of(view)
    if level is None and profile:
        raise UnitError(
            f"{where}: neither TOA nor TOC is told by its name, or it is level 1C, which is in the "
            "instrument's geometry and on no map. Take a level 2A or a synthesis (S1, S5, S10) product."
        )
    if level is None:
        raise UnitError(
            f"{where}: whether it holds reflectance at the top or the bottom of the atmosphere is not told. "
            'State "processing:level" in the properties of the item before loading it: "L1C" or "L2A".'
        )
    return level


def _datetime(view: ItemView) -> str:
    when = view.text("datetime", "start_datetime")
    if when is None:
        raise CloudMaskError(
            f"item {view.id!r}: it has neither datetime nor start_datetime. State one in its properties."
        )
    return when


def item_time(view: ItemView) -> np.datetime64:
    """Return when an item was seen, in UTC."""
    import pandas as pd

    when = _datetime(view)
    try:
        if not _ISO_8601.match(when):
            raise ValueError("not ISO 8601")
        stamp = pd.Timestamp(when)
        if stamp.tz is not None:
            stamp = stamp.tz_convert(None)
        time: np.datetime64 = stamp.as_unit("ns").to_datetime64()
    except ValueError as error:
        raise CloudMaskError(
            f"item {view.id!r}: its datetime {when!r} is none ({error}): give it one with modifier=, or leave"
            " it out"
        ) from None
    return time


def _sun_elevation(view: ItemView, lonlat: Bounds | None, time: np.datetime64) -> float | None:
    elevation = view.number(*ELEVATION)
    if elevation is None:
        zenith = view.number(*ZENITH)
        return None if zenith is None else 90 - zenith
    if lonlat is None or np.isnat(time):
        return elevation
    when = time.astype("datetime64[s]").item()
    known, _ = sun_position(when, (lonlat[1] + lonlat[3]) / 2, (lonlat[0] + lonlat[2]) / 2)
    return 90 - elevation if is_zenith(elevation, known) else elevation


def _valid_rule(view: ItemView, quality: Quality | None, assets: Sequence[Source]) -> ValidRule | None:
    """Return how the product's quality layer is read, None where the product or the item has none."""
    if quality is None:
        return None
    asset = next((view.assets[key] for key in quality.keys if key in view.assets), None)
    if asset is None:  # keys may be names of files
        ends = tuple(f"_{key.upper()}" for key in quality.keys)
        stems = ((a.key.rsplit(".", 1)[0].upper(), a) for a in view.assets.values())
        asset = next((a for stem, a in stems if stem.endswith(ends)), None)
    if asset is None:
        return None
    if quality.mask is not None:
        return ValidRule(asset.key, asset.href, quality.mask, quality.expected)
    mask = sum(1 << quality.good_bits[source.band.name] for source in assets if source.band)
    return ValidRule(asset.key, asset.href, mask, mask)
