"""A network's probabilities are checked against what its card says, before they are used."""

from __future__ import annotations

from typing import Any

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.errors import CloudMaskError
from xcloudmask.types import ModelSpec

#: How far from 1 a pixel's probabilities may add up: half precision rounds, and logits are nowhere near.
_OFF = 0.02


def check_shape(probabilities: Any, pixels: Any, spec: ModelSpec, activation: str | None) -> None:
    """Refuse probabilities that are not one picture of every class for every window.

    NumPy and torch would broadcast a single class, pixel or window over all of them, silently.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> check_shape(np.zeros((1, 3, 8, 8)), np.zeros((1, 2, 8, 8)), TOY, "softmax")
    """
    shape = tuple(probabilities.shape)
    wanted = (pixels.shape[0], len(spec.classes) + spec.uncertainty, *pixels.shape[-2:])
    if shape == wanted:
        return
    remedy = "Give the card the classes of the network, or a network that answers for every pixel"
    channels = shape[1] if len(shape) == 4 else None
    if channels == 1 and activation in ("softmax", None):
        remedy = (
            "One channel for cloud is activation='sigmoid' (or 'complement' if it is a probability "
            "already), with the classes not cloud and cloud"
        )
    elif activation in ("sigmoid", "complement") and channels is not None and channels > 2:
        remedy = f"activation={activation!r} is for one channel; for one channel a class pass 'softmax'"
    elif len(shape) == 4 and shape[:2] == wanted[:2]:
        remedy = "Give a network that answers for every pixel of its window"
    raise CloudMaskError(
        f"model {spec.name!r} answers with probabilities of shape {shape} (window, class, y, x), expected "
        f"{wanted}: {len(spec.classes)} classes ({', '.join(spec.classes)})"
        f"{' and the uncertainty' if spec.uncertainty else ''}, activation={activation!r}. "
        f"{remedy}."
    )


def find_anomaly(probabilities: Float, weights: Float, spec: ModelSpec, activation: str | None) -> str | None:
    """Return what is wrong with a batch of probabilities where weights are above 0, None if nothing is.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> find_anomaly(np.full((1, 3, 2, 2), 1 / 3), np.ones((1, 2, 2)), TOY, "softmax")
    >>> "add up to 9" in find_anomaly(np.full((1, 3, 2, 2), 3.0), np.ones((1, 2, 2)), TOY, None)
    True
    """
    rows, cols = weights.shape[-2:]
    pixels = np.moveaxis(probabilities[..., :rows, :cols], 1, -1)[weights > 0]
    finite = np.isfinite(pixels).all(axis=-1)
    if not finite.all():
        share = 100 * (1 - finite.mean())
        return (
            f"model {spec.name!r} answers with numbers that are not finite in {share:.3g} % of the first "
            "pixels it was given; they become no data. Check its weights and normalisation, or try "
            "dtype='float32'"
        )
    sums = pixels.sum(axis=-1)
    if sums.size and (np.abs(sums - 1).max() > _OFF or pixels.min() < -_OFF):
        worst = sums[np.abs(sums - 1).argmax()]
        return (
            f"model {spec.name!r} answers with numbers that are no probabilities: those of one pixel add up "
            f"to {worst:.3g}, the smallest is {pixels.min():.3g} (activation={activation!r}). If they are "
            "logits, its activation is 'softmax', or 'sigmoid' for one channel"
        )
    return None
