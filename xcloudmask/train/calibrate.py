"""Probabilities that mean what they say: one temperature, fitted to scenes kept for choosing.

The temperature is worked into the last layer, whose weights and biases are divided by it: what is shipped
needs no word of it, and the likeliest class of a pixel stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from xcloudmask.errors import CloudMaskError, ModelWarning, warn_user
from xcloudmask.metrics import temperature
from xcloudmask.metrics.labels import CLOUD, open_classes, within
from xcloudmask.train.evaluate import logits, take
from xcloudmask.train.files import Entry
from xcloudmask.train.losses import open_to
from xcloudmask.train.networks import sized_by

#: Labelled pixels of a sample that are looked at, at most, spread evenly.
MOST = 4096


def fit_temperature(
    network: nn.Module,
    classes: Sequence[str],
    entries: Iterable[Entry],
    sets: Iterable[str | tuple[str, ...]],
) -> float:
    """Return the temperature that suits the samples best, over all sets of bands (see `take`) at once."""
    entries = list(entries)
    scores, labels = [], []
    for bands in sets:
        for entry in entries:
            sample = take(entry.read(), bands)
            if sample is None:
                continue
            places = np.flatnonzero((sample.possible > 0) & sample.valid)
            places = places[:: max(1, places.size // MOST)]
            scores.append(logits(network, sample).reshape(len(classes), -1)[:, places].T)
            labels.append(open_to(sample.possible.ravel()[places], classes))
    if not scores:
        raise CloudMaskError("no scene kept for choosing has the bands that a temperature is fitted with")
    possible = np.concatenate(labels)
    cloudy = np.array(within(open_classes(classes), CLOUD))
    decided = possible.any(axis=1) & (possible[:, cloudy].any(axis=1) != possible[:, ~cloudy].any(axis=1))
    clouds = possible[decided][:, cloudy].any(axis=1)
    if not clouds.any() or clouds.all():
        warn_user(
            f"the scenes kept for choosing show {'nothing but cloud' if clouds.any() else 'no cloud'}, so "
            "that no temperature can be fitted: it stays 1. Choose others with dev_scenes",
            ModelWarning,
        )
        return 1.0
    return temperature(np.concatenate(scores), possible)


def divide_head(network: nn.Module, architecture: str, config: Mapping[str, Any], by: float) -> None:
    """Divide the logits of a network of an architecture by a number, by way of its last layer, in place.

    Examples
    --------
    >>> from xcloudmask.models import arch
    >>> net = arch.build("pixel-mlp", {"bands": 2, "classes": 3}).eval()
    >>> pixels = torch.rand(1, 2, 4, 4)
    >>> before = net(pixels)
    >>> divide_head(net, "pixel-mlp", {"bands": 2, "classes": 3}, 2.0)
    >>> torch.allclose(net(pixels), before / 2)
    True
    """
    head = sized_by(architecture, config, "classes")
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name in head:
                tensor.div_(by)
