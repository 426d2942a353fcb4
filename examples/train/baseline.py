"""What a model must beat: a threshold on brightness, with the snow index where the bands allow it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from xcloudmask.metrics import QUESTIONS, Histogram, choose_threshold
from xcloudmask.train.evaluate import Answer, Outcome, take, tallied
from xcloudmask.train.files import Entry
from xcloudmask.train.samples import Sample

#: Above this normalised difference of green and 1.6 µm a bright pixel is snow.
SNOW = 0.6


def brightness(sample: Sample) -> NDArray[np.float32]:
    """Return the mean reflectance of the visible bands (of all where there is none), 0 for snow.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> bands = (Band("g", "green", 540, 560, 580), Band("s", "swir16", 1560, 1610, 1660))
    >>> pixels = np.array([[[0.8, 0.8]], [[0.05, 0.6]]], "f4")
    >>> brightness(Sample(pixels, bands, np.ones((1, 2), "u1"), 30.0)).tolist()
    [[0.0, 0.800000011920929]]
    """
    names = [band.common_name for band in sample.bands]
    visible = [i for i, band in enumerate(sample.bands) if (band.center_nm or 1e9) < 700]
    bright: NDArray[np.float32] = sample.image[visible or slice(None)].mean(axis=0)
    if "swir16" in names and visible:
        other = "green" if "green" in names else names[visible[-1]]
        a, b = sample.image[names.index(other)], sample.image[names.index("swir16")]
        bright = np.where((a - b) / np.maximum(a + b, 1e-3) > SNOW, np.float32(0), bright)
    return np.asarray(np.clip(bright, 0, 1))


def fit_threshold(entries: Iterable[Entry], bands: str) -> float:
    """Return the brightness with the best balanced accuracy on samples with these bands.

    Parameters
    ----------
    entries : iterable of Entry
        Training samples.
    bands : str
        One of `xcloudmask.train.evaluate.SETS`.
    """
    whole: Histogram | None = None
    for entry in entries:
        sample = take(entry.read(), bands)
        if sample is not None:
            part = Histogram.of(brightness(sample), QUESTIONS["cloud"].truth(sample.possible))
            whole = part if whole is None else whole + part
    return 0.5 if whole is None else choose_threshold(whole)[0]


def run_baseline(training: Iterable[Entry], held: Iterable[Entry], bands: str) -> dict[str, Outcome]:
    """Return the baseline's outcome by source, with the threshold that suits the training samples best.

    Parameters
    ----------
    training, held : iterable of Entry
        What the threshold is fitted to, and what is scored.
    bands : str
        One of `xcloudmask.train.evaluate.SETS`.
    """
    threshold = fit_threshold(training, bands)

    def answer(sample: Sample) -> Answer:
        light = np.where(sample.valid, brightness(sample), np.float32(np.nan))
        return np.stack([1 - light, light]), ("clear", "cloud"), threshold, None

    return tallied(held, bands, answer)
