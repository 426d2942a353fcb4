"""Networks that see one pixel at a time: a two-layer MLP, and attention over the bands of a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.descriptors import SPREAD_LENGTH, BandInput, Float, describe_spread
from xcloudmask.models.arch.setnet import full_precision, prepare

#: Pixels that `Spectral` works on at a time outside training, so that what it needs stays in the cache.
BLOCK = 8192


def pixel_mlp(*, bands: int = 4, classes: int = 2, hidden: int = 64, norm: bool = True) -> nn.Sequential:
    """Return two layers on each pixel's own bands: the baseline of SEnSeI (2022) and of FDR4VGT-CLOUD.

    Parameters
    ----------
    bands, classes, hidden : int
        Widths.
    norm : bool
        Batch norm after the first layer.

    Examples
    --------
    >>> sum(p.numel() for p in pixel_mlp(bands=13).parameters())  # SEnSeI, table VII
    1154
    """
    if min(bands, classes, hidden) < 1:
        raise CloudMaskError(f"widths must be 1 or more, got {bands}, {hidden} and {classes}")
    layers: list[nn.Module] = [nn.Conv2d(bands, hidden, 1)]
    if norm:
        layers.append(nn.BatchNorm2d(hidden))
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(hidden, classes, 1))


class Spectral(nn.Module):
    """A set network with no spatial context: it works at any pixel size.

    Ours. From each band's descriptor two small networks make, once a scene, the parameters of
    that band's key and value, which are linear in the pixel's reflectance x: ``k = x A + B`` and
    ``v = relu(x C + D)``. The query starts from the mean of the pixel's values; in each round the heads
    attend over the bands, and what they find is added to the query. As keys are never formed (``q.k`` is
    linear in x too) a pixel costs a few thousand operations a band.

    Parameters
    ----------
    classes, width, heads, rounds : int
        Output channels; features a pixel; heads that share them; times the bands are attended to.
    hidden : int
        Width of the networks on descriptors and of the last layer.

    Examples
    --------
    >>> net = Spectral()
    >>> red, nir = BandInput("optical", 650, 680), BandInput("optical", 780, 900)
    >>> net(torch.zeros(1, 2, 8, 8), torch.from_numpy(net.describe([red, nir]))).shape
    torch.Size([1, 7, 8, 8])
    >>> sum(p.numel() for p in net.parameters()) < 25_000
    True
    """

    def __init__(
        self, *, classes: int = 7, width: int = 24, heads: int = 4, rounds: int = 2, hidden: int = 64
    ) -> None:
        super().__init__()
        if min(classes, width, heads, rounds, hidden) < 1 or width % heads:
            raise CloudMaskError(
                f"sizes must be 1 or more and width a multiple of heads; got width={width}, heads={heads}, "
                f"classes={classes}, rounds={rounds}, hidden={hidden}"
            )
        self.width, self.heads = width, heads
        self.parameters_of_band = nn.Sequential(
            nn.Linear(SPREAD_LENGTH, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 4 * width),
        )
        self.first_query = nn.Conv1d(width, width, 1)
        self.updates = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(rounds))
        self.classify = nn.Sequential(nn.Conv1d(width, hidden, 1), nn.ReLU(), nn.Conv1d(hidden, classes, 1))

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return sinusoids and flags of each band."""
        return describe_spread(bands)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x)."""
        pixels, descriptors, present = prepare(pixels, descriptors, present)
        flat = pixels.flatten(2)
        with full_precision(pixels):
            a, b, c, d = self.parameters_of_band(descriptors).chunk(4, dim=2)
        if self.training or torch.onnx.is_in_onnx_export():
            out = self._attend(flat, a, b, c, d, present)
        else:
            parts = torch.split(flat, BLOCK, dim=2)
            out = torch.cat([self._attend(part, a, b, c, d, present) for part in parts], dim=2)
        return out.reshape(*out.shape[:2], *pixels.shape[2:])

    def _attend(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, present: Tensor) -> Tensor:
        """(n, bands, p) and the bands' parameters, (n, bands, width) each, to logits (n, classes, p)."""
        n, bands, length = x.shape
        share = present.to(x.dtype) / present.sum(dim=1, keepdim=True).clamp(min=1)
        absent = torch.zeros_like(share).masked_fill(~present, -torch.inf)[:, None, :, None]
        values = F.relu(torch.addcmul(d.unsqueeze(3), x.unsqueeze(2), c.unsqueeze(3)))  # n, bands, width, p
        query = self.first_query((values * share[:, :, None, None]).sum(dim=1))
        by_head = values.reshape(n, bands, self.heads, -1, length)
        slope, level = (self._per_head(part) for part in (a, b))  # n, heads, bands, width / heads
        for update in self.updates:
            asked = query.reshape(n, self.heads, -1, length)
            scores = x.unsqueeze(1) * (slope @ asked) + (level @ asked)
            weights = torch.softmax(scores + absent, dim=2)
            found = (weights.transpose(1, 2).unsqueeze(3) * by_head).sum(dim=1)
            query = query + update(found.reshape(n, self.width, length))
        out: Tensor = self.classify(query)
        return out

    def _per_head(self, parameters: Tensor) -> Tensor:
        n, bands, width = parameters.shape
        scaled = parameters / math.sqrt(width // self.heads)
        return scaled.reshape(n, bands, self.heads, -1).transpose(1, 2)
