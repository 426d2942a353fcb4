"""The keywords of `load` and `register`: the fields of `ModelSpec` that callers may give, and ``units``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypedDict

from xcloudmask import types
from xcloudmask.errors import OptionError, UnitError
from xcloudmask.types import AuxInput

Numbers = tuple[float, ...]

#: In which numbers a network wants reflectance.
_FORM = re.compile(r"reflectance(?:\s*\*\s*(\d+(?:\.\d+)?))?")


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
    finest_pixel: float | None
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
    return {
        name: types.card_value(by_name[name], value) if name in by_name else value
        for name, value in card.items()
        if value is not None
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


def factor(units: str) -> float:
    """Return what reflectance is multiplied by, in words such as ``"reflectance*10000"``.

    Examples
    --------
    >>> factor("reflectance"), factor("reflectance*10000")
    (1.0, 10000.0)
    """
    found = _FORM.fullmatch(units) if isinstance(units, str) else None
    if found is None or float(found[1] or 1) == 0:
        raise OptionError("units", units, allowed=("reflectance", "reflectance*10000", "reflectance*255"))
    return float(found[1] or 1)


def normalisation(
    units: str | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Numbers | None, Numbers | None]:
    """Return mean and deviation for reflectance from 0 to 1, from those in the network's units.

    Examples
    --------
    >>> normalisation("reflectance*10000", [1000.0], [500.0])
    ((0.1,), (0.05,))
    >>> normalisation("reflectance*10000", None, None)
    (None, (0.0001,))
    """
    if units is None:
        if max([abs(value) for value in (*(mean or ()), *(std or ()))], default=0.0) > 2:
            raise UnitError(
                f"mean {_short(mean)} and std {_short(std)} are too large for reflectance from 0 to 1: say "
                "in which units they are, such as units='reflectance*10000'"
            )
        units = "reflectance"
    by = factor(units)
    if by != 1 and std is None:
        std = (1.0,)
    return (
        None if mean is None else tuple(float(value) / by for value in mean),
        None if std is None else tuple(float(value) / by for value in std),
    )


def _short(numbers: Sequence[float] | None) -> str:
    return "not given" if numbers is None else ", ".join(f"{value:g}" for value in numbers)
