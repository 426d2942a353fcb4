"""Patches made of labelled pixels, so that a network that looks at neighbours can learn their spectra too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xcloudmask.train.clouds import field
from xcloudmask.train.samples import Sample


def mosaic(table: Sample, scenes: Sequence[str], rng: np.random.Generator, size: int) -> Sample:
    """Return a patch of a few regions, each of one pixel's spectrum, all of one scene.

    `scenes` names that of each pixel of the table, (band, pixel, 1). Regions are the levels of a random
    field; light and shade vary smoothly over all bands alike. What a mosaic teaches is which spectra are
    cloud; its shapes are not those of clouds.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> values, labels = np.array([[[0.1], [0.6]]], "f4"), np.array([[9], [6]], "u1")
    >>> two = Sample(values, (Band("red", "red"),), labels, 30.0, spatial=False)
    >>> made = mosaic(two, ["a", "a"], np.random.default_rng(0), 16)
    >>> made.image.shape, made.spatial, set(np.unique(made.possible)) <= {6, 9}
    ((1, 16, 16), True, True)
    """
    names = np.asarray(scenes)
    same = np.flatnonzero(names == names[rng.integers(len(names))])
    count = int(rng.integers(1, min(5, same.size) + 1))
    picked = rng.choice(same, count, replace=False)
    cuts = np.sort(rng.random(count - 1))
    region = np.searchsorted(cuts, field(rng, (size, size), rng.uniform(2.6, 3.6)))
    light = (field(rng, (size, size), rng.uniform(2.2, 3.4)) - 0.5) * rng.uniform(0, 0.5)
    image = table.image[:, picked, 0][:, region] * np.exp(light).astype(np.float32)
    return replace(
        table, image=image.astype(np.float32), possible=table.possible[picked, 0][region], spatial=True
    )
