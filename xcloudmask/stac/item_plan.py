"""What a STAC item means for the loader: the plan that `plan.py` writes, and what reading one asset needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xcloudmask.stac.assumptions import Assumption
from xcloudmask.stac.boxes import Bounds
from xcloudmask.stac.grid import AssetGrid
from xcloudmask.types import Band, Level


@dataclass(frozen=True, slots=True)
class ValidRule:
    """How a quality asset tells the pixels to be used.

    A pixel is valid if ``(value & mask) == expected`` (bit masks such as Proba-V's status map), or, where
    `mask` is None, if its value is not one of `invalid_values`. Where `Source.good_bit` says which bit of
    the mask is a band's own, that one alone counts for it.
    """

    key: str
    href: str
    mask: int | None = None
    expected: int = 0
    invalid_values: tuple[int, ...] = ()
    index: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """One asset to read as one band: ``value = number * scale + offset``, then temperature if K1, K2.

    Sun elevation and every other per-scene factor is already inside `scale` and `offset`. A task graph, which
    carries many sources, does so without `band` and `place`.
    """

    key: str  # which asset of its item
    href: str
    band: Band | None = None  # what it is read as
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    k1: float | None = None
    k2: float | None = None
    index: int = 1  # band of the file, from 1
    dtype: str | None = None  # what the file holds, as far as scale and offset rest on it
    good_bit: int | None = None  # which bit of `valid` tells of this band alone
    item_id: str = ""  # for messages
    crs: str | None = None  # that the item declares for the file
    valid: ValidRule | None = None  # which pixels count
    place: AssetGrid | None = None  # where the item says that the file lies
    unplaced: bool = False  # the item tells no first pixel: the grid is that of the sensor's products
    bounds: Bounds | None = None  # on the CRS of the grid that is read, None if unknown
    remote: bool = False  # of a catalogue elsewhere, so it may name no path of this machine
    access: str = ""  # what the item says of storage and authentication, for messages

    def bounds_on(self, crs: str) -> Bounds | None:
        """Return the box on another CRS, None where it is not known."""
        return self.place.bounds_in(crs) if self.place else None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        rule = self.valid
        rule_key = rule and (rule.href, rule.mask, rule.expected, rule.invalid_values, rule.index)
        numbers = (self.index, self.scale, self.offset, self.nodata, self.k1, self.k2)
        return (self.item_id, self.key, self.href, *numbers, self.crs, self.bounds, rule_key, self.good_bit)


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """Everything `load.py` needs to know of one item; nothing here was read from a pixel."""

    item_id: str
    collection: str | None
    catalogue: str
    sensor: str
    level: Level
    datetime: str  # as the item states it
    time: np.datetime64
    assets: tuple[Source, ...]
    valid: ValidRule | None = None
    sun_elevation: float | None = None
    sun_azimuth: float | None = None
    crs: str | None = None  # "EPSG:32632", or None where the item does not tell
    baseline: str | None = None
    updated: str | None = None
    offset_rule: str = "none"  # what decided the offset, in words
    evidence: tuple[str, ...] = field(default=())
    assumptions: tuple[Assumption, ...] = ()
    address: str = ""  # of the item itself
