"""Networks that take any set of bands, and how they and fixed-band networks stand in for one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from xcloudmask.errors import BandError
from xcloudmask.models.arch.descriptors import BandInput, Float


@runtime_checkable
class SetNetwork(Protocol):
    """A network for any number and order of bands."""

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return the descriptors that it was made for, (bands, k)."""

    def __call__(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x).

        Parameters
        ----------
        pixels : Tensor
            (n, bands, y, x): reflectance, or scaled brightness temperature, backscatter or height.
        descriptors : Tensor
            (bands, k), or (n, bands, k) where windows of a batch have different bands.
        present : Tensor of bool, optional
            (n, bands): which bands a window has, at least one. The rest is padding: its pixels and
            descriptors, NaN included, change nothing.
        """


def prepare(pixels: Tensor, descriptors: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Bring the arguments of a set network to (n, bands, y, x), (n, bands, k) and (n, bands).

    Examples
    --------
    >>> a, b, c = prepare(torch.zeros(2, 3, 4, 4), torch.zeros(3, 5), None)
    >>> b.shape, c.all().item()
    (torch.Size([2, 3, 5]), True)
    """
    n, bands = pixels.shape[:2]
    if descriptors.dim() == 2:
        descriptors = descriptors.unsqueeze(0).expand(n, -1, -1)
    if descriptors.shape[1] != bands or bands == 0:
        raise BandError(
            f"{bands} bands of pixels, but descriptors of {descriptors.shape[1]}; one each, at least 1"
        )
    if present is None:
        return pixels, descriptors, torch.ones(n, bands, dtype=torch.bool, device=pixels.device)
    pixels = torch.where(present[:, :, None, None], pixels, pixels.new_zeros(()))
    return pixels, torch.where(present[:, :, None], descriptors, descriptors.new_zeros(())), present


def full_precision(pixels: Tensor) -> torch.autocast:
    """Return a context without autocast: descriptors and phases need all of float32, and cost little.

    Examples
    --------
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(torch.zeros(1)):
    ...     nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
    torch.float32
    """
    return torch.autocast(pixels.device.type, enabled=False)


class Bound(nn.Module):
    """A set network tied to the bands of one scene: pixels in, logits out, as the engine and ONNX want it.

    Bands are put in one order (by signal, then wavelength) before they are summed, so their order in the
    scene changes no bit of the result.

    Examples
    --------
    >>> from xcloudmask.models.arch import build
    >>> red, nir = BandInput("optical", 650, 680), BandInput("optical", 780, 900)
    >>> bound = Bound(build("spectral"), [nir, red]).eval()
    >>> bound(torch.zeros(1, 2, 8, 8)).shape
    torch.Size([1, 7, 8, 8])
    """

    descriptors: Tensor
    order: Tensor

    def __init__(self, network: nn.Module, bands: Sequence[BandInput]) -> None:
        super().__init__()
        if not isinstance(network, SetNetwork):
            raise TypeError(f"Bound takes a set network, got {type(network).__name__}")
        if not bands:
            raise BandError("a set network needs at least one band")
        order = sorted(range(len(bands)), key=lambda at: bands[at])
        self.network = network
        described = np.array(network.describe([bands[at] for at in order]))
        self.register_buffer("descriptors", torch.from_numpy(described), persistent=False)
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the network's logits for `pixels`, (n, bands, y, x)."""
        if pixels.shape[1] != self.order.shape[0]:
            raise BandError(f"bound to {self.order.shape[0]} bands, got {pixels.shape[1]}")
        out: Tensor = self.network(pixels.index_select(1, self.order), self.descriptors)
        return out
