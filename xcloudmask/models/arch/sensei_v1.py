"""SEnSeI (Francis, Mrziglod, Sidiropoulos and Muller 2022, TGRS 60, 5406121), as published.

Sections III-A and III-C, appendix A; the widths are those of the published file, whose blocks have the
parameters of table VI (24,208; 62,848; 123,488). The two-layer pixel network of 1,154 parameters (table VII)
is 13 bands, 64 hidden with batch norm, 2 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.deeplabv3plus import DeepLab
from xcloudmask.models.arch.descriptors import BandInput, Float, describe_v1
from xcloudmask.models.arch.pixel import pixel_mlp
from xcloudmask.models.arch.setnet import full_precision, prepare

DESCRIPTOR_BLOCK = (3, 16, 16, 32, 16, 16, 64, 128, 64)
PERMUTED_DESCRIPTOR_BLOCK = (128, 128, 128, 128, 64)
COMBINED_DESCRIPTOR_BLOCK = (128, 128, 256, 128, 96, 64, 128, 64)
CHANNELS = 64
OFFSET = 0.5


class JointNorm(nn.Module):
    """Group norm with two groups of neighbouring channels; one mean and variance for all bands together.

    Examples
    --------
    >>> x, share = torch.rand(2, 5, 8), torch.full((2, 5), 1 / 5)
    >>> torch.allclose(JointNorm(8)(x, share), nn.GroupNorm(2, 8, eps=1e-3)(x.mT).mT, atol=1e-6)
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """Return `x`, (n, items, channels), normalised; `share` is what each item counts for in the mean."""
        grouped, weight = x.reshape(*x.shape[:2], 2, -1), share[:, :, None, None]
        centred = grouped - (grouped * weight).sum(dim=1, keepdim=True).mean(dim=3, keepdim=True)
        variance = (centred.square() * weight).sum(dim=1, keepdim=True).mean(dim=3, keepdim=True)
        out: Tensor = (centred * torch.rsqrt(variance + 1e-3)).flatten(2) * self.weight + self.bias
        return out


class DenseBlock(nn.Module):
    """Layers on each band, or pair of bands: linear, LeakyReLU, `JointNorm`; then one that is linear alone.

    With `adds`, a layer whose width is that of its input adds it.

    Examples
    --------
    >>> DenseBlock((3, 16, 8), 4)(torch.zeros(2, 5, 3), torch.full((2, 5), 1 / 5)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, widths: Sequence[int], out: int = CHANNELS, *, adds: bool = False) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(source, width) for source, width in pairwise(widths))
        self.norms = nn.ModuleList(JointNorm(width) for width in widths[1:])
        self.last, self.adds = nn.Linear(widths[-1], out), adds

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """Return features of `x`, (n, items, channels); `share`: what items count for in norms, padding 0."""
        for linear, norm in zip(self.linears, self.norms, strict=True):
            made = norm(F.leaky_relu(linear(x), 0.01), share)
            x = x + made if self.adds and made.shape == x.shape else made
        out: Tensor = self.last(x)
        return out


class SenseiV1(nn.Module):
    """The encoder: any bands to 64 channels.

    Examples
    --------
    >>> encoder = SenseiV1()
    >>> sum(p.numel() for p in encoder.parameters())  # table VI
    210544
    >>> encoder(torch.zeros(2, 5, 8, 8), torch.zeros(5, 3)).shape
    torch.Size([2, 64, 8, 8])
    """

    def __init__(self) -> None:
        super().__init__()
        self.descriptor_block = DenseBlock(DESCRIPTOR_BLOCK, adds=True)
        self.permuted_descriptor_block = DenseBlock(PERMUTED_DESCRIPTOR_BLOCK)
        self.combined_descriptor_block = DenseBlock(COMBINED_DESCRIPTOR_BLOCK, adds=True)

    def embed(self, descriptors: Tensor, share: Tensor) -> Tensor:
        """Return an embedding a band, (n, bands, 64); `share` is 1 / bands, and 0 for padding."""
        own = self.descriptor_block(descriptors, share)
        return self.combined_descriptor_block(self.with_pairs(own, share), share)  # type: ignore[no-any-return]

    def with_pairs(self, own: Tensor, share: Tensor) -> Tensor:
        """Return what each band makes of its pairs with all bands, on average, and its own features: 128."""
        n, bands, _ = own.shape
        each, other = (own.unsqueeze(axis).expand(n, bands, bands, -1) for axis in (1, 2))
        pairs = torch.cat([each, other], dim=3).flatten(1, 2)  # the pair of j and i at i * bands + j
        both = (share.unsqueeze(2) * share.unsqueeze(1)).flatten(1)
        mixed = self.permuted_descriptor_block(pairs, both).reshape(n, bands, bands, -1)
        return torch.cat([(mixed * share[:, :, None, None]).sum(dim=1), own], dim=2)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the shared representation, (n, 64, y, x)."""
        pixels, descriptors, present = prepare(pixels, descriptors, present)
        share = present.to(pixels.dtype)
        share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
        features = self.embed(descriptors, share) * share[:, :, None]
        out: Tensor = features.transpose(1, 2) @ (pixels + OFFSET).flatten(2)
        return out.reshape(*out.shape[:2], *pixels.shape[2:])


class Rescaled(nn.Module):
    """DeepLab behind SEnSeI: it takes twice its input less one, and its batch norms have an epsilon of 1e-3.

    Examples
    --------
    >>> Rescaled(nn.Identity())(torch.tensor([0.0, 1.0]))
    tensor([-1.,  1.])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = 1e-3

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of what the encoder gives."""
        out: Tensor = self.network(2 * x - 1)
        return out


class SenseiV1Network(nn.Module):
    """The encoder and a head: a set network.

    The head is DeepLab on MobileNetV2 at output stride 8, or the two-layer pixel network. The paper's DeepLab
    (2.11 million parameters) has MobileNetV2 without its last layer, image pooling and a 1x1 branch, and no
    decoder. It was trained on windows of 257 pixels.

    Parameters
    ----------
    classes : int
        Output channels; the paper's are clear and cloud.
    head : {"deeplabv3", "pixel"}
        What the encoder is attached to.

    Examples
    --------
    >>> round(sum(p.numel() for p in SenseiV1Network().parameters()) / 1e6, 2)  # table VII
    2.34
    >>> net = SenseiV1Network(head="pixel")
    >>> red, nir = BandInput("optical", 650, 680), BandInput("optical", 780, 900)
    >>> net(torch.zeros(2, 2, 8, 8), torch.from_numpy(net.describe([red, nir]))).shape
    torch.Size([2, 2, 8, 8])
    """

    def __init__(self, *, classes: int = 2, head: Literal["deeplabv3", "pixel"] = "deeplabv3") -> None:
        super().__init__()
        if classes < 1:
            raise CloudMaskError(f"a network needs at least 1 class, got {classes}")
        made: nn.Module = (
            pixel_mlp(bands=CHANNELS, classes=classes)
            if head == "pixel"
            else Rescaled(
                DeepLab(
                    bands=CHANNELS, classes=classes, encoder="mobilenet-v2-320", output_stride=8,
                    decoder="pooled",
                )
            )
        )  # fmt: skip
        self.encoder, self.head = SenseiV1(), made

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return three numbers a band."""
        return describe_v1(bands)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x)."""
        with full_precision(pixels):
            shared = self.encoder(pixels, descriptors, present)
        out: Tensor = self.head(shared)
        return out
