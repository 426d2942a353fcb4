"""Training a network whose bands are fixed: called as those for any bands are, missing ones estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from xcloudmask.errors import BandError
from xcloudmask.models.arch.descriptors import BandInput, Float
from xcloudmask.models.imputation import BandImputer
from xcloudmask.scene.bands import RANGES
from xcloudmask.types import AuxInput

#: How far a band may lie from the one it stands for, as a share of the wavelength: MSS has its NIR at 750 nm.
FARTHEST = 0.14


class Fixed(nn.Module):
    """A network for fixed bands with its normalisation, called as a set network is.

    It maps (n, bands, y, x), as (value - mean) / std, to (n, classes, y, x). Aux inputs come behind the
    bands, scaled already: they are not normalised again. With `one_logit` its only channel is the logit of
    cloud; not cloud then gets a channel of zeros, which makes the softmax of both the sigmoid of it. `window`
    is the one size that it takes, if it takes no others.

    Examples
    --------
    >>> net = Fixed(nn.Conv2d(2, 3, 1), ["red", "nir"], mean=[0.1])
    >>> net(torch.zeros(1, 2, 4, 4), torch.zeros(2, 0)).shape
    torch.Size([1, 3, 4, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        bands: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        one_logit: bool = False,
        window: int | None = None,
        aux: Sequence[AuxInput] = (),
    ) -> None:
        super().__init__()
        self.network, self.bands, self.one_logit, self.window = network, tuple(bands), one_logit, window
        self.aux, count = tuple(aux), len(self.bands)
        for name, values, none in (("mean", mean, 0.0), ("std", std, 1.0)):
            each = torch.tensor(values or (none,)).expand(count)
            each = torch.cat([each, torch.full((len(self.aux),), none)])
            self.register_buffer(name, each[:, None, None], persistent=False)

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return empty descriptors: the bands are known by their place."""
        return np.zeros((len(bands), 0), np.float32)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the network's logits."""
        names = (*self.bands, *(each.name for each in self.aux))
        if pixels.shape[1] != len(names):
            raise BandError(f"this network takes {', '.join(names)}; got {pixels.shape[1]} bands")
        out: Tensor = self.network((pixels - self.mean) / self.std)
        return torch.cat([torch.zeros_like(out), out], dim=1) if self.one_logit else out


class Estimated(Fixed):
    """The same for any of its bands: those that a sample lacks are estimated from those it has.

    The imputer's bands are the network's, in order; see `xcloudmask.models.imputation`.

    Examples
    --------
    >>> both = BandImputer(("green", "red"), (0.2, 0.3), ((0.04, 0.02), (0.02, 0.04)))
    >>> net = Estimated(nn.Identity(), both)
    >>> red = net.describe([BandInput("optical", 640.0, 670.0)])
    >>> net(torch.full((1, 1, 1, 1), 0.5), torch.from_numpy(red)).ravel()
    tensor([0.3000, 0.5000])
    """

    def __init__(
        self,
        network: nn.Module,
        imputer: BandImputer,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        one_logit: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__(network, imputer.bands, mean, std, one_logit=one_logit, window=window)
        self.imputer = imputer
        self.takes = imputer.bands

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return where each band is among the network's, by its wavelength; -1 for those it does not take.

        Samples are narrowed to `takes` by name before: what is left lies near one of the network's bands,
        wherever a sensor's own edges are.
        """
        places = np.full((len(bands), 1), -1, np.float32)
        near = sorted(
            (abs(band.center_nm / RANGES[name][2] - 1), i, at)
            for i, band in enumerate(bands)
            for at, name in enumerate(self.bands)
            if band.signal == "optical"
        )
        for far, i, at in near:  # the nearest pair first; each band of either side once
            if far < FARTHEST and places[i] < 0 and at not in places:
                places[i] = at
        return places

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the network's logits."""
        given = descriptors if descriptors.ndim == 3 else descriptors.expand(len(pixels), *descriptors.shape)
        weights = np.zeros((len(pixels), len(self.bands), pixels.shape[1]), np.float32)
        added = np.zeros((len(pixels), len(self.bands), 1, 1), np.float32)
        for sample, places in enumerate(given[..., 0].cpu().numpy().astype(int)):
            kept = np.ones(len(places), bool) if present is None else present[sample].cpu().numpy()
            known = [at for at in np.flatnonzero(kept) if places[at] >= 0]
            names = [self.bands[places[at]] for at in known]
            weights[sample][:, known], added[sample, :, 0, 0] = self.imputer.given_only(names).coefficients()
        mixed = torch.einsum("nbm,nmyx->nbyx", torch.from_numpy(weights).to(pixels), pixels)
        return super().forward(mixed + torch.from_numpy(added).to(pixels), descriptors)
