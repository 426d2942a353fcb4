"""Bands that an array lacks, estimated from those it has, for a network that was trained on all of them.

Reflectance of neighbouring bands is correlated: beside blue, red and near infrared, green adds little that is
new. So the missing ones are taken as their expected value given the others, under one normal distribution
of all: a linear map, which follows from means and covariances for whichever bands there are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.errors import BandError, WeightsError
from xcloudmask.models.weights.fetch import digest

#: Of ``data/bands.json``.
SHA256 = "eff8cf0e2ea89f340a4ec1c3f34bab9443d29e6e27e11f021a102af9cec2d483"

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BandImputer:
    """Means and covariances of the reflectance of `bands`, and which of them are given.

    Examples
    --------
    Two bands that rise together, of which one is given:

    >>> both = BandImputer(("green", "red"), (0.2, 0.3), ((0.04, 0.02), (0.02, 0.04)))
    >>> both.given_only(["red"]).matrix().round(2).tolist()
    [[0.5], [1.0]]
    """

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    given: tuple[str, ...] = ()

    def given_only(self, names: Sequence[str]) -> BandImputer:
        """Return the same for arrays that have just these bands, in this order."""
        unknown = [name for name in names if name not in self.bands]
        if unknown or not names:
            raise BandError(f"bands {unknown} cannot be estimated from: known are {', '.join(self.bands)}")
        return replace(self, given=tuple(names))

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return what each band's difference from its mean is, in those of the given ones (band, given)."""
        given = [self.bands.index(name) for name in self.given]
        covariance = np.asarray(self.covariance)
        weights = np.linalg.solve(covariance[np.ix_(given, given)], covariance[given]).T
        weights[given] = np.eye(len(given))  # what is given stays as it is, to the last bit
        return np.asarray(weights)

    def coefficients(self) -> tuple[Float, Float]:
        """Return weights (band, given) and what is added: all bands are weights @ given + added."""
        return _coefficients(self)

    def __call__(self, pixels: Float) -> Float:
        """Turn a window (given, y, x) into one of all bands."""
        weights, added = self.coefficients()
        flat = np.matmul(weights, pixels.reshape(len(self.given), -1))
        flat += added[:, None]
        out: Float = flat.reshape(len(self.bands), *pixels.shape[1:])
        return out


@cache
def _coefficients(imputer: BandImputer) -> tuple[Float, Float]:
    """Solve once, not for every window or training sample."""
    weights, mean = imputer.matrix(), np.asarray(imputer.mean)
    given = [imputer.bands.index(name) for name in imputer.given]
    added = mean - weights @ mean[given]
    added[given] = 0.0
    return weights.astype(np.float32), added.astype(np.float32)


@cache
def statistics() -> dict[str, Any]:
    """Return the statistics that come with the library; ``examples/train/band_statistics.py`` writes them."""
    data = Path(__file__).with_name("data").joinpath("bands.json").read_bytes()
    if digest(data) != SHA256:
        raise WeightsError(
            f"data/bands.json has SHA-256 {digest(data)}, expected {SHA256}: the file was altered; "
            "reinstall xcloudmask"
        )
    values: dict[str, Any] = json.loads(data)
    return values


def imputer_for(bands: Sequence[str]) -> BandImputer:
    """Return the library's statistics of these bands.

    Examples
    --------
    >>> imputer_for(["blue", "green", "red"]).bands
    ('blue', 'green', 'red')
    """
    known = statistics()
    unknown = [name for name in bands if name not in known["bands"]]
    if unknown:
        raise BandError(
            f"bands {', '.join(unknown)} cannot be estimated: known are {', '.join(known['bands'])}"
        )
    places = [known["bands"].index(name) for name in bands]
    return BandImputer(
        tuple(bands),
        tuple(known["mean"][i] for i in places),
        tuple(tuple(known["covariance"][i][j] for j in places) for i in places),
    )
