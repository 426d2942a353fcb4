"""SEnSeI (Francis, Mrziglod, Sidiropoulos and Muller 2022, TGRS 60, 5406121).

Sections III-A and III-C, appendix A. The number of layers of each block is the paper's (9, 5, 9), as are
their inputs and outputs; the widths between them stand in a figure that the text at hand lacks. Those here
reproduce the parameters of table VI (24,208; 62,848; 123,488) exactly, with group norm and ReLU between
layers; other widths do so too. Group norm has eight groups. The two-layer pixel network of 1,154 parameters
(table VII) is 13 bands, 64 hidden with batch norm, 2 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.deeplabv3plus import deeplabv3plus
from xcloudmask.models.arch.descriptors import BandInput, Float, describe_v1
from xcloudmask.models.arch.pixel import pixel_mlp
from xcloudmask.models.arch.setnet import full_precision, prepare

DESCRIPTOR_BLOCK = (3, 32, 32, 32, 56, 56, 64, 64, 64, 64)
PERMUTATION_BLOCK = (128, 56, 168, 168, 56, 128)
COMBINED_BLOCK = (128, 224, 160, 160, 64, 64, 64, 64, 64, 64)
CHANNELS = 64
OFFSET = 0.5


class DenseBlock(nn.Module):
    """Fully connected layers with group norm and ReLU between them, on the last axis.

    Examples
    --------
    >>> DenseBlock((3, 16, 8))(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, widths: Sequence[int], groups: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for at, (source, out) in enumerate(pairwise(widths)):
            if at:
                layers += [nn.GroupNorm(groups, source), nn.ReLU()]
            layers.append(nn.Linear(source, out))
            nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, last axis of the last width."""
        out: Tensor = self.layers(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
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
        self.descriptor_block = DenseBlock(DESCRIPTOR_BLOCK)
        self.permutation_block = DenseBlock(PERMUTATION_BLOCK)
        self.combined_block = DenseBlock(COMBINED_BLOCK)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the shared representation, (n, 64, y, x)."""
        pixels, descriptors, present = prepare(pixels, descriptors, present)
        n, bands = present.shape
        share = present.to(pixels.dtype)
        share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
        own = self.descriptor_block(descriptors)
        pairs = torch.cat(
            [own.unsqueeze(2).expand(n, bands, bands, -1), own.unsqueeze(1).expand(n, bands, bands, -1)],
            dim=3,
        )
        mixed = (self.permutation_block(pairs) * share[:, None, :, None]).sum(dim=2)
        features = self.combined_block(mixed) * share[:, :, None]
        flat = (pixels + OFFSET).flatten(2)
        out: Tensor = features.transpose(1, 2) @ flat
        return out.reshape(n, CHANNELS, *pixels.shape[2:])


class SenseiV1Network(nn.Module):
    """The encoder and a head: a set network.

    Examples
    --------
    >>> net = sensei_v1(head="pixel")
    >>> red, nir = BandInput("optical", 650, 680), BandInput("optical", 780, 900)
    >>> net(torch.zeros(2, 2, 8, 8), torch.from_numpy(net.describe([red, nir]))).shape
    torch.Size([2, 2, 8, 8])
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.encoder = SenseiV1()
        self.head = head

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return three numbers a band."""
        return describe_v1(bands)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x)."""
        with full_precision(pixels):
            shared = self.encoder(pixels, descriptors, present)
        out: Tensor = self.head(shared)
        return out


def sensei_v1(*, classes: int = 2, head: Literal["deeplabv3", "pixel"] = "deeplabv3") -> SenseiV1Network:
    """Return SEnSeI with DeepLab on MobileNetV2 at output stride 8, or with the two-layer pixel network.

    The paper's DeepLab (2.11 million parameters) has MobileNetV2 without its last layer, image pooling
    and a 1x1 branch, and no decoder.

    Parameters
    ----------
    classes : int
        Output channels; the paper's are clear and cloud.
    head : {"deeplabv3", "pixel"}
        What the encoder is attached to.

    Examples
    --------
    >>> round(sum(p.numel() for p in sensei_v1().parameters()) / 1e6, 2)  # table VII
    2.34
    """
    if classes < 1:
        raise CloudMaskError(f"a network needs at least 1 class, got {classes}")
    if head == "pixel":
        return SenseiV1Network(pixel_mlp(bands=CHANNELS, classes=classes))
    return SenseiV1Network(
        deeplabv3plus(
            bands=CHANNELS, classes=classes, encoder="mobilenet-v2-320", output_stride=8, decoder="pooled"
        )
    )
