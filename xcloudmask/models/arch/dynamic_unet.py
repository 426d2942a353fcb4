"""The U-Net that fastai makes of a classifier (its DynamicUnet), on RegNetY: the network of CloudS2Mask.

Each step up is a convolution to four times the channels whose blocks become pixels (pixel shuffle; Shi et al.
2016, arXiv 1609.05158). Beside the features of the encoder, the last step is given the input itself.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.regnet import RegNetY

Activation = Literal["relu", "mish"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "mish": nn.Mish}


def conv_act(channels: int, out: int, act: type[nn.Module], kernel: int = 3) -> nn.Sequential:
    """Convolution with bias, and activation; the size is kept.

    Examples
    --------
    >>> conv_act(3, 8, nn.Mish)(torch.zeros(1, 3, 5, 6)).shape
    torch.Size([1, 8, 5, 6])
    """
    return nn.Sequential(nn.Conv2d(channels, out, kernel, padding=kernel // 2), act())


class Grow(nn.Module):
    """Twice the size: a 1x1 convolution to four times the channels, which become pixels.

    Examples
    --------
    >>> Grow(6, 3, nn.ReLU)(torch.zeros(1, 6, 4, 5), (8, 9)).shape
    torch.Size([1, 3, 8, 9])
    """

    def __init__(self, channels: int, out: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv = conv_act(channels, 4 * out, act, 1)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return `x` at twice its size, or at `size` where that is another: the nearest pixel of it."""
        x = F.pixel_shuffle(self.conv(x), 2)
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")


class UpBlock(nn.Module):
    """A step up: the features from below beside those of the encoder, then two 3x3 convolutions.

    Examples
    --------
    >>> UpBlock(8, 4, 6, nn.ReLU)(torch.zeros(1, 8, 2, 2), torch.zeros(1, 4, 4, 5)).shape
    torch.Size([1, 6, 4, 5])
    """

    def __init__(self, channels: int, skip: int, out: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.grow = Grow(channels, channels // 2, act)
        self.norm, self.act = nn.BatchNorm2d(skip), act()
        self.first = conv_act(channels // 2 + skip, out, act)
        self.second = conv_act(out, out, act)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return features of `skip`'s size."""
        both = torch.cat([self.grow(x, skip.shape[-2:]), self.norm(skip)], dim=1)
        out: Tensor = self.second(self.first(self.act(both)))
        return out


class DynamicUNet(nn.Module):
    """Encoder, a middle, four steps up, one to the input's size, and logits.

    Parameters
    ----------
    bands, classes : int
        Channels in and out.
    stem, group : int
        Of the encoder, see `RegNetY`; by default it is RegNetY-600MF.
    widths, depths : tuple of int
        Channels and blocks of each stage of the encoder.
    act : {"relu", "mish"}
        The activation of all but the encoder.

    Examples
    --------
    >>> DynamicUNet(stem=8, widths=(8, 16), depths=(1, 1), group=4)(torch.zeros(1, 13, 30, 41)).shape
    torch.Size([1, 4, 30, 41])
    >>> f"{sum(p.numel() for p in DynamicUNet().parameters()):,}"
    '30,372,813'
    """

    def __init__(
        self,
        *,
        bands: int = 13,
        classes: int = 4,
        stem: int = 32,
        widths: tuple[int, ...] = (48, 112, 256, 608),
        depths: tuple[int, ...] = (1, 3, 7, 4),
        group: int = 16,
        act: Activation = "relu",
    ) -> None:
        super().__init__()
        if min(bands, classes, stem, group, *widths, *depths) < 1 or len(widths) != len(depths):
            raise CloudMaskError(
                "a U-Net needs bands, classes, stem, group, widths and depths of 1 or more, as many depths "
                f"as widths; got bands={bands}, classes={classes}, stem={stem}, group={group}, "
                f"widths={widths}, depths={depths}"
            )
        if odd := [width for width in widths if width % group]:
            raise CloudMaskError(f"each of widths must be a multiple of group={group}, got {odd[0]}")
        if not widths or sum(depths) > 64:
            raise CloudMaskError(f"the encoder has 1 to 64 blocks, got depths={depths}")
        self.encoder = RegNetY(bands, stem=stem, stages=list(zip(widths, depths, strict=True)), group=group)
        *skips, deep = self.encoder.channels
        self.norm, kind = nn.BatchNorm2d(deep), _ACTIVATIONS[act]
        self.middle = nn.Sequential(conv_act(deep, 2 * deep, kind), conv_act(2 * deep, deep, kind))
        steps: list[nn.Module] = []
        source = deep
        for skip in skips[::-1]:
            joined = source // 2 + skip
            out = joined if len(steps) < len(skips) - 1 else joined // 2
            steps.append(UpBlock(source, skip, out, kind))
            source = out
        self.up, self.grow = nn.ModuleList(steps), Grow(source, source, kind)
        width = source + bands
        self.residual = nn.Sequential(conv_act(width, width, kind), nn.Conv2d(width, width, 3, padding=1))
        self.act = kind()
        self.logits = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of `x`, which may have any size."""
        *skips, deep = self.encoder(x)
        features = self.middle(F.relu(self.norm(deep)))
        for step, skip in zip(self.up, skips[::-1], strict=True):
            features = step(features, skip)
        features = torch.cat([self.grow(features, x.shape[-2:]), x], dim=1)
        out: Tensor = self.logits(self.act(self.residual(features) + features))
        return out
