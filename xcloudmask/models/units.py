"""In which numbers a network wants reflectance, and the arithmetic that takes it there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from xcloudmask.errors import OptionError, UnitError

Numbers = tuple[float, ...]

_FORM = re.compile(r"reflectance(?:\s*\*\s*(\d+(?:\.\d+)?))?")


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
