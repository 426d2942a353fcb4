"""Which asset is read for which band: one each, never a picture, a copy at another pixel size, or a mask."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from xcloudmask.errors import BandError
from xcloudmask.sensors import match
from xcloudmask.stac.view import AssetView, BandEntry, ItemView
from xcloudmask.types import Band, Kind, Sensor

#: Roles of assets that are not measurements.
_NOT_DATA = frozenset(
    ("thumbnail", "overview", "visual", "preview", "tiles", "metadata", "archive", "qa", "data-mask", "cloud")
)
#: Pictures are often told by their key alone (the Planetary Computer gives `visual` the role `data`).
_PICTURE = re.compile(r"(^|[_\W])(visual|overview|preview|thumbnail|tci|quicklook|browse)([_\W]|$)", re.I)
_NOT_IMAGE = ("text/", "application/xml", "application/json", "application/zip", "image/jpeg", "image/png")
_SIZE_IN_KEY = re.compile(r"[_-](\d{2,4})m$", re.I)
_THERMAL = ("lwir", "lwir11", "lwir12")


@dataclass(frozen=True, slots=True)
class Choice:
    """A band, the asset that holds it, and where in the file (counted from 1)."""

    band: Band
    asset: AssetView
    entry: BandEntry
    index: int


@dataclass(slots=True)
class _Labels:
    """The bands that labels mean, remembered: the items of a search repeat the same few dozen labels."""

    sensor: Sensor
    known: dict[str, Band | None] = field(default_factory=dict)

    def band(self, label: str | None) -> Band | None:
        if not label:
            return None
        if label not in self.known:
            if len(self.known) > 4096:  # keys that are file names never repeat
                self.known.clear()
            try:
                self.known[label] = match([label], self.sensor)[0]
            except BandError:  # "rededge" may be any of three: another label of the asset decides
                self.known[label] = None
        return self.known[label]


@lru_cache(maxsize=64)
def _labels(sensor: Sensor) -> _Labels:
    return _Labels(sensor)


def choose(
    view: ItemView, sensor: Sensor | None, bands: Sequence[str] | Literal["all"] | None = "all"
) -> tuple[Choice, ...]:
    """Return one asset for each band: of all the item has, or of those asked for, in that order.

    Parameters
    ----------
    view : ItemView
    sensor : Sensor or None
        None where the item's instrument is not known: its own common names are the bands then.
    bands : sequence of str, or "all"
        Names, aliases or common names of the sensor's bands.

    Raises
    ------
    BandError
        Where a band asked for is not among the item's assets.

    Examples
    --------
    >>> from xcloudmask.sensors import get
    >>> from xcloudmask.stac.view import view_item
    >>> assets = {"red": {"href": "a.tif"}, "red-jp2": {"href": "a.jp2"}, "scl": {"href": "b.tif"}}
    >>> view = view_item({"id": "x", "properties": {}, "assets": assets})
    >>> [(choice.band.name, choice.asset.key) for choice in choose(view, get("sentinel-2a"))]
    [('B04', 'red')]
    """
    labels = _labels(sensor) if sensor else None
    best: dict[str, Choice] = {}
    ranks: dict[str, tuple[object, ...]] = {}
    for asset in view.assets.values():
        if not _may_hold_bands(asset):
            continue
        for i, entry in enumerate(asset.bands):
            band = _band_of(asset, entry, labels) if labels else _own_band(asset, entry)
            if band is None:
                continue
            rank = _rank(asset, entry, band)
            if band.name not in ranks or rank < ranks[band.name]:
                ranks[band.name] = rank
                best[band.name] = Choice(band, asset, entry, i + 1)
    if bands is None or bands == "all":
        if not best:
            raise BandError(_no_band(view, sensor))
        order = [band.name for band in sensor.bands] if sensor else list(best)
        return tuple(best[name] for name in order if name in best)
    return tuple(best[_wanted(name, view, sensor, best)] for name in bands)


def _wanted(name: str, view: ItemView, sensor: Sensor | None, best: dict[str, Choice]) -> str:
    if sensor is not None:
        band = sensor.band(name).name  # an unknown name gets the sensor's list and the nearest match
    else:
        known = (
            c.band for c in best.values() if name.casefold() in (c.band.name.casefold(), c.band.common_name)
        )
        band = next((b.name for b in known), name)
    if band not in best:
        have = ", ".join(best) or "none"
        raise BandError(
            f"item {view.id!r}: no asset holds band {name!r}; bands found: {have}. "
            "Ask for these, or leave the item out."
        )
    return band


def _no_band(view: ItemView, sensor: Sensor | None) -> str:
    of = f"a band of {sensor.name}" if sensor else "a band with a common name (its instrument is not known)"
    return (
        f"item {view.id!r}: none of its assets is {of}; assets: {', '.join(view.assets) or 'none'}. "
        "Register the instrument with xcloudmask.sensors.register('my.toml'), or leave the item out."
    )


def _may_hold_bands(asset: AssetView) -> bool:
    if _NOT_DATA.intersection(asset.roles) or asset.media_type.startswith(_NOT_IMAGE):
        return False
    return not _PICTURE.search(asset.key)


def _band_of(asset: AssetView, entry: BandEntry, labels: _Labels) -> Band | None:
    """Return the band by the most telling label first: band name, key, common name, file name."""
    alone = len(asset.bands) == 1
    band = labels.band(entry.name)
    if band is None and alone:
        band = labels.band(asset.key) or labels.band(entry.common_name)
        if band is None and entry.name is None:  # an item that names its bands need not be guessed at
            band = labels.band(_file_name(asset.href))
        return band
    return band or labels.band(entry.common_name)


def _own_band(asset: AssetView, entry: BandEntry) -> Band | None:
    """Return the band as the item itself describes it."""
    if not entry.common_name:
        return None
    kind: Kind = "brightness_temperature" if entry.common_name in _THERMAL else "reflectance"
    center = entry.center_um * 1000 if entry.center_um else None
    half = entry.fwhm_um * 500 if entry.fwhm_um and center else None
    name = entry.name or asset.key
    return Band(
        name,
        entry.common_name,
        center - half if center and half else None,
        center,
        center + half if center and half else None,
        gsd=asset.gsd or entry.gsd,
        kind=kind,
    )


def _rank(asset: AssetView, entry: BandEntry, band: Band) -> tuple[object, ...]:
    """Order the candidates for a band; the least is taken.

    The cloud-optimised file before ESA's JPEG 2000 beside it, a file of its own before a plane of a stack,
    the pixels as they were sampled before resampled ones, the band's own pixel size before any other.
    """
    sampling = next((role for role in asset.roles if role.startswith("sampling:")), "sampling:original")
    gsd = _gsd(asset, entry)
    away = abs(math.log(gsd / band.gsd)) if gsd and band.gsd else gsd or 0.0
    return (
        asset.key.lower().endswith(("-jp2", "_jp2", ".jp2")),
        len(asset.bands) > 1,
        sampling != "sampling:original",
        round(away, 3),
        gsd or 0.0,
        len(asset.key),
        asset.key,
    )


def _gsd(asset: AssetView, entry: BandEntry) -> float | None:
    told = asset.gsd or entry.gsd
    if told is None:
        in_key = _SIZE_IN_KEY.search(asset.key)
        told = float(in_key[1]) if in_key else None
    return told


def _file_name(href: str) -> str:
    return urlsplit(href).path.rsplit("/", 1)[-1]
