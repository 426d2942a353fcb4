"""Frozen value objects that travel through the library.

They hold numbers and names only, so they hash, compare and pickle cheaply: a task graph may carry them
by the ten thousand. They validate themselves when made, so code further down need not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from xcloudmask.errors import OptionError

Kind = Literal["reflectance", "brightness_temperature", "sar", "elevation"]
Level = Literal["toa", "boa"]

KINDS: tuple[str, ...] = get_args(Kind)

#: What people write for the two processing levels, and what we call them.
LEVEL_ALIASES: Mapping[str, Level] = {
    **dict.fromkeys(("toa", "l1", "l1c", "l1t", "l1tp", "l1gt", "l1gs", "1c"), "toa"),
    **dict.fromkeys(("boa", "toc", "sr", "surface", "l2", "l2a", "l2sp", "l2sr", "2a"), "boa"),
}


def parse_level(level: str) -> Level:
    """Return ``"toa"`` or ``"boa"`` for any of the usual names of a processing level.

    Examples
    --------
    >>> parse_level("L2A")
    'boa'
    """
    try:
        return LEVEL_ALIASES[level.strip().lower()]
    except (KeyError, AttributeError):
        raise OptionError("level", level, allowed=LEVEL_ALIASES) from None


@dataclass(frozen=True, slots=True)
class Band:
    """One band of an instrument.

    Parameters
    ----------
    name : str
        The provider's own name, ``"B04"``.
    common_name : str or None
        STAC common name, ``"red"``.
    min_nm, center_nm, max_nm : float or None
        Where the response is at half its maximum, and its centre, in nanometres. None for bands that
        have no wavelength (elevation).
    gsd : float or None
        Pixel size in metres.
    kind : str
        What the numbers mean: reflectance, brightness_temperature, sar or elevation.
    aliases : tuple of str
        Other names in use for the same band.

    Examples
    --------
    >>> Band("B04", "red", 649.3, 664.6, 679.9, gsd=10).center_nm
    664.6
    """

    name: str
    common_name: str | None = None
    min_nm: float | None = None
    center_nm: float | None = None
    max_nm: float | None = None
    gsd: float | None = None
    kind: Kind = "reflectance"
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError("kind", self.kind, allowed=KINDS)
        edges = (self.min_nm, self.center_nm, self.max_nm)
        if any(edge is not None for edge in edges):
            known = [edge for edge in edges if edge is not None]
            if known != sorted(known):
                raise ValueError(
                    f"band {self.name!r}: wavelengths must rise from min to centre to max, got {edges}"
                )


@dataclass(frozen=True, slots=True)
class Sensor:
    """An instrument: its bands and the names by which it is known.

    Examples
    --------
    >>> Sensor("toy", "A toy", (Band("1", "red"),)).band("red").name
    '1'
    """

    name: str
    title: str
    bands: tuple[Band, ...]
    aliases: tuple[str, ...] = ()
    metadata: tuple[tuple[str, Any], ...] = field(default=(), compare=False)

    def band(self, name: str) -> Band:
        """Return the band known as `name`: its own name, an alias, or its common name."""
        wanted = name.casefold()
        for names in (
            lambda b: (b.name,),
            lambda b: b.aliases,
            lambda b: (b.common_name or "",),
        ):
            for band in self.bands:
                if wanted in (str(n).casefold() for n in names(band)):
                    return band
        raise OptionError("band", name, allowed=[b.name for b in self.bands])
