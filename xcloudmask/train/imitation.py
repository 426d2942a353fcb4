"""Fine images as a coarse instrument would have recorded them, with the share of each pixel that is cloud.

There are no labelled multi-band pixels of Proba-V and SPOT-VGT. This forward model makes the next best from
Landsat and Sentinel-2, in the order of nature:

1. **Bands.** A band of the instrument is the mean of the source's bands, each weighted by the width in
   nanometres that both share. One source at least must share a quarter of its own width, or of the
   band's: Sentinel-2's blue shares 12 nm with VGT's 40, and that is the worst.
2. **Point spread.** A Gaussian with a modulation of 0.3 at the Nyquist frequency of the native pixel.
3. **Sampling.** The centres of the product's grid, 1/336 or 1/112 degree as at the equator (331 and 994 m).
4. **Noise.** White, 0.002 in reflectance.
5. **Labels.** The share of a pixel's area that each class covers, from the fine labels; a class stays
   possible where a third of the labelled area leaves it open.

Known are bands (`xcloudmask.sensors`), grids and native pixels (ESA's page of Proba-V: 100 m and, for 1.6 um,
200 m at nadir, 1165 m for VGT). **Modulation and noise are round figures of instruments of this kind, assumed
and not measured.** Left out are the view far from nadir, the angle between bands, saturation and the shift
between bands. An imitation says how a model takes coarse pixels of these bands; it is no evidence on the
instruments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, OptionError, names_checked
from xcloudmask.metrics.labels import BITS, QUESTIONS
from xcloudmask.train.samples import Sample
from xcloudmask.types import Band

#: Metres of a degree on the equator.
DEGREE = 111_319.5
#: Assumed, see above: modulation at the Nyquist frequency, and noise in reflectance.
MODULATION, NOISE = 0.3, 0.002
#: A band made of sources that share less would be another band.
LEAST_SHARED = 0.25


@dataclass(frozen=True, slots=True)
class Instrument:
    """A product of an instrument: pixels of its grid and of its detectors, in metres."""

    sensor: str
    pixel: float
    native: float
    native_swir: float


INSTRUMENTS: Mapping[str, Instrument] = {
    # of a 300 m product, detectors see 100 to 360 m (1.6 um: twice that), so about its pixel in the mean
    "proba-v": Instrument("proba-v", DEGREE / 336, DEGREE / 336, 2 * DEGREE / 336),
    "proba-v-1km": Instrument("proba-v", DEGREE / 112, DEGREE / 112, DEGREE / 112),
    "spot-vgt1": Instrument("spot-vgt1", DEGREE / 112, 1165.0, 1165.0),
    "spot-vgt2": Instrument("spot-vgt2", DEGREE / 112, 1165.0, 1165.0),
}


@dataclass(frozen=True, eq=False, slots=True)
class Imitated:
    """A coarse sample, and what covers its pixels.

    Parameters
    ----------
    sample : Sample
        Bands of the instrument, labels as bit masks.
    cover : mapping of str to array of float32, (y, x)
        Share of the area that is cloud, and cloud shadow, out of that whose label decides it; NaN where that
        is less than half of the pixel.
    """

    sample: Sample
    cover: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Imitation:
    """What makes samples of an instrument; see `imitate`."""

    instrument: Instrument
    modulation: float = MODULATION
    noise: float = NOISE

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """The instrument's bands."""
        return sensors.get(self.instrument.sensor).bands

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Imitated | None:
        """Return a sample as the instrument would have it; None where it lacks a band.

        Without a generator there is no noise. A pixel that gets less than half its light from data is none.
        """
        weights = [shared(band, sample.bands) for band in self.bands]
        if any(each is None for each in weights):
            return None
        pixel = self.instrument.pixel
        if pixel < 1.5 * sample.gsd:
            raise CloudMaskError(
                f"{sample.scene}: pixels of {sample.gsd:g} m are too coarse to imitate {pixel:.0f} m by"
            )
        rows, columns = (int(size * sample.gsd / pixel) for size in sample.possible.shape)
        if not rows or not columns:
            return None
        planes = []
        for band, each in zip(self.bands, weights, strict=True):
            swir = (band.center_nm or 0) > 1400
            native = self.instrument.native_swir if swir else self.instrument.native
            mixed = np.tensordot(np.asarray(each, np.float32), np.nan_to_num(sample.image), axes=1)
            planes.append(self._sampled(mixed, sample.valid, native / sample.gsd, rows, columns, sample.gsd))
        image = np.stack(planes)
        if rng is not None:
            image += rng.normal(0, self.noise, image.shape).astype(np.float32)
        over = [area_weights(size, count, pixel / sample.gsd)
                for size, count in zip(sample.possible.shape, (rows, columns), strict=True)]  # fmt: skip
        possible, cover = _labels(sample.possible, over[0], over[1])
        made = replace(
            sample,
            image=image.astype(np.float32, copy=False),
            bands=self.bands,
            possible=possible,
            gsd=pixel,
            soft_labels=None,
        )
        return Imitated(made, cover)

    def _sampled(
        self,
        plane: NDArray[np.float32],
        valid: NDArray[np.bool_],
        native: float,
        rows: int,
        columns: int,
        gsd: float,
    ) -> NDArray[np.float32]:
        """Blur a plane, and take it at the centres of coarse pixels."""
        sigma = native * math.sqrt(-2 * math.log(self.modulation)) / math.pi
        weight = ndimage.gaussian_filter(valid.astype(np.float32), sigma, mode="nearest")
        light = ndimage.gaussian_filter(np.where(valid, plane, np.float32(0)), sigma, mode="nearest")
        size = self.instrument.pixel / gsd
        at = np.meshgrid(*((np.arange(n) + 0.5) * size - 0.5 for n in (rows, columns)), indexing="ij")
        weight, light = (
            ndimage.map_coordinates(each, at, order=1, mode="nearest") for each in (weight, light)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weight >= 0.5, light / weight, np.float32(np.nan))


@names_checked
def imitate(name: str, *, modulation: float = MODULATION, noise: float = NOISE) -> Imitation:
    """Return what makes samples of an instrument of finer ones.

    Parameters
    ----------
    name : {"proba-v", "proba-v-1km", "spot-vgt1", "spot-vgt2"}
        The instrument and product: 1/336 degree for proba-v, 1/112 for the others.
    modulation : float
        At the Nyquist frequency of the native pixel, between 0 and 1.
    noise : float
        Standard deviation, in reflectance.

    Examples
    --------
    >>> vgt = imitate("spot-vgt2")
    >>> [band.common_name for band in vgt.bands], round(vgt.instrument.pixel)
    (['blue', 'red', 'nir', 'swir16'], 994)
    """
    if name not in INSTRUMENTS:
        raise OptionError("instrument", name, allowed=INSTRUMENTS)
    if not 0 < modulation < 1:
        raise OptionError("modulation", modulation, hint="Give a share between 0 and 1.")
    return Imitation(INSTRUMENTS[name], modulation, noise)


def shared(band: Band, sources: tuple[Band, ...]) -> list[float] | None:
    """Return the weight of each source in a band, by the nanometres that both share; None if too few.

    Examples
    --------
    >>> sources = (Band("a", min_nm=500, max_nm=640), Band("b", min_nm=640, max_nm=660))
    >>> shared(Band("red", min_nm=600, max_nm=700), sources)
    [0.66..., 0.33...]
    """
    low, high = band.min_nm or 0.0, band.max_nm or 0.0
    widths = []
    near = False
    for each in sources:
        other = each.kind == "reflectance" and each.common_name != "pan"
        start, end = (each.min_nm, each.max_nm) if other else (None, None)
        width = 0.0 if start is None or end is None else max(0.0, min(high, end) - max(low, start))
        near = near or (width > 0 and width >= LEAST_SHARED * min(high - low, (end or 0) - (start or 0)))
        widths.append(width)
    whole = sum(widths)
    return [width / whole for width in widths] if near else None


def area_weights(size: int, count: int, pixel: float) -> NDArray[np.float32]:
    """Return ``[coarse, fine]``: what share of a row of coarse pixels each fine one is.

    Parameters
    ----------
    size, count : int
        Fine pixels, and coarse ones.
    pixel : float
        Fine pixels that a coarse one is wide.

    Examples
    --------
    >>> area_weights(3, 2, 1.5).round(2).tolist()
    [[0.67..., 0.33..., 0.0], [0.0, 0.33..., 0.67...]]
    """
    fine = np.arange(size)
    starts = np.arange(count)[:, None] * pixel
    overlap = np.minimum(fine + 1, starts + pixel) - np.maximum(fine, starts)
    share: NDArray[np.float32] = (np.clip(overlap, 0, None) / pixel).astype(np.float32)
    return share


def _labels(
    labels: NDArray[np.uint8], down: NDArray[np.float32], across: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Return labels of coarse pixels as bit masks, and the cover of cloud and of shadow."""

    def area(where: NDArray[np.bool_]) -> NDArray[np.float32]:
        share: NDArray[np.float32] = down @ where.astype(np.float32) @ across.T
        return share

    labelled = area(labels > 0)
    possible = np.zeros(labelled.shape, np.uint8)
    for bit in BITS.values():
        possible[area((labels & bit) > 0) * 3 > labelled] |= bit
    possible[labelled < 0.5] = 0
    cover = {}
    for name in ("cloud", "cloud_shadow"):
        truth = QUESTIONS[name].truth(labels)
        told = area(truth >= 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            cover[name] = np.where(told >= 0.5, area(truth == 1) / told, np.float32(np.nan)).astype(
                np.float32
            )
    return possible, cover
