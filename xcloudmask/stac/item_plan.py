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

    Sun elevation and every other per-scene factor is already inside `scale` and `offset`.

    Parameters
    ----------
    key, href : str
        Which asset of its item, and where it is.
    band : Band or None
        What it is read as; left out of a task graph, which carries many sources.
    scale, offset, nodata, k1, k2 : float or None
        The calibration.
    index : int
        Band of the file, from 1.
    dtype : str or None
        What the file holds, as far as scale and offset rest on it.
    good_bit : int or None
        Which bit of `valid` tells of this band alone.
    item_id : str
        Of the item, for messages.
    crs : str or None
        CRS that the item declares for the file.
    valid : ValidRule or None
        Which pixels count.
    place : AssetGrid or None
        Where the item says that the file lies; left out of a task graph.
    unplaced : bool
        Whether the item does not say where its pixels begin, and the grid has those of the sensor's products.
    bounds : tuple of float or None
        Box on the CRS of the grid that is read, None if unknown.
    remote : bool
        Whether the item is from a catalogue elsewhere, so that it may name no path of this machine.
    access : str
        What the item says of storage and authentication, for messages.
    """

    key: str
    href: str
    band: Band | None = None
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    k1: float | None = None
    k2: float | None = None
    index: int = 1
    dtype: str | None = None
    good_bit: int | None = None
    item_id: str = ""
    crs: str | None = None
    valid: ValidRule | None = None
    place: AssetGrid | None = None
    unplaced: bool = False
    bounds: Bounds | None = None
    remote: bool = False
    access: str = ""

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
