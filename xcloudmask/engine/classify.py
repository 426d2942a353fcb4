"""From the model's probabilities to the classes of the answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xcloudmask.classes import SHADOW
from xcloudmask.engine.arrays import Float
from xcloudmask.types import Options, Scheme


def to_scheme(found: Float, scheme: Scheme) -> Float:
    """Add the model's channels up to the classes of the answer."""
    matrix = scheme.matrix
    if all(row[k] == (i == k) for i, row in enumerate(matrix) for k in range(len(row))):
        return found
    parts: list[Float] = []
    for row in matrix:
        channels = [found[..., k, :, :] for k, share in enumerate(row) if share]
        parts.append(sum(channels[1:], channels[0]))
    return np.stack(parts, axis=-3)


def decide_classes(found: Float, options: Options) -> npt.NDArray[np.intp]:
    """Index of the class of each pixel: the most probable, or as thresholds of cloud and shadow decide."""
    if options.shadow_threshold is not None:
        shadow = options.scheme.names.index(SHADOW)
        found = found.copy()
        weak = found[..., shadow, :, :] < options.shadow_threshold
        found[..., shadow, :, :][weak] = -1.0  # behind every other class
    best: npt.NDArray[np.intp] = found.argmax(axis=-3)
    threshold = options.threshold
    if threshold is None:
        return best
    cloudy = np.asarray(options.scheme.cloudy)
    there = found[..., cloudy, :, :]
    as_cloud = np.flatnonzero(cloudy)[there.argmax(axis=-3)]
    as_ground = np.flatnonzero(~cloudy)[found[..., ~cloudy, :, :].argmax(axis=-3)]
    decided: npt.NDArray[np.intp] = np.where(there.sum(axis=-3) >= threshold, as_cloud, as_ground)
    return decided
