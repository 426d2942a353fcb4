"""Bright ground: snow or sand in place of clear ground, which training scenes have little of.

A network that learns from few scenes takes what is bright for cloud. Here the ground under a clear sky gets
the spectrum of snow or sand and keeps its own light and shade, so that what tells it from cloud is what tells
it in nature: its colour in the short-wave infrared where there is such a band, and its texture.

References
----------
S. G. Warren, "Optical properties of snow", Reviews of Geophysics 20, 1982 (spectrum of snow by grain size)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xcloudmask.metrics.labels import BITS, GROUND, certain
from xcloudmask.train.clouds import field
from xcloudmask.train.samples import Image, Sample
from xcloudmask.types import Band

#: Wavelength (nm), and reflectance of fine snow, coarse snow or glacier ice, bright sand, and pale clay.
SPECTRA = np.array(
    [
        (440, 0.97, 0.85, 0.20, 0.28), (490, 0.97, 0.85, 0.26, 0.33), (560, 0.96, 0.80, 0.36, 0.40),
        (665, 0.95, 0.72, 0.47, 0.45), (865, 0.90, 0.52, 0.55, 0.50), (1020, 0.78, 0.25, 0.58, 0.53),
        (1240, 0.58, 0.12, 0.62, 0.56), (1610, 0.18, 0.03, 0.66, 0.57), (2200, 0.16, 0.02, 0.62, 0.48),
    ]
)  # fmt: skip

#: Share of the labelled pixels that must be clear.
MOSTLY = 0.8


def brighten(sample: Sample, rng: np.random.Generator) -> Sample:
    """Turn clear ground into snow or sand, some of it or all; there the label says clear, and snow or land.

    Only what a label says is clear is changed, or clear or shadow; where nothing is labelled, nothing is, nor
    where clouds are many, as thin ones would keep the dark ground that they were seen over. What a teacher
    predicted stays as it is: the ground is no more cloud than it was.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> bands = (Band("red", "red", 640, 660, 680), Band("swir", "swir16", 1560, 1610, 1660))
    >>> one = Sample(np.full((2, 32, 32), 0.1, "f4"), bands, np.ones((32, 32), "u1"), 30.0)
    >>> bright = brighten(one, np.random.default_rng(0))
    >>> bool(bright.image[0].max() > 0.4), bool((bright.possible & 1).all())
    (True, True)
    """
    clear = certain(sample.possible, BITS["clear"] | GROUND | BITS["cloud_shadow"]) & sample.valid
    seen = [i for i, band in enumerate(sample.bands) if band.kind == "reflectance" and _shows_ground(band)]
    if clear.sum() <= MOSTLY * ((sample.possible != 0) & sample.valid).sum() or not seen:
        return sample
    first = int(rng.integers(0, 2)) if (snow := bool(rng.random() < 0.7)) else int(rng.integers(2, 4))
    second = int(rng.integers(0, 2)) if snow else int(rng.integers(2, 4))
    blend, level = rng.random(), rng.uniform(0.55, 1.0)
    cover = field(rng, clear.shape, rng.uniform(1.8, 3.4)) + rng.uniform(-0.3, 1.2) - 0.5
    cover = np.clip(cover * rng.uniform(2, 10), 0, 1) * rng.uniform(0.6, 1.0)
    light = _relief(sample, clear) ** rng.uniform(0.2, 1.0)
    image = sample.image.copy()
    for i in seen:
        nm = sample.bands[i].center_nm or 0.0
        one, two = (np.interp(nm, SPECTRA[:, 0], SPECTRA[:, 1 + which]) for which in (first, second))
        there = level * (blend * one + (1 - blend) * two) * light
        image[i] = np.where(clear, image[i] * (1 - cover) + there * cover, image[i])
    changed = clear & (cover > 0.5) & ((sample.possible & (BITS["clear"] | GROUND)) > 0)
    kind = BITS["clear"] | (BITS["snow"] if snow else BITS["land"])
    possible = np.where(changed, sample.possible & ~np.uint8(GROUND) | kind, sample.possible)
    return replace(sample, image=image, possible=possible.astype(np.uint8))


def _shows_ground(band: Band) -> bool:
    """Whether it is known where a band lies, and water vapour does not hide the ground there."""
    return band.center_nm is not None and not 1340 < band.center_nm < 1420


def _relief(sample: Sample, clear: NDArray[np.bool_]) -> Image:
    """Return how bright each pixel is beside the rest of the clear ground, near 1."""
    red_on = [i for i, b in enumerate(sample.bands) if b.kind == "reflectance" and (b.center_nm or 0) > 600]
    bands = sample.image[red_on] if red_on else sample.parted()[0].image
    lit = np.clip(np.nan_to_num(bands.mean(axis=0)), 0.01, None)
    relief: Image = np.clip(lit / np.median(lit[clear]), 0.2, 1.25).astype(np.float32)
    return relief
