"""The CRS an item tells, checked against where the item says it lies.

A wrong code is not rare (an Antarctic EPSG:3271 for a scene off New Zealand), and tools that build a grid
from metadata alone put such a scene elsewhere without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.dims import transformer
from xcloudmask.stac.assumptions import Assumption
from xcloudmask.stac.boxes import in_degrees, parse_crs
from xcloudmask.stac.view import AssetView, ItemView, crs_of, to_numbers


def item_crs(view: ItemView, assets: Sequence[AssetView]) -> tuple[str | None, Assumption | None]:
    """Return the code all `assets` agree on, else the item's, and what is assumed where it cannot be right.

    It is None where none is told, and where it cannot be right.

    Sentinel-2 items that tell no code but their tile get the UTM zone of the tile.

    Examples
    --------
    >>> from xcloudmask.stac.view import view_item
    >>> tile = {"mgrs:utm_zone": 34, "mgrs:latitude_band": "L"}
    >>> item_crs(view_item({"id": "x", "properties": tile, "assets": {}}), [])
    ('EPSG:32734', None)
    """
    codes = {asset.crs for asset in assets}
    if len(codes) > 1:
        return None, None
    code = next(iter(codes), None) or _own_crs(view) or _tile_crs(view)
    if code and not is_known_crs(code):
        return None, Assumption(
            f"{code} is no known CRS, so it is not used", "no other", "Correct proj:code in the item."
        )
    sources = (view.properties, *(asset.raw for asset in assets[:1]))
    if code and any(_lies_elsewhere(code, source, view.bbox) for source in sources):
        return None, Assumption(
            f"{code} does not put the pixels where the bbox is; the CRS of the files is used",
            f"bbox {list(view.bbox or ())}",
            "Correct proj:code (proj:epsg) in the item.",
        )
    return code, None


@lru_cache(maxsize=256)
def is_known_crs(code: str) -> bool:
    """Tell if pyproj knows a code."""
    try:
        parse_crs(code)
    except OptionError:
        return False
    return True


def _own_crs(view: ItemView) -> str | None:
    try:
        return crs_of(view.properties)
    except (TypeError, ValueError) as error:
        raise CloudMaskError(
            f"item {view.id!r} is not understood: {error!r}", "Correct proj:epsg in the item, or leave it out"
        ) from error


def _tile_crs(view: ItemView) -> str | None:
    zone, band = view.number("mgrs:utm_zone"), (view.text("mgrs:latitude_band") or "").upper()
    if zone is None or not math.isfinite(zone) or len(band) != 1:
        return None
    return f"EPSG:{(32600 if band >= 'N' else 32700) + int(zone)}"


def _lies_elsewhere(code: str, source: Mapping[str, Any], bbox: tuple[float, ...] | None) -> bool:
    """Whether the centre of the pixels, taken back to longitude and latitude, is far outside `bbox`."""
    from pyproj.exceptions import ProjError

    centre = _native_centre(source, code)
    if centre is None or bbox is None or len(bbox) < 4:
        return False
    west, south, east, north = bbox[0], bbox[1], bbox[len(bbox) // 2], bbox[len(bbox) // 2 + 1]
    try:
        longitude, latitude = transformer(code, "EPSG:4326").transform(*centre)
    except ProjError:  # a code that pyproj does not know is left for whoever opens the files
        return False
    spare = 1 + north - south
    if not south - spare <= latitude <= north + spare:
        return True
    crosses = east < west or east - west > 180
    spare = 1 + east - west
    return not crosses and not west - spare <= longitude <= east + spare


def _native_centre(source: Mapping[str, Any], code: str) -> tuple[float, float] | None:
    box = to_numbers(source.get("proj:bbox"), 4)
    if box and not in_degrees(box, code):
        return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    transform, shape = to_numbers(source.get("proj:transform"), 6), to_numbers(source.get("proj:shape"), 2)
    # old items give GDAL's order, the corner first: its second number is the pixel's size, not a rotation
    if not transform or not shape or transform[1] or not transform[0]:
        return None
    return transform[2] + transform[0] * shape[1] / 2, transform[5] + transform[4] * shape[0] / 2
