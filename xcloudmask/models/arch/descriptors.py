"""What a set network is told of each band: where in the spectrum it lies, or that it is radar or height.

Three forms: three numbers a band (SEnSeI, Francis et al. 2022, TGRS 60, 5406121, section III); 74, as the
published network of SEnSeI-v2 has them (Francis 2024, TGRS, doi 10.1109/TGRS.2024.3391625; they differ from
its section III-A); and 72 of our own, in which neighbouring bands differ more. NumPy only, in float64, so
that every process gives the same float32 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from xcloudmask import sensors
from xcloudmask.errors import BandError, OptionError
from xcloudmask.types import Band

Signal = Literal["optical", "thermal", "sar_vv", "sar_vh", "sar_angle", "elevation"]
SIGNALS: tuple[str, ...] = get_args(Signal)

#: Numbers for each edge of a band.
SINUSOIDS = 32
#: Lengths of the descriptors that `describe_v2` and `describe_spread` make.
PUBLISHED_LENGTH = 2 * SINUSOIDS + 10
SPREAD_LENGTH = 2 * SINUSOIDS + 8

#: Edges (nm) that the published SEnSeI-v2 was trained with, wider than those at half maximum: by sensor and
#: common name.
PUBLISHED_EDGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "sentinel-2": {
        "coastal": (425, 461), "blue": (446, 542), "green": (537.5, 582.5), "red": (645.5, 684.5),
        "rededge071": (694, 714), "rededge075": (731, 749), "rededge078": (767, 795),
        "nir": (763.5, 904.5), "nir08": (847.5, 880.5), "nir09": (930.5, 957.5), "cirrus": (1337, 1413),
        "swir16": (1541, 1683), "swir22": (2074, 2314),
    },
    "landsat-8": {
        "coastal": (435, 451), "blue": (452, 512), "green": (533.5, 590.5), "red": (636.5, 673.5),
        "nir08": (851, 879), "swir16": (1566.5, 1651.5), "swir22": (2114.5, 2287.5), "pan": (496.5, 683.5),
        "cirrus": (1363.5, 1384.5),
    },
}  # fmt: skip
#: Sensors whose bands are those of one in `PUBLISHED_EDGES`.
_SAME: Mapping[str, tuple[str, ...]] = {
    "sentinel-2": ("sentinel-2", "sentinel-2a", "sentinel-2b", "sentinel-2c", "hls-s30"),
    "landsat-8": ("landsat-8", "landsat-9", "hls-l30"),
}
#: How far, as a share of the wavelength, an edge may lie from a known one: where a scene comes from several
#: satellites, its edges are the outermost of theirs.
_NEAR = 0.006

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, order=True)
class BandInput:
    """One input of a set network: small, hashable, sortable, so that options and graphs may carry it.

    Reflectance is optical, brightness temperature thermal. The edges of such a band are at half its maximum,
    in nanometres, 0 for the others; its centre, which SEnSeI v1 asks for, lies midway if not given.

    Examples
    --------
    >>> BandInput("optical", 650.0, 680.0).center_nm
    665.0
    """

    signal: Signal
    min_nm: float = 0.0
    max_nm: float = 0.0
    center_nm: float = math.nan

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise OptionError("signal", self.signal, allowed=SIGNALS)
        if math.isnan(self.center_nm):
            object.__setattr__(self, "center_nm", (self.min_nm + self.max_nm) / 2)
        if self.has_wavelength and not 300 < self.min_nm <= self.center_nm <= self.max_nm < math.inf:
            raise BandError(
                "a set network describes a band by its wavelengths in nanometres, above 300 and "
                f"rising; got min {self.min_nm}, centre {self.center_nm}, max {self.max_nm}"
            )

    @property
    def has_wavelength(self) -> bool:
        """Whether it is described by its edges.

        Examples
        --------
        >>> BandInput("elevation").has_wavelength
        False
        """
        return self.signal in ("optical", "thermal")

    @classmethod
    def from_band(cls, band: Band) -> BandInput:
        """Return what a set network needs to know of `band`.

        Examples
        --------
        >>> BandInput.from_band(Band("B04", "red", 650.0, 665.0, 680.0)).max_nm
        680.0
        >>> BandInput.from_band(Band("vv", kind="sar")).signal
        'sar_vv'
        """
        if band.kind == "elevation":
            return cls("elevation")
        if band.kind == "sar":
            names = " ".join((band.name, band.common_name or "", *band.aliases)).lower()
            for word, signal in (("vv", "sar_vv"), ("vh", "sar_vh"), ("angle", "sar_angle")):
                if word in names:
                    return cls(signal)  # type: ignore[arg-type]
            raise BandError(f"radar band {band.name!r}: its name should say vv, vh or angle")
        if band.min_nm is None or band.max_nm is None:
            raise BandError(
                f"band {band.name!r} has no min_nm and max_nm, which a model for any bands needs; name the "
                "sensor with describe(sensor=...), or give the array coordinates min_nm and max_nm"
            )
        center = math.nan if band.center_nm is None else band.center_nm
        return cls("optical" if band.kind == "reflectance" else "thermal", band.min_nm, band.max_nm, center)


def scaled_wavelength(nm: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ``log10(nm - 300) - 2``, equation 1 of SEnSeI-v2 and 5 of SEnSeI.

    Examples
    --------
    >>> scaled_wavelength([400, 1300]).tolist()
    [0.0, 1.0]
    """
    return np.log10(np.asarray(nm, np.float64) - 300) - 2


def describe_v1(bands: Sequence[BandInput]) -> Float:
    """Return SEnSeI's descriptors, (bands, 3): scaled lower, central and upper wavelength.

    Examples
    --------
    >>> describe_v1([BandInput("optical", 400, 600, 500)]).tolist()[0][0]
    0.0
    """
    for band in bands:
        if not band.has_wavelength:
            raise BandError(f"SEnSeI v1 takes bands with a wavelength only, got {band.signal!r}")
    edges = np.array([(b.min_nm, b.center_nm, b.max_nm) for b in bands], np.float64).reshape(-1, 3)
    return scaled_wavelength(edges).astype(np.float32)


def with_published_edges(band: BandInput) -> BandInput:
    """Give a band of Sentinel-2 or Landsat 8-9 with the edges that SEnSeI-v2 was trained with; others as is.

    Examples
    --------
    >>> with_published_edges(BandInput("optical", 458.4, 523.2)).max_nm, BandInput("optical", 450, 490).max_nm
    (542, 490)
    """
    if band.signal != "optical":
        return band
    here = np.array([band.min_nm, band.max_nm])
    known, published = _known_edges()
    apart = np.abs(known - here)
    nearest = int(apart.sum(axis=1).argmin())
    if (apart[nearest] > _NEAR * here).any():
        return band
    low, high = published[nearest]
    return replace(band, min_nm=low, max_nm=high, center_nm=math.nan)


@cache
def _known_edges() -> tuple[npt.NDArray[np.float64], list[tuple[float, float]]]:
    """Return edges that bands are known by, and the published ones of each."""
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for name, edges in PUBLISHED_EDGES.items():
        pairs += [(own, own) for own in edges.values()]
        for sensor in map(sensors.get, _SAME[name]):
            for band in sensor.bands:
                published = edges.get(band.common_name or "")
                if published is not None and band.min_nm is not None and band.max_nm is not None:
                    pairs.append(((band.min_nm, band.max_nm), published))
    return np.array([own for own, _ in pairs], np.float64), [trained for _, trained in pairs]


def describe_v2(bands: Sequence[BandInput]) -> Float:
    """Return the descriptors of the published SEnSeI-v2, (bands, 74).

    Numbers 0-31 encode the lower, 32-63 the upper edge v in nanometres: number i, from 0, is the sine
    (i even) or cosine (i odd) of ``v / 10000 ** (2 i / 32)``. VV has ones in place of the lower edge, VH of
    the upper, the incidence angle of both. Flags: 64 optical and thermal, 65 radar, 66 elevation, 67 thermal.

    Examples
    --------
    >>> rows = describe_v2([BandInput("thermal", 10600, 11190), BandInput("elevation")])
    >>> rows.shape, rows[:, 64:].nonzero()
    ((2, 74), (array([0, 0, 1]), array([0, 3, 2])))
    """
    i = np.arange(SINUSOIDS)
    out = np.zeros((len(bands), PUBLISHED_LENGTH), np.float64)
    for row, band in zip(out, bands, strict=True):
        edges = row[: 2 * SINUSOIDS].reshape(2, SINUSOIDS)
        if band.has_wavelength:
            angle = np.array([[band.min_nm], [band.max_nm]]) / 10000 ** (2 * i / SINUSOIDS)
            edges[:] = np.where(i % 2 == 0, np.sin(angle), np.cos(angle))
            row[64], row[67] = 1, band.signal == "thermal"
        elif band.signal == "elevation":
            row[66] = 1
        else:
            edges[0], edges[1] = band.signal != "sar_vh", band.signal != "sar_vv"
            row[65] = 1
    return out.astype(np.float32)


def describe_spread(bands: Sequence[BandInput]) -> Float:
    """Return descriptors of our own, (bands, 72).

    Numbers 0-31 encode the lower, 32-63 the upper edge: cosine and sine of the scaled wavelength times 0.5 to
    64. With the published frequencies on that scale most numbers would hardly change from the visible to the
    thermal. 64 says radar, 65 says elevation; for radar, 0, 1 and 2 say VV, VH and incidence angle.

    Examples
    --------
    >>> describe_spread([BandInput("elevation")]).nonzero()[1].tolist()
    [65]
    """
    frequency = np.repeat(np.geomspace(0.5, 64, SINUSOIDS // 2), 2)
    out = np.zeros((len(bands), SPREAD_LENGTH), np.float64)
    for row, band in zip(out, bands, strict=True):
        if band.has_wavelength:
            angle = scaled_wavelength([[band.min_nm], [band.max_nm]]) * frequency
            odd = np.arange(SINUSOIDS) % 2 == 1
            row[: 2 * SINUSOIDS] = np.where(odd, np.sin(angle), np.cos(angle)).ravel()
        elif band.signal == "elevation":
            row[65] = 1
        else:
            row[64] = 1
            row[("sar_vv", "sar_vh", "sar_angle").index(band.signal)] = 1
    return out.astype(np.float32)
