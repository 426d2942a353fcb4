"""Which asset is read for which band: one each, never a picture, a copy at another pixel size, or a mask."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from xcloudmask.errors import BandError
from xcloudmask.sensors import match
from xcloudmask.stac.profiles import Profile, find_profile, sensor_of
from xcloudmask.stac.view import AssetView, BandEntry, ItemView, view_item
from xcloudmask.types import Band, Kind, Sensor

#: What a sensor is called that the item does not tell.
UNTOLD = "unknown"
#: Roles of assets that are not measurements.
_NOT_DATA = frozenset(
    ("thumbnail", "overview", "visual", "preview", "tiles", "metadata", "archive", "qa", "data-mask", "cloud")
)
#: Pictures are often told by their key alone (the Planetary Computer gives `visual` the role `data`).
_PICTURE = re.compile(r"(^|[_\W])(visual|overview|preview|thumbnail|tci|quicklook|browse)([_\W]|$)", re.I)
_NOT_IMAGE = ("text/", "application/xml", "application/json", "application/zip", "image/jpeg", "image/png")
_SIZE_IN_KEY = re.compile(r"[_-](\d{2,4})m$", re.I)
_COUNTER = re.compile(r"(?:b|band[ _-]?)?0*(\d+)")
_THERMAL = ("lwir", "lwir11", "lwir12")


@dataclass(frozen=True, slots=True)
class Choice:
    """A band, the asset that holds it, and where in the file (counted from 1)."""

    band: Band
    asset: AssetView
    index: int

    @property
    def entry(self) -> BandEntry:
        """What the item says of the band."""
        return self.asset.bands[self.index - 1]


_BandOf = Callable[[str | None], Band | None]


@lru_cache(maxsize=64)
def _bands_by_label(sensor: Sensor) -> _BandOf:
    """Return what tells the band that a label means; the items of a search repeat the same few dozen."""

    @lru_cache(maxsize=4096)
    def band_of(label: str | None) -> Band | None:
        try:
            return match([label], sensor)[0] if label else None
        except BandError:  # "rededge" may be any of three: another label of the asset decides
            return None

    return band_of


@dataclass(frozen=True, slots=True)
class MatchedItem:
    """An item, read once: what it says, which product and sensor it is of, which asset holds which band."""

    view: ItemView
    profile: Profile | None  # None where the catalogue is not listed
    sensor: Sensor | None  # None where it is not known: the item's own common names are the bands then
    choices: Mapping[str, Choice]  # by name of the band, in the sensor's order

    @property
    def sensor_name(self) -> str:
        """Canonical name of the sensor, ``"unknown"`` if the item does not tell."""
        return self.sensor.name if self.sensor else UNTOLD

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands for which there is an asset."""
        return tuple(choice.band for choice in self.choices.values())

    def choose(self, bands: Sequence[str] | Literal["all"] | None = "all") -> tuple[Choice, ...]:
        """Return one asset for each band: of all the item has, or of those asked for, in that order.

        A `BandError` tells of one that is not among the assets, or is two bands by what they say of it.
        """
        names = list(self.choices) if bands is None or bands == "all" else map(self._own_name, bands)
        return tuple(self._checked(self.choices[name]) for name in names)

    def _checked(self, choice: Choice) -> Choice:
        """Refuse an asset whose common name is that of another band than its name."""
        common_name = choice.entry.common_name
        common = _bands_by_label(self.sensor)(common_name) if self.sensor else None
        if common is not None and common != choice.band:
            raise BandError(
                f"item {self.view.id!r}, asset {choice.asset.key!r}: its name says band {choice.band.name},"
                f" its common name {common_name!r} says {common.name}. Correct the item (modifier=), or leave"
                " it out."
            )
        return choice

    def _own_name(self, name: str) -> str:
        if self.sensor is not None:
            own = self.sensor.band(name).name  # an unknown name gets the sensor's list and the nearest match
        else:
            wanted = name.casefold()
            same = (b.name for b in self.bands if wanted in (b.name.casefold(), b.common_name))
            own = next(same, name)
        if own not in self.choices:
            raise BandError(
                f"item {self.view.id!r}: no asset holds band {name!r}; bands found:"
                f" {', '.join(self.choices)}. Ask for these, or leave the item out."
            )
        return own


def match_item(item: Any, pixel: float | None = None, keys: Collection[str] = ()) -> MatchedItem:
    """Read an item, and find the one asset that is read for each of its bands; `BandError` if none is one.

    Of copies at several sizes, that nearest to `pixel` metres and no coarser is read; assets with one of the
    `keys` are preferred, whatever their size.

    Examples
    --------
    >>> assets = {"red": {"href": "a.tif"}, "red-jp2": {"href": "a.jp2"}, "scl": {"href": "b.tif"}}
    >>> item = match_item({"id": "x", "properties": {"platform": "sentinel-2a"}, "assets": assets})
    >>> item.sensor_name, [(choice.band.name, choice.asset.key) for choice in item.choose()]
    ('sentinel-2a', [('B04', 'red')])
    """
    view = item if isinstance(item, ItemView) else view_item(item)
    profile = find_profile(view)
    sensor = sensor_of(view, profile)
    by_label = _bands_by_label(sensor) if sensor else None
    best: dict[str, Choice] = {}
    ranks: dict[str, tuple[object, ...]] = {}
    for asset in view.assets.values():
        if not _may_hold_bands(asset):
            continue
        for i, entry in enumerate(asset.bands):
            band = _band_of(asset, i + 1, by_label) if by_label else _own_band(asset, entry)
            if band is None:
                continue
            rank = (asset.key not in keys, *_rank(asset, entry, band, pixel))
            if band.name not in ranks or rank < ranks[band.name]:
                ranks[band.name] = rank
                best[band.name] = Choice(band, asset, i + 1)
    if not best:
        raise BandError(_no_band(view, sensor))
    order = [band.name for band in sensor.bands] if sensor else list(best)
    return MatchedItem(view, profile, sensor, {name: best[name] for name in order if name in best})


def name_unreadable(items: Iterable[MatchedItem]) -> str:
    """Return a sentence on the first item with assets that have no address, or are Zarr; "" if none has."""
    for item in items:
        if item.view.without_address:
            keys = ", ".join(repr(key) for key in item.view.without_address)
            return f"of item {item.view.id!r} {keys} has no address (href). Correct it with modifier=."
        if zarr := _zarr(item.view):
            return f"of item {item.view.id!r} {zarr}"
    return ""


def _zarr(view: ItemView) -> str:
    groups = {key: asset for key, asset in view.assets.items() if asset.is_zarr and not asset.is_zarr_array}
    keys = [key for key in groups if not _PICTURE.search(key)]
    if not keys:
        return ""
    return (
        f"{', '.join(map(repr, keys[:8]))} is Zarr, and load_stac reads GeoTIFF and JPEG 2000. Open it with"
        " xarray: xr.open_datatree(href, engine='zarr') (EOPF: engine='eopf-zarr' of xarray-eopf); the bands"
        " of one pixel size are a Dataset: ds.cloudmask.describe('sentinel-2', level='L2A')."
    )


def _no_band(view: ItemView, sensor: Sensor | None) -> str:
    if zarr := _zarr(view):
        return f"item {view.id!r}: {zarr}"
    of = f"a band of {sensor.name}" if sensor else "a band with a common name (its instrument is not known)"
    return (
        f"item {view.id!r}: none of its assets is {of}; assets: {', '.join(view.assets) or 'none'}. Names"
        " that only count a file's bands (b1, b2) are no bands: state eo:common_name. "
        "Register the instrument with xcloudmask.sensors.register('my.toml'), or leave the item out."
    )


def _may_hold_bands(asset: AssetView) -> bool:
    return not (
        (asset.is_zarr and not asset.is_zarr_array)
        or _NOT_DATA.intersection(asset.roles)
        or asset.media_type.startswith(_NOT_IMAGE)
        or _PICTURE.search(asset.key)
    )


def _band_of(asset: AssetView, index: int, by_label: _BandOf) -> Band | None:
    """Return the band by the most telling label first: band name, key, common name, file name."""
    alone, entry = len(asset.bands) == 1, asset.bands[index - 1]
    name, band = entry.name, None
    counts = _COUNTER.fullmatch(name or "")  # rio-stac's b1, b2, ... count the bands of the file
    if counts and int(counts[1]) == index:
        name, band = None if alone else entry.description, by_label(entry.common_name)
    band = band or by_label(name)
    if band is None and alone:
        band = by_label(asset.key)
    band = band or by_label(entry.common_name)
    if band is None and alone and name is None:  # an item that names its bands need not be guessed at
        band = by_label(urlsplit(asset.href).path.rsplit("/", 1)[-1])
    return band


def _own_band(asset: AssetView, entry: BandEntry) -> Band | None:
    """Return the band as the item itself describes it."""
    if not entry.common_name:
        return None
    kind: Kind = "brightness_temperature" if entry.common_name in _THERMAL else "reflectance"
    center = entry.center_um * 1000 if entry.center_um else None
    half = entry.fwhm_um * 500 if entry.fwhm_um and center else None
    low, high = (center - half, center + half) if center and half else (None, None)
    name, gsd = entry.name or asset.key, asset.gsd or entry.gsd
    return Band(name, entry.common_name, low, center, high, gsd=gsd, kind=kind)


def _rank(asset: AssetView, entry: BandEntry, band: Band, pixel: float | None) -> tuple[object, ...]:
    """Order the candidates for a band; the least is taken.

    The cloud-optimised file before ESA's JPEG 2000 beside it, a file of its own before a plane of a stack,
    the pixels as they were sampled before resampled ones, the band's own pixel size before any other; but
    where pixels coarser than the band's own are asked for, those that come nearest and are no coarser still.
    """
    sampling = next((role for role in asset.roles if role.startswith("sampling:")), "sampling:original")
    in_key = _SIZE_IN_KEY.search(asset.key)
    gsd, size = asset.gsd or entry.gsd or (float(in_key[1]) if in_key else None), band.gsd
    coarser = bool(pixel and size and pixel > size)
    if coarser:
        size = pixel
    away = abs(math.log(gsd / size)) if gsd and size else gsd or 0.0
    return (
        asset.key.lower().endswith(("-jp2", "_jp2", ".jp2")),
        len(asset.bands) > 1,
        coarser and (gsd or 0.0) > (size or 0.0) * 1.01,
        not coarser and sampling != "sampling:original",
        round(away, 3),
        gsd or 0.0,
        len(asset.key),
        asset.key,
    )
