"""Where a sensor, or whoever clipped its numbers, says no more than that a pixel is bright."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xcloudmask.engine.pixels import CEILING
from xcloudmask.errors import BandError, OptionError, UnitError, Use
from xcloudmask.types import Band

VISIBLE = ("coastal", "blue", "green", "yellow", "red")
#: Wavelengths (nm) below which a band is visible.
LONGEST_VISIBLE = 700.0


def check_saturation(saturation: Any) -> None:
    """Refuse what is no reflectance, or no mapping of bands to it."""
    figures = saturation.values() if isinstance(saturation, Mapping) else [saturation]
    for figure in () if saturation is None else figures:
        if isinstance(figure, bool) or not isinstance(figure, (int, float)) or not 0 < figure <= CEILING:
            raise UnitError(
                f" must be a reflectance above 0 and up to {CEILING:g}, as it is after scale and offset: one "
                "for all visible bands, or a mapping such as {'blue': 0.4, 'red': 0.4}",
                option=Use(saturation=saturation),
            )


def saturation_of(saturation: float | Mapping[str, float] | None, bands: Sequence[Band]) -> Any:
    """Return from which reflectance on each band is saturated, infinite where it is not looked at; or None.

    Parameters
    ----------
    saturation : float, mapping or None
        Of all visible bands, or of each band by its name.
    bands : sequence of Band
        Those that the model is given.

    Examples
    --------
    >>> saturation_of(0.4, [Band("B04", "red"), Band("B08", "nir")])
    (0.4, inf)
    """
    if not saturation:
        return None
    names = [band.common_name or band.name for band in bands]
    if isinstance(saturation, Mapping):
        figures: dict[str, float] = {}
        for name, figure in saturation.items():
            band = next((band for band in bands if name in (band.common_name, band.name)), None)
            if band is None:
                raise OptionError("band of saturation", name, allowed=names)
            figures[band.name] = float(figure)
    else:
        figures = {band.name: float(saturation) for band in bands if _visible(band)}
    if not figures:
        raise BandError(
            f" speaks of visible bands, and the model is given {', '.join(names)}:",
            "name its bands, saturation={'nir': 0.6}, or leave it out",
            option=Use(saturation=saturation),
        )
    return tuple(figures.get(band.name, math.inf) for band in bands)


def _visible(band: Band) -> bool:
    if band.common_name is not None:
        return band.common_name in VISIBLE
    return band.center_nm is not None and band.center_nm < LONGEST_VISIBLE
