"""The keywords of `load` and `register`: the fields of `ModelSpec` that callers may give, and ``units``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypedDict

from xcloudmask import types
from xcloudmask.errors import OptionError
from xcloudmask.models.units import normalisation
from xcloudmask.types import AuxInput


class CardKeywords(TypedDict, total=False):
    """What `load` and `register` take, for type checkers and completion; a test holds it to the fields."""

    name: str | None
    bands: Iterable[str] | None
    classes: Iterable[str] | None
    aux: Iterable[AuxInput | str] | None
    min_bands: int | None
    fills: bool | None
    spare: Iterable[str] | None
    units: str | None
    mean: Iterable[float] | float | None
    std: Iterable[float] | float | None
    activation: str | None
    uncertainty: bool | None
    level: str | None
    gsd: tuple[float, float] | None
    patch: int | None
    largest_patch: int | None
    overlap: int | None
    gaps: str | None
    threshold: float | None
    shadow_threshold: float | None
    architecture: str | None
    config: Mapping[str, object] | None
    sha256: str | None
    reduce: str | None
    training_data: str | None
    chosen: str | None
    scores: str | None
    limits: str | None
    cost: str | None
    licence: str | None
    citation: str | None
    description: str | None


def keywords(*, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all keywords.

    Examples
    --------
    >>> "shadow_threshold" in keywords(), "loader" in keywords()
    (True, False)
    """
    given = (entry.name for entry in fields(types.ModelSpec) if not entry.metadata.get("made"))
    return tuple(name for name in (*given, "units") if name not in without)


def checked(card: Mapping[str, Any], *, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a caller gives (None stands for nothing) in the forms of the fields, or name what is wrong.

    Examples
    --------
    >>> checked({"bands": ["red", "nir"], "level": "L1C", "gsd": None})
    {'bands': ('red', 'nir'), 'level': 'toa'}
    >>> checked({"band": ["red"]})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown keyword 'band'; did you mean 'bands'? Allowed: name, bands, ...
    """
    allowed = keywords(without=without)
    for name in card:
        if name not in allowed:
            raise OptionError("keyword", name, allowed=allowed)
    by_name = {entry.name: entry for entry in fields(types.ModelSpec)}
    given = {name: value for name, value in card.items() if value is not None}
    return {
        name: types.card_value(by_name[name], value) if name in by_name else value
        for name, value in given.items()
    }


def plain_name(text: str) -> str:
    """Return a text as a model may be called.

    Examples
    --------
    >>> plain_name("../U-Net (new)")
    'U-Net-new'
    """
    return re.sub(r"[^A-Za-z0-9_.+\-]+", "-", text).strip("-.") or "model"


def with_units(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields, mean and deviation for reflectance from 0 to 1 in the place of ``units``."""
    mean, std = normalisation(given.get("units"), given.get("mean"), given.get("std"))
    return {**{name: given[name] for name in given if name != "units"}, "mean": mean, "std": std}
