"""The reliability curve as a picture: what was said of cloud, against how often it was so."""

from __future__ import annotations

import io

from xcloudmask.metrics.calibration import Histogram, reliability


def draw_reliability(histogram: Histogram) -> bytes:
    """Draw the curve above the share of pixels in each bin; return it as PNG. Needs matplotlib.

    Parameters
    ----------
    histogram : Histogram
        Of probabilities and truth.

    Examples
    --------
    >>> import numpy as np
    >>> draw_reliability(Histogram.of(np.array([0.1, 0.9]), np.array([0, 1])))[1:4]
    b'PNG'
    """
    from matplotlib.figure import Figure

    found = reliability(histogram)
    there = found.pixels > 0
    figure = Figure(figsize=(4.4, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    above.plot(found.said[there], found.seen[there], "o-", color="#0072B2", markersize=4)
    above.set(ylabel="share that was cloud", xlim=(0, 1), ylim=(0, 1), aspect="equal", adjustable="box")
    bins = len(found.pixels)
    below.bar(
        [(at + 0.5) / bins for at in range(bins)],
        found.pixels / max(found.pixels.sum(), 1),
        0.9 / bins,
        color="0.6",
    )
    below.set(xlabel="probability of cloud that was said", ylabel="pixels")
    file = io.BytesIO()
    figure.savefig(file, dpi=90)
    return file.getvalue()
