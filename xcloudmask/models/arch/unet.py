"""U-Nets on encoders of classifiers, as published cloud maskers have them.

A decoder of five levels, each of which doubles the size (nearest neighbour), puts the encoder's features of
that size beside it and has two 3x3 convolutions. OmniCloudMask (Wright et al. 2025,
doi:10.1016/j.rse.2025.114694) has it on RegNetY-400MF and EdgeNeXt-small, UnetMobV2 of CloudSEN12 (Aybar et
al. 2022, doi:10.1038/s41597-022-01878-2) on MobileNetV2, ukis-csmask (Wieland et al. 2019,
doi:10.1016/j.rse.2019.05.022) on EfficientNet-B4.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.edgenext import EdgeNeXtSmall
from xcloudmask.models.arch.efficientnet import EfficientNetB4
from xcloudmask.models.arch.mobilenet_v2 import MobileNetV2
from xcloudmask.models.arch.parts import conv_norm, init_convolutions
from xcloudmask.models.arch.regnet import RegNetY

Encoder = Literal["regnety-004", "edgenext-small", "mobilenet-v2", "efficientnet-b4"]
WIDTHS = (256, 128, 64, 32, 16)


class MobileNetV2Levels(MobileNetV2):
    """MobileNetV2 with its features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size.

    Examples
    --------
    >>> [tuple(f.shape[1:]) for f in MobileNetV2Levels(4)(torch.zeros(2, 4, 64, 64))]
    [(16, 32, 32), (24, 16, 16), (32, 8, 8), (96, 4, 4), (1280, 2, 2)]
    """

    channels = (16, 24, 32, 96, 1280)
    multiple = 32

    def __init__(self, bands: int) -> None:
        super().__init__(bands, output_stride=32)

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Return the five features."""
        found = []
        for at, layer in enumerate(self.features):
            x = layer(x)
            if at in (1, 3, 6, 13, 18):  # the last of each size
                found.append(x)
        return found


_ENCODERS: dict[Encoder, type[nn.Module]] = {
    "regnety-004": RegNetY, "edgenext-small": EdgeNeXtSmall, "mobilenet-v2": MobileNetV2Levels,
    "efficientnet-b4": EfficientNetB4,
}  # fmt: skip


class UNet(nn.Module):
    """Encoder, decoder, and logits at the input's size.

    Parameters
    ----------
    bands, classes : int
        Channels in and out.
    encoder : {"regnety-004", "edgenext-small", "mobilenet-v2", "efficientnet-b4"}
        Returns features at 1/2 to 1/32 of the input's size; `channels` tells of how many channels. If it has
        `multiple`, sides are filled up to a multiple of that with their last pixels.
    standardise : bool
        Whether the network is given the z-scores of each window, see `z_scores`.
    keep_statistics : bool
        Whether means and variances of batch normalisation stay as they are in training, too: a few scenes
        would spoil what a large training found.

    Examples
    --------
    >>> net = UNet(bands=3, classes=4)
    >>> net(torch.zeros(2, 3, 64, 70)).shape
    torch.Size([2, 4, 64, 70])
    >>> f"{sum(p.numel() for p in net.parameters()):,}"
    '6,732,716'
    """

    def __init__(
        self,
        *,
        bands: int = 3,
        classes: int = 4,
        encoder: Encoder = "regnety-004",
        standardise: bool = False,
        keep_statistics: bool = False,
    ) -> None:
        super().__init__()
        if min(bands, classes) < 1:
            raise CloudMaskError(f"a network needs at least 1 band and 1 class, got {bands} and {classes}")
        self.encoder: nn.Module = _ENCODERS[encoder](bands)
        self.standardise, self.keep_statistics = standardise, keep_statistics
        self.multiple = int(getattr(self.encoder, "multiple", 1))
        known: tuple[int, ...] = self.encoder.channels  # type: ignore[assignment]
        sources = [known[-1], *WIDTHS[:-1]]
        beside = [*known[-2::-1], 0]
        self.up = nn.ModuleList(
            nn.Sequential(conv_norm(source + skip, width), conv_norm(width, width))
            for source, skip, width in zip(sources, beside, WIDTHS, strict=True)
        )
        self.logits = nn.Conv2d(WIDTHS[-1], classes, 3, padding=1)
        init_convolutions(self)
        self.logits.reset_parameters()

    def train(self, mode: bool = True) -> UNet:
        """Set training or evaluation; see `keep_statistics`."""
        super().train(mode)
        if self.keep_statistics:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of `x`."""
        rows, cols = x.shape[-2:]
        x = z_scores(x) if self.standardise else x
        if self.multiple > 1:
            x = F.pad(x, (0, -cols % self.multiple, 0, -rows % self.multiple), mode="replicate")
        *skips, deep = self.encoder(x)
        for level, skip in zip(self.up, (*skips[::-1], x[:, :0]), strict=True):
            deep = F.interpolate(deep, size=skip.shape[-2:], mode="nearest")
            deep = level(torch.cat([deep, skip], dim=1) if skip.shape[1] else deep)
        out: Tensor = self.logits(deep)[..., :rows, :cols]
        return out


def z_scores(x: Tensor) -> Tensor:
    """Return (x - mean) / deviation of each band of each window, over what is not NaN; 0 where it is.

    Examples
    --------
    >>> z_scores(torch.tensor([[[[1.0, 3.0, float("nan")]]]])).tolist()
    [[[[-1.0, 1.0, 0.0]]]]
    """
    known = ~torch.isnan(x)
    count = known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(known, x, 0.0).sum(dim=(2, 3), keepdim=True) / count
    centred = torch.where(known, x - mean, 0.0)
    deviation = ((centred * centred).sum(dim=(2, 3), keepdim=True) / count).sqrt()
    flat = deviation <= 1e-6 * mean.abs()  # by how much a mean of equal numbers may be rounded
    return centred / torch.where(flat, 1.0, deviation)
