"""Quirks of catalogues, `profiles.toml` beside this module: what its items, assets and numbers are like.

A package brings profiles by an entry point of the group ``xcloudmask.profiles``, which leads to the path of a
file of the same form; they go before ours.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

from xcloudmask import sensors
from xcloudmask.sensors._plugins import installed, warn_of
from xcloudmask.stac.view import ItemView
from xcloudmask.types import Kind, Level, Sensor

Calibration = Literal["stated", "sentinel-2", "landsat-mtl"]

#: Of the entry points by which other packages bring profiles.
GROUP = "xcloudmask.profiles"

#: The catalogue of an item that no profile fits: it must state its own scale.
UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Scale, offset and nodata of a kind of band where its item states none; None: not known either."""

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality layer of a product and the pixels to be used; see `profiles.toml`."""

    keys: tuple[str, ...]
    mask: int | None = None
    expected: int = 0
    good_bits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """A product as one catalogue serves it."""

    catalogue: str
    calibration: Calibration
    numbers: Mapping[Kind, Numbers]
    level: Level | None = None
    sensor: str | None = None
    quality: Quality | None = None
    harmonised: bool = False
    constant_offset: bool = False
    flagged: bool = False  # items say whether Sentinel-2's offset was taken from the pixels

    @property
    def is_listed(self) -> bool:
        """Whether the catalogue is one that `profiles.toml` describes."""
        return self.catalogue != UNLISTED


#: Patterns of a profile's collections, its marks, and what it says.
Listed = tuple[tuple[str, ...], tuple[tuple[str, str], ...], Profile]


def find_profile(view: ItemView) -> Profile | None:
    """Return the profile that fits an item, None where its catalogue is not listed.

    Examples
    --------
    >>> from xcloudmask.stac.view import view_item
    >>> item = {"id": "x", "collection": "sentinel-2-c1-l2a", "properties": {}, "assets": {}}
    >>> find_profile(view_item(item)).catalogue
    'earth-search-v1'
    """
    collection = (view.collection or "").lower()
    for patterns, marks, profile in _profiles():
        if any(fnmatchcase(collection, p) for p in patterns) and _marked(view, marks):
            return profile
    return None


def unlisted_profile(sensor: Sensor | None, level: Level | None) -> Profile:
    """Return what an item of no listed catalogue is taken for: only what its sensor implies."""
    name = sensor.name if sensor else ""
    if name.startswith("sentinel-2"):
        product = "sentinel-2-unlisted"
    elif name.startswith("landsat"):
        product = "landsat-l1" if level == "toa" else "landsat-unlisted"
    else:
        product = ""
    return _profile(UNLISTED, _data()["products"].get(product, {}), level=level)


def sensor_of(view: ItemView, profile: Profile | None) -> Sensor | None:
    """Return the sensor of an item: its product's own, or by its properties, or by its name.

    Examples
    --------
    >>> from xcloudmask.stac.view import view_item
    >>> sensor_of(view_item({"id": "LC08_X", "properties": {}, "assets": {}}), None).name
    'landsat-8'
    """
    if profile and profile.sensor:
        return sensors.get(profile.sensor)
    instruments = view.first("instruments", "eo:instrument")
    if not isinstance(instruments, (list, tuple)):
        instruments = (instruments,) if instruments else ()
    sensor = sensors.identify(
        view.text("platform", "eo:platform"),
        list(map(str, instruments)),
        view.text("constellation", "eo:constellation"),
    )
    if sensor is None or sensor.name == "sentinel-2":  # the family only: the name may tell which satellite
        patterns = _data()["sensors"].items()
        by_name = next((name for pattern, name in patterns if fnmatchcase(view.id, pattern)), None)
        sensor = sensors.get(by_name) if by_name else sensor
    return sensor


_PRODUCT_TYPES: Mapping[str, Level] = {"S2MSI1C": "toa", "S2MSI2A": "boa", "MSIL1C": "toa", "MSIL2A": "boa"}
_LEVEL_WORDS: Mapping[str, Level] = {
    **dict.fromkeys(("l1", "l1c", "l1tp", "l1gt", "l1gs", "l1t", "toa"), "toa"),
    **dict.fromkeys(("l2", "l2a", "l2sp", "l2sr", "boa", "toc", "sr"), "boa"),
}


def level_of(view: ItemView) -> Level | None:
    """Return the level that an item of no listed catalogue tells: by its product type, level or names.

    Examples
    --------
    >>> from xcloudmask.stac.view import view_item
    >>> level_of(view_item({"id": "x", "properties": {"processing:level": "L2A"}, "assets": {}}))
    'boa'
    """
    for name in ("s2:product_type", "sentinel2:product_type", "product:type"):
        if level := _PRODUCT_TYPES.get(view.text(name) or ""):
            return level
    stated = ("landsat:correction", "landsat:processing_level", "processing:level")
    names = ("s2:product_uri", "sentinel:product_id")
    for text in (*(view.text(name) for name in (*stated, *names)), view.collection, view.id):
        if level := _level_in(text or ""):
            return level
    return None


def coarse_level_of(view: ItemView) -> Level | None:
    """Return a VITO product's level: TOA or TOC in its names; Proba-V's L2A and VGT's P are TOA.

    Proba-V's level 1C is in the instrument's geometry, so it has no level here: None.
    """
    words = _words(f"{view.collection or ''} {view.id}")
    if "l1c" in words:
        return None
    for word in words:
        if word in ("toa", "toc"):
            return "toa" if word == "toa" else "boa"
    return "toa" if {"l2a", "p", "vgtp"} & set(words) else None


def _level_in(text: str) -> Level | None:
    words = _words(text)
    levels = {_LEVEL_WORDS[word] for word in words if word in _LEVEL_WORDS}
    levels |= {_PRODUCT_TYPES[word.upper()] for word in words if word.upper() in _PRODUCT_TYPES}
    return levels.pop() if len(levels) == 1 else None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def _marked(view: ItemView, marks: tuple[tuple[str, str], ...]) -> bool:
    if not marks:
        return True
    for kind, text in marks:
        if kind == "property":
            if any(name.startswith(text) and value is not None for name, value in view.properties.items()):
                return True
        elif kind == "link":
            if any(text in href for href in view.links):
                return True
        elif any(text in asset.href for asset in view.assets.values()):
            return True
    return False


@cache
def _data() -> dict[str, Any]:
    data = tomllib.loads(
        resources.files("xcloudmask.stac").joinpath("profiles.toml").read_text(encoding="utf-8")
    )
    for origin, text in installed(GROUP):
        try:
            others = tomllib.loads(text)
            products = {**others.get("products", {}), **data["products"]}  # ours keep their names
            profiles = [_read_profile(raw, products) for raw in others["profiles"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            warn_of(GROUP, origin, error)
            continue
        if profiles:
            data["products"], data["profiles"] = products, [*others["profiles"], *data["profiles"]]
    return data


@cache
def _profiles() -> tuple[Listed, ...]:
    data = _data()
    return tuple(_read_profile(raw, data["products"]) for raw in data["profiles"])


def _read_profile(raw: Mapping[str, Any], products: Mapping[str, Any]) -> Listed:
    """Return the patterns of collections, the marks and the profile of one table of `profiles.toml`."""
    marks = tuple((mark.split(":", 1)[0], mark.split(":", 1)[1]) for mark in raw.get("marks", ()))
    level = None if raw["level"] == "name" else cast(Level, raw["level"])
    profile = _profile(
        raw["catalogue"],
        products[raw["product"]],
        level=level,
        constant_offset=raw.get("constant_offset", False),
        flagged=raw.get("flagged", False),
    )
    return tuple(raw["collections"]), marks, profile


def _profile(
    catalogue: str,
    product: Mapping[str, Any],
    *,
    level: Level | None,
    constant_offset: bool = False,
    flagged: bool = False,
) -> Profile:
    kinds: tuple[Kind, ...] = ("reflectance", "brightness_temperature")
    quality = product.get("quality")
    return Profile(
        catalogue=catalogue,
        calibration=product.get("calibration", "stated"),
        numbers={
            kind: Numbers(**{name: float(value) for name, value in product[kind].items()})
            for kind in kinds
            if kind in product
        },
        level=level,
        sensor=product.get("sensor"),
        quality=Quality(**{**quality, "keys": tuple(quality["keys"])}) if quality else None,
        harmonised=product.get("harmonised", False),
        constant_offset=constant_offset,
        flagged=flagged,
    )
