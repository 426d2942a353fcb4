"""From the model's probabilities to the classes of the answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xcloudmask.classes import SHADOW, SNOW, cloud_channel
from xcloudmask.engine.arrays import Bool, Float
from xcloudmask.types import ModelSpec, Scheme


def to_scheme(probabilities: Float, scheme: Scheme) -> Float:
    """Add the model's channels (..., channel, y, x) up to the classes of the answer."""
    matrix = scheme.matrix
    if all(row[k] == (i == k) for i, row in enumerate(matrix) for k in range(len(row))):
        return probabilities
    parts: list[Float] = []
    for row in matrix:
        channels = [probabilities[..., k, :, :] for k, share in enumerate(row) if share]
        parts.append(sum(channels[1:], channels[0]))
    return np.stack(parts, axis=-3)


def count_as_cloud(probabilities: Float, where: Bool, spec: ModelSpec) -> Float:
    """Make cloud of every channel (..., channel, y, x) but snow in some pixels (..., y, x)."""
    cloud = cloud_channel(spec)
    out = probabilities.copy()
    for channel, name in enumerate(spec.classes):
        if channel != cloud and name != SNOW:
            out[..., cloud, :, :] += np.where(where, out[..., channel, :, :], np.float32(0))
            out[..., channel, :, :][where] = 0
    return out


def decide_classes(
    probabilities: Float, scheme: Scheme, threshold: float | None, shadow_threshold: float | None = None
) -> npt.NDArray[np.intp]:
    """Return the index of the class of each pixel: the most probable, or as thresholds decide.

    Cloud, of the likeliest kind, where all kinds of it together reach `threshold`, else the likeliest of the
    rest. Shadow is not considered where it is less probable than `shadow_threshold`.
    """
    if shadow_threshold is not None:
        shadow = scheme.names.index(SHADOW)
        probabilities = probabilities.copy()
        weak = probabilities[..., shadow, :, :] < shadow_threshold
        probabilities[..., shadow, :, :][weak] = -1.0  # behind every other class
    if threshold is None:
        best: npt.NDArray[np.intp] = probabilities.argmax(axis=-3)
        return best
    cloudy = np.asarray(scheme.cloudy)
    cloud, ground = probabilities[..., cloudy, :, :], probabilities[..., ~cloudy, :, :]
    as_cloud = np.flatnonzero(cloudy)[cloud.argmax(axis=-3)]
    as_ground = np.flatnonzero(~cloudy)[ground.argmax(axis=-3)]
    decided: npt.NDArray[np.intp] = np.where(cloud.sum(axis=-3) >= threshold, as_cloud, as_ground)
    return decided
