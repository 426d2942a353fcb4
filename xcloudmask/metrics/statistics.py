"""Numbers from counts: scores of a yes-or-no question or of all classes, pooled and over scenes.

Pooled scores and per-scene ones answer different questions, and papers report either: a pooled score weighs
scenes by their labelled pixels, a mean over scenes counts each alike, a median hides the bad scene. The
interval is a bootstrap over scenes, because pixels of one scene are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError

Floats = NDArray[np.float64]

METRICS: tuple[str, ...] = (
    "oa", "balanced_accuracy", "precision", "recall", "f1", "f2", "iou", "kappa",
)  # fmt: skip

#: Of the scores along the last axis: pooled, ends of its interval, median and worst scene, mean over scenes.
STATISTICS: tuple[str, ...] = ("pooled", "low", "high", "median", "worst", "mean")


def metrics(counts: NDArray[np.integer]) -> Floats:
    """Return `METRICS` along a last axis, for counts tp, fp, fn, tn (and more) along the last axis.

    NaN where a score is not defined: recall without positives, precision without a positive answer,
    balanced accuracy without both kinds.

    Examples
    --------
    >>> metrics(np.array([8, 2, 2, 8])).round(2).tolist()
    [0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.67, 0.6]
    """
    tp, fp, fn, tn = (np.asarray(counts[..., i], np.float64) for i in range(4))
    n = tp + fp + fn + tn

    def over(part: Floats, whole: Floats) -> Floats:
        out = np.full(np.shape(whole), np.nan)
        np.divide(part, whole, out=out, where=whole > 0)
        return out

    oa = over(tp + tn, n)
    recall, specificity = over(tp, tp + fn), over(tn, tn + fp)
    by_chance = over((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp), n * n)
    return np.stack(
        [
            oa,
            (recall + specificity) / 2,
            over(tp, tp + fp),
            recall,
            over(2 * tp, 2 * tp + fp + fn),
            over(5 * tp, 5 * tp + fp + 4 * fn),
            over(tp, tp + fp + fn),
            over(oa - by_chance, 1 - by_chance),
        ],
        axis=-1,
    )


def class_metrics(counts: NDArray[np.integer]) -> Floats:
    """Return `METRICS` along a last axis, for confusion matrices of classes, flattened along the last axis.

    OA and kappa are those of all classes. The others are means over the classes that the labels have, as the
    overall columns of SEnSeI-v2 are: balanced accuracy is mean recall; the precision of a class that is never
    answered is 0.

    Examples
    --------
    >>> class_metrics(np.array([8, 2, 0, 0, 5, 5, 0, 0, 0])).round(2).tolist()
    [0.65, 0.65, 0.86, 0.65, 0.74, 0.68, 0.61, 0.44]
    """
    size, at = math.isqrt(counts.shape[-1]), METRICS.index
    matrix = np.asarray(counts, np.float64).reshape(*counts.shape[:-1], size, size)
    n, tp = matrix.sum(axis=(-1, -2)), np.diagonal(matrix, axis1=-2, axis2=-1)
    labelled, answered = matrix.sum(axis=-1), matrix.sum(axis=-2)
    each = metrics(
        np.stack([tp, answered - tp, labelled - tp, n[..., None] - labelled - answered + tp], axis=-1)
    )
    present = labelled > 0
    with np.errstate(invalid="ignore"):  # where nothing is labelled, all is NaN
        out: Floats = np.where(present[..., None], np.nan_to_num(each), 0).sum(axis=-2)
        out = out / present.sum(axis=-1)[..., None]
        out[..., at("oa")] = oa = tp.sum(axis=-1) / n
        by_chance = (labelled * answered).sum(axis=-1) / n**2
        out[..., at("kappa")] = (oa - by_chance) / np.where(by_chance < 1, 1 - by_chance, np.nan)
    out[..., at("balanced_accuracy")] = out[..., at("recall")]
    return out


def bootstrap(
    counts: NDArray[np.integer],
    measure: Callable[[NDArray[np.integer]], Floats] = metrics,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Floats:
    """Return the ends of the interval of each pooled metric, scenes drawn with replacement.

    Parameters
    ----------
    counts : array of integer, (scenes, n)
        Of each scene; tp, fp, fn, tn for `metrics`.
    measure : callable
        Makes scores of counts: `metrics` or `class_metrics`.
    samples, level, seed : int, float, int
        Number of draws, coverage, and the seed that makes the draw repeatable.

    Returns
    -------
    array of float, (2, metrics)
        NaN for one scene, which is no evidence of others.

    Examples
    --------
    >>> low, high = bootstrap(np.array([[9, 1, 1, 9], [5, 5, 5, 5]]), samples=200)
    >>> float(low[0]), float(high[0])
    (0.5, 0.9)
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or len(counts) == 0:
        raise CloudMaskError(f"bootstrap takes counts of scenes, (scenes, 4), got {counts.shape}")
    scenes = len(counts)
    if scenes == 1:
        return np.full((2, len(METRICS)), np.nan)
    drawn = np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=samples)
    values = measure(drawn @ counts)
    return _quantiles(values, ((1 - level) / 2, (1 + level) / 2))


def summary(
    counts: NDArray[np.integer],
    measure: Callable[[NDArray[np.integer]], Floats] = metrics,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Floats:
    """Return ``[metric, statistic]`` in the order of `METRICS` and `STATISTICS`, for counts of scenes.

    Mean, median and worst are those of each metric on its own, over the scenes where it is defined. One scene
    has no interval (NaN). The parameters are those of `bootstrap`.

    Examples
    --------
    >>> scenes = np.array([[90, 0, 10, 900], [1, 9, 9, 1]])  # tp, fp, fn, tn
    >>> summary(scenes)[METRICS.index("iou")][[0, 5]].round(3).tolist()  # pooled, mean over scenes
    [0.765, 0.476]
    """
    counts = np.asarray(counts)
    labelled = counts[counts.sum(axis=-1) > 0]
    if len(labelled) == 0:
        return np.full((len(METRICS), len(STATISTICS)), np.nan)
    pooled, each = measure(labelled.sum(axis=0)), measure(labelled)
    low, high = bootstrap(labelled, measure, samples=samples, level=level, seed=seed)
    median, worst = _quantiles(each, (0.5, 0.0))
    defined = ~np.isnan(each)
    mean = np.where(defined, each, 0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
    return np.stack([pooled, low, high, median, worst, mean], axis=-1)


def _quantiles(values: Floats, at: Sequence[float]) -> Floats:
    """Return quantiles along the first axis that ignore NaN, NaN where there is nothing else."""
    out = np.full((len(at), values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        known = values[:, column][~np.isnan(values[:, column])]
        if known.size:
            out[:, column] = np.quantile(known, at)
    return out
