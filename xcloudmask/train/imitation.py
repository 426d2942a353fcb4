"""Fine images as a coarse instrument would have recorded them, with the share of each pixel that is cloud.

There are no labelled multi-band pixels of Proba-V and SPOT-VGT. This forward model makes the next best from
Landsat and Sentinel-2, in the order of nature:

1. **Bands.** A band of the instrument is the mean of the source's bands, each weighted by the width in
   nanometres that both share. One source at least must share a quarter of its own width, or of the
   band's: Sentinel-2's blue shares 12 nm with VGT's 40, and that is the worst.
2. **Point spread.** A Gaussian with a modulation of 0.3 at the Nyquist frequency of the native pixel.
3. **Sampling.** The centres of the product's grid, 1/336 or 1/112 degree as at the equator (331 and 994 m).
4. **Noise.** White, 0.002 in reflectance.
5. **Labels.** The share of a pixel's area that is clear, cloud and shadow, from the fine labels, as soft
   labels to learn; a class stays possible where a third of the labelled area leaves it open.

Known are bands (`xcloudmask.sensors`), grids and native pixels (ESA's page of Proba-V: 100 m and, for 1.6 um,
200 m at nadir, 1165 m for VGT). **Modulation and noise are round figures of instruments of this kind, assumed
and not measured.** Left out are the view far from nadir, the angle between bands, saturation and the shift
between bands. An imitation says how a model takes coarse pixels of these bands; it is no evidence on the
instruments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, OptionError, names_checked
from xcloudmask.metrics.labels import QUESTIONS
from xcloudmask.train.samples import Image, Labels, Sample, coarse_labels
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


@dataclass(frozen=True)
class Imitation:
    """What makes samples of an instrument; see `imitate`. One without a name has the bands of its source."""

    instrument: Instrument
    modulation: float = MODULATION
    noise: float = NOISE

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample | None:
        """Return a sample as the instrument would have it; None where it lacks a band, or is too small.

        Its soft labels are the shares of clear, cloud and shadow in what of a pixel's area the labels decide,
        NaN where that is less than half. Without a generator there is no noise. A pixel that gets less than
        half its light from data is none.
        """
        product, name = self.instrument, self.instrument.sensor
        ours = tuple(band for band in sample.bands if band.kind == "reflectance")
        bands = sensors.get(name).bands if name else ours
        weights = [
            shared(band, sample.bands) if name else [float(band is each) for each in sample.bands]
            for band in bands
        ]
        if any(each is None for each in weights):
            return None
        if product.pixel < 1.5 * sample.gsd:
            raise CloudMaskError(
                f"{sample.scene}: pixels of {sample.gsd:g} m are too coarse to imitate {product.pixel:.0f} m "
                "by"
            )
        size = product.pixel / sample.gsd
        counts = [int(length / size) for length in sample.possible.shape]
        if not all(counts):
            return None
        fine, valid = np.nan_to_num(sample.image), sample.valid
        mixed = np.tensordot(np.asarray(weights, np.float32), fine, axes=1)
        swir = np.array([(band.center_nm or 0) > 1400 for band in bands])
        image = np.empty((len(bands), *counts), np.float32)
        for native, chosen in ((product.native, ~swir), (product.native_swir, swir)):
            image[chosen] = self._sampled(mixed[chosen], valid, native / sample.gsd, counts, size)
        if rng is not None:
            image += rng.normal(0, self.noise, image.shape).astype(np.float32)
        possible, cover = _labels(sample.possible, counts, size)
        gsd = product.pixel
        return replace(sample, image=image, bands=bands, possible=possible, gsd=gsd, soft_labels=cover)

    def _sampled(
        self, planes: Image, valid: NDArray[np.bool_], native: float, counts: Sequence[int], size: float
    ) -> Image:
        """Return what detectors see at the centres of coarse pixels: a weighted mean of rows and columns."""
        sigma = native * math.sqrt(-2 * math.log(self.modulation)) / math.pi
        down, across = (seen(n, m, size, sigma) for n, m in zip(valid.shape, counts, strict=True))
        weight = down @ valid.astype(np.float32) @ across.T
        light = down @ np.where(valid, planes, np.float32(0)) @ across.T
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
    >>> vgt.instrument.sensor, round(vgt.instrument.pixel)
    ('spot-vgt2', 994)
    """
    if name not in INSTRUMENTS:
        raise OptionError("instrument", name, allowed=INSTRUMENTS)
    if not 0 < modulation < 1:
        raise OptionError("modulation", modulation, hint="Give a share between 0 and 1.")
    return Imitation(INSTRUMENTS[name], modulation, noise)


def as_seen(sample: Sample, pixel: float, rng: np.random.Generator) -> Sample:
    """Return a sample as an instrument of so large pixels has it, by chance with Proba-V's bands or its own.

    Examples
    --------
    >>> band = Band("B4", "red", 640, 655, 670)
    >>> one = Sample(np.full((1, 9, 9), 0.2, "f4"), (band,), np.full((9, 9), 6, "u1"), 30.0)
    >>> seen = as_seen(one, 90.0, np.random.default_rng(0))
    >>> seen.image.shape, [band.name for band in seen.bands]
    ((1, 3, 3), ['B4'])
    """
    for sensor in ("proba-v", "") if rng.random() < 0.5 else ("",):
        made = Imitation(Instrument(sensor, pixel, pixel, pixel))(sample, rng)
        if made is not None:
            return made
    raise CloudMaskError(f"{sample.scene}: its {sample.possible.shape} pixels are no pixel of {pixel:.0f} m")


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


def seen(size: int, count: int, pixel: float, sigma: float) -> NDArray[np.float32]:
    """Return ``[coarse, fine]``: how much of a row of coarse pixels' light comes from each fine one.

    Examples
    --------
    >>> (seen(4, 2, 2.0, 0.7) > 0.3).astype(int).tolist()
    [[1, 1, 0, 0], [0, 0, 1, 1]]
    """
    away = np.arange(size) - (np.arange(count)[:, None] + 0.5) * pixel + 0.5
    weight = np.exp(-0.5 * (away / sigma) ** 2)
    share: NDArray[np.float32] = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return share


def area_weights(size: int, count: int, pixel: float) -> NDArray[np.float32]:
    """Return ``[coarse, fine]``: what share of a row of coarse pixels, `pixel` wide, each fine one is.

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


def _labels(labels: Labels, counts: Sequence[int], pixel: float) -> tuple[Labels, Image]:
    """Return labels of coarse pixels as bit masks, and their shares of clear, cloud and shadow."""
    down, across = (area_weights(n, m, pixel) for n, m in zip(labels.shape, counts, strict=True))

    def area(where: NDArray[np.bool_]) -> Image:
        share: Image = down @ where.astype(np.float32) @ across.T
        return share

    cover = []
    for name in ("cloud", "cloud_shadow"):
        truth = QUESTIONS[name].truth(labels)
        decided = area(truth >= 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            cover.append(np.where(decided >= 0.5, area(truth == 1) / decided, np.float32(np.nan)))
    cloud, shadow = cover
    cover_of = np.stack([1 - cloud - np.nan_to_num(shadow), cloud, shadow]).astype(np.float32)
    return coarse_labels(labels, area, 1.0), cover_of
