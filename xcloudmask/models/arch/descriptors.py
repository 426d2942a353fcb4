"""What a set network is told of each band: where in the spectrum it lies, or that it is radar or height.

Two forms: three numbers a band (SEnSeI, Francis et al. 2022, TGRS 60, 5406121, section III) and 64
sinusoids with flags (SEnSeI-v2, Francis 2024, TGRS, doi 10.1109/TGRS.2024.3391625, section III-A). NumPy
only, in float64, so that every process gives the same float32 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from xcloudmask.errors import BandError, OptionError
from xcloudmask.types import Band

Signal = Literal["optical", "sar_vv", "sar_vh", "sar_angle", "elevation"]
SIGNALS: tuple[str, ...] = get_args(Signal)

#: How wavelengths enter the sinusoids: as the paper's formulas say, in nanometres as the published code
#: does, or with frequencies that tell neighbouring bands apart (see `spectral_encoding`).
Encoding = Literal["paper", "nm", "spread"]

SINUSOIDS = 32
FLAGS = 8
_SAR_AT, _ELEVATION_AT = 2 * SINUSOIDS, 2 * SINUSOIDS + 1

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, order=True)
class BandInput:
    """One input of a set network: small, hashable, sortable, so that options and graphs may carry it.

    Parameters
    ----------
    signal : {"optical", "sar_vv", "sar_vh", "sar_angle", "elevation"}
        Reflectance and brightness temperature are both optical: their wavelengths tell them apart.
    min_nm, max_nm : float
        Edges of an optical band at half its maximum, in nanometres; 0 for the others.
    center_nm : float
        Its centre; SEnSeI v1 asks for it. Midway if not given.

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
        if self.signal == "optical" and not 300 < self.min_nm <= self.center_nm <= self.max_nm < math.inf:
            raise BandError(
                "a set network describes an optical band by its wavelengths in nanometres, above 300 and "
                f"rising; got min {self.min_nm}, centre {self.center_nm}, max {self.max_nm}"
            )

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
        return cls("optical", band.min_nm, band.max_nm, center)


def scaled_wavelength(nm: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ``log10(nm - 300) - 2``, equation 1 of SEnSeI-v2 and 5 of SEnSeI.

    Examples
    --------
    >>> scaled_wavelength([400, 1300]).tolist()
    [0.0, 1.0]
    """
    return np.log10(np.asarray(nm, np.float64) - 300) - 2


def spectral_encoding(nm: npt.ArrayLike, encoding: Encoding = "paper") -> npt.NDArray[np.float64]:
    """Return the 32 sinusoids of each wavelength, along a new last axis.

    Entry i = 1..32 is ``sin(w_i l)`` where i is even, ``cos(w_i l)`` where it is odd, with
    ``w_i = 10000 ** (-2 i / 32)``.

    Parameters
    ----------
    nm : array-like
        Wavelengths in nanometres.
    encoding : {"paper", "nm", "spread"}
        ``"paper"``: l is the scaled wavelength. ``"nm"``: l is the wavelength in nanometres, as the
        published network was trained. ``"spread"`` is ours: l is the scaled wavelength and w_i rises
        geometrically from 0.5 to 64, sine and cosine of each, because with the paper's frequencies (0.56
        and below, on a range of 3) most entries hardly change from the visible to the thermal.

    Examples
    --------
    >>> import math
    >>> round(float(spectral_encoding(400.0)[0]), 6), round(float(spectral_encoding(1300.0)[1]), 6)
    (1.0, 0.310984)
    >>> round(math.sin(10000 ** (-4 / 32)), 6)
    0.310984
    """
    index = np.arange(1, SINUSOIDS + 1)
    if encoding not in get_args(Encoding):
        raise OptionError("encoding", encoding, allowed=get_args(Encoding))
    if encoding == "spread":
        frequency = np.repeat(np.geomspace(0.5, 64, SINUSOIDS // 2), 2)
    else:
        frequency = 10000.0 ** (-2 * index / SINUSOIDS)
    values = np.asarray(nm, np.float64) if encoding == "nm" else scaled_wavelength(nm)
    angle = values[..., None] * frequency
    return np.where(index % 2 == 0, np.sin(angle), np.cos(angle))


def describe_v1(bands: Sequence[BandInput]) -> Float:
    """Return SEnSeI's descriptors, (bands, 3): scaled lower, central and upper wavelength.

    Examples
    --------
    >>> describe_v1([BandInput("optical", 400, 600, 500)]).tolist()[0][0]
    0.0
    """
    for band in bands:
        if band.signal != "optical":
            raise BandError(f"SEnSeI v1 takes bands with a wavelength only, got {band.signal!r}")
    edges = np.array([(b.min_nm, b.center_nm, b.max_nm) for b in bands], np.float64).reshape(-1, 3)
    return scaled_wavelength(edges).astype(np.float32)


def describe_v2(bands: Sequence[BandInput], encoding: Encoding = "paper") -> Float:
    """Return SEnSeI-v2's descriptors, (bands, 72).

    Entries 0-31 encode the lower, 32-63 the upper wavelength; 64 says radar, 65 says elevation, 66-71 are
    unused. For radar, entries 0, 1 and 2 say VV, VH and incidence angle; elevation leaves 0-63 at zero.
    Where the flags lie, and how many are spare, the paper does not tell: this layout is ours.

    Examples
    --------
    >>> red, height = BandInput("optical", 650, 680), BandInput("elevation")
    >>> describe_v2([red, height]).shape
    (2, 72)
    >>> describe_v2([height]).nonzero()[1].tolist()
    [65]
    """
    out = np.zeros((len(bands), 2 * SINUSOIDS + FLAGS), np.float64)
    for row, band in zip(out, bands, strict=True):
        if band.signal == "optical":
            row[: 2 * SINUSOIDS] = spectral_encoding([band.min_nm, band.max_nm], encoding).ravel()
        elif band.signal == "elevation":
            row[_ELEVATION_AT] = 1
        else:
            row[_SAR_AT] = 1
            row[("sar_vv", "sar_vh", "sar_angle").index(band.signal)] = 1
    return out.astype(np.float32)
