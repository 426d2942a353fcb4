"""Scores of cloud masks: for partial labels, per scene, with intervals; calibration and thresholds.

Examples
--------
>>> import numpy as np
>>> from xcloudmask.metrics import Tally, score
>>> labels = np.array([1, 1, 6, 9, 0], "u1")  # clear, clear, cloud, clear or shadow, not labelled
>>> mask = np.array([0, 1, 1, 0, 1], "u1")
>>> tally = Tally.of(labels, mask, {0: "clear", 1: "cloud"})
>>> score({"scene": tally}).get("cloud", "oa")
0.75
"""

from xcloudmask.metrics.calibration import Histogram, Reliability, choose_threshold, reliability, temperature
from xcloudmask.metrics.labels import BITS, QUESTIONS, Question, possible_from_classes
from xcloudmask.metrics.scores import Scores, score
from xcloudmask.metrics.smoothness import smoothness
from xcloudmask.metrics.statistics import METRICS, STATISTICS, bootstrap, metrics, summary
from xcloudmask.metrics.tally import Confusion, Tally

__all__ = [
    "BITS",
    "METRICS",
    "QUESTIONS",
    "STATISTICS",
    "Confusion",
    "Histogram",
    "Question",
    "Reliability",
    "Scores",
    "Tally",
    "bootstrap",
    "choose_threshold",
    "metrics",
    "possible_from_classes",
    "reliability",
    "score",
    "smoothness",
    "summary",
    "temperature",
]


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)
