"""A model whose answer can be told beforehand: cloud is where the mean of four bands is above one half."""

from __future__ import annotations

import numpy as np

from xcloudmask.models.network import Network
from xcloudmask.types import ModelSpec

#: What every sensor of the tests has; a user registers a model of his own in the same way.
BRIGHT = ModelSpec(
    name="bright",
    version="1",
    bands=("blue", "red", "nir", "swir16"),
    classes=("clear", "cloud"),
    loader="tests.stac.brightness:load",
    patch=64,
    overlap=16,
    licence="Apache-2.0",
    description="cloud where the mean of the bands is above 0.5",
)


def load(spec: ModelSpec) -> Network:
    from torch import nn

    class Bright(nn.Module):
        def forward(self, x):
            return 1000 * (x.mean(dim=1, keepdim=True) - 0.5)

    return Network(body=Bright(), activation="sigmoid")


def answer(bands):
    """Return what `BRIGHT` must say of an array of four bands, and where it is beyond doubt."""
    mean = np.mean(bands, axis=0)
    classes = np.where(np.isnan(mean), 255, mean > 0.5).astype("uint8")
    return classes, ~(np.abs(mean - 0.5) < 1e-3)
