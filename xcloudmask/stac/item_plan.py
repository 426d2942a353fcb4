"""What a STAC item means for the loader: the plan that `plan.py` writes and `load.py` carries out."""

from __future__ import annotations

from dataclasses import dataclass, field

from xcloudmask.stac.assumptions import Doubt
from xcloudmask.types import Band, Level


@dataclass(frozen=True, slots=True)
class AssetPlan:
    """One asset to read as one band: ``value = number * scale + offset``, then temperature if K1, K2.

    Sun elevation and every other per-scene factor is already inside `scale` and `offset`.
    """

    key: str
    href: str
    band: Band
    scale: float
    offset: float
    nodata: float | None = None
    k1: float | None = None
    k2: float | None = None
    index: int = 1  # band of the file, counted from 1
    dtype: str | None = None  # what the file holds, as far as scale and offset rest on it
    good_bit: int | None = None  # of the item's `ValidRule`, the one that this band asks for alone


@dataclass(frozen=True, slots=True)
class ValidRule:
    """How a quality asset tells the pixels to be used.

    A pixel is valid if ``(value & mask) == expected`` (bit masks such as Proba-V's status map), or, where
    `mask` is None, if its value is not one of `invalid_values`. Where `AssetPlan.good_bit` says which bit of
    the mask is a band's own, that one alone counts for it.
    """

    key: str
    href: str
    mask: int | None = None
    expected: int = 0
    invalid_values: tuple[int, ...] = ()
    index: int = 1


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """Everything `load.py` needs to know of one item; nothing here was read from a pixel."""

    item_id: str
    collection: str | None
    catalogue: str
    sensor: str
    level: Level
    datetime: str
    assets: tuple[AssetPlan, ...]
    valid: ValidRule | None = None
    sun_elevation: float | None = None
    crs: str | None = None  # "EPSG:32632", or None where the item does not tell
    baseline: str | None = None
    updated: str | None = None
    offset_rule: str = "none"  # what decided the offset, in words
    evidence: tuple[str, ...] = field(default=())
    doubts: tuple[Doubt, ...] = ()  # what had to be assumed
