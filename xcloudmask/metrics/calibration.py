"""Is a probability right, and where should one cut: reliability, temperature, threshold.

All of it is read from a histogram of probabilities that adds up over chunks and scenes, so that thresholds
are chosen on as many pixels as there are, in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics.statistics import METRICS, metrics

Floats = NDArray[np.float64]
BINS = 1000


@dataclass(frozen=True, eq=False, slots=True)
class Histogram:
    """How often each probability was given, where the answer was no (row 0) and yes (row 1).

    Parameters
    ----------
    counts : array of int64, (2, 1000)
        Pixels.
    sums : array of float64, (2, 1000)
        Sum of their probabilities, so that the mean within a bin is exact.
    """

    counts: NDArray[np.int64]
    sums: Floats

    @classmethod
    def of(cls, probability: NDArray[np.floating], truth: NDArray[np.integer]) -> Histogram:
        """Count probabilities against truth: 1 yes, 0 no, anything else is not decided; NaN is no data.

        Examples
        --------
        >>> Histogram.of(np.array([0.1, 0.9, 0.5]), np.array([0, 1, -1])).counts.sum()
        np.int64(2)
        """
        if np.shape(probability) != np.shape(truth):
            raise CloudMaskError(
                f"probability and truth differ in shape: {np.shape(probability)}, {np.shape(truth)}"
            )
        p, t = np.asarray(probability, np.float64).ravel(), np.asarray(truth).ravel()
        keep = ((t == 0) | (t == 1)) & ~np.isnan(p)
        p, t = p[keep], t[keep].astype(np.intp)
        if p.size and (p.min() < -1e-6 or p.max() > 1 + 1e-6):
            raise CloudMaskError(f"probabilities must lie in 0 to 1, got {p.min():g} to {p.max():g}")
        at = t * BINS + np.clip((p * BINS).astype(np.intp), 0, BINS - 1)
        counts = np.bincount(at, minlength=2 * BINS).reshape(2, BINS).astype(np.int64, copy=False)
        sums = np.bincount(at, weights=p, minlength=2 * BINS).reshape(2, BINS).astype(np.float64)
        return cls(counts, sums)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts, self.sums + other.sums)

    def confusions(self) -> NDArray[np.int64]:
        """Return tp, fp, fn, tn for the thresholds 0, 0.001, ... 1: yes where the probability reaches it."""
        above = np.concatenate(
            [np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1), int)], axis=1
        )
        no, yes = self.counts.sum(axis=1)
        return np.stack([above[1], above[0], yes - above[1], no - above[0]], axis=-1)


def choose_threshold(
    histogram: Histogram, metric: Literal["f2", "balanced_accuracy", "f1", "iou"] | str = "balanced_accuracy"
) -> tuple[float, float]:
    """Return the threshold with the best score, and the score; the middle of the best ones if several tie.

    Examples
    --------
    >>> h = Histogram.of(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]))
    >>> choose_threshold(h)
    (0.501, 1.0)
    """
    if metric not in METRICS:
        raise OptionError("metric", metric, allowed=METRICS)
    values = metrics(histogram.confusions())[:, METRICS.index(metric)]
    if np.isnan(values).all():
        raise CloudMaskError(
            f"{metric} is not defined: the labels decide {int(histogram.counts[1].sum())} yes and "
            f"{int(histogram.counts[0].sum())} no; both are needed"
        )
    best = np.nanmax(values)
    ties = np.flatnonzero(values >= best - 1e-12)
    return float(ties[len(ties) // 2] / BINS), float(best)


@dataclass(frozen=True, eq=False, slots=True)
class Reliability:
    """Predicted against observed: in bins of equal width, the mean probability, share of yes, and pixels."""

    predicted: Floats
    observed: Floats
    pixels: NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Mean distance between predicted and observed, weighted by pixels (expected calibration error).

        NaN where there are no pixels.
        """
        filled = self.pixels > 0
        if not filled.any():
            return float("nan")
        gap = np.abs(self.predicted[filled] - self.observed[filled])
        return float((gap * self.pixels[filled]).sum() / self.pixels.sum())


def reliability(histogram: Histogram, bins: int = 10) -> Reliability:
    """Return the reliability curve.

    Examples
    --------
    >>> h = Histogram.of(np.array([0.25, 0.25, 0.25, 0.25]), np.array([0, 0, 0, 1]))
    >>> reliability(h).expected_error
    0.0
    """
    if bins < 1 or BINS % bins:
        raise CloudMaskError(f"bins must divide {BINS}, got {bins}")
    counts = histogram.counts.reshape(2, bins, -1).sum(axis=-1)
    sums = histogram.sums.reshape(2, bins, -1).sum(axis=-1).sum(axis=0)
    pixels = counts.sum(axis=0)
    whole = np.where(pixels > 0, pixels, np.nan)
    return Reliability(sums / whole, counts[1] / whole, pixels)


def temperature(logits: NDArray[np.floating], possible: NDArray[np.bool_]) -> float:
    """Return the T for which ``softmax(logits / T)`` fits the labels best (least ambiguous cross-entropy).

    Parameters
    ----------
    logits : array of float, (pixels, classes)
        Output of the network before the softmax.
    possible : array of bool, (pixels, classes)
        Which classes the label leaves open; rows that leave all or none open do not count.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=(4000, 2)) * 3
    >>> right = rng.random(4000) < 1 / (1 + np.exp((scores[:, 0] - scores[:, 1]) / 2))  # true T is 2
    >>> 1.8 < temperature(scores, np.stack([~right, right], axis=1)) < 2.2
    True
    """
    from scipy.optimize import minimize_scalar

    z, y = np.asarray(logits, np.float64), np.asarray(possible, bool)
    if z.shape != y.shape or z.ndim != 2:
        raise CloudMaskError(f"logits and possible must both be (pixels, classes): {z.shape}, {y.shape}")
    decided = y.any(axis=1) & ~y.all(axis=1)
    z, y = z[decided], y[decided]
    if len(z) == 0:
        raise CloudMaskError("no label decides anything: a temperature cannot be fitted")

    def loss(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        e = np.exp(scaled)
        share = (e * y).sum(axis=1) / e.sum(axis=1)
        return float(-np.log(np.maximum(share, 1e-12)).mean())

    minimum = minimize_scalar(
        loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(minimum.x))
