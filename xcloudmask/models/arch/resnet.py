"""ResNet-34 and ResNet-50 as encoders (He et al. 2016, CVPR, arXiv 1512.03385, table 1)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.models.arch.parts import conv_norm, shortcut


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 to four times the channels (a bottleneck), added to the input.

    The stride of a bottleneck lies in the 3x3 convolution, as in most libraries.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(2, 64, 8, 8)
    >>> Block(64, 128, bottleneck=False, stride=2)(x).shape, Block(64, 64, bottleneck=True, stride=2)(x).shape
    (torch.Size([2, 128, 4, 4]), torch.Size([2, 256, 4, 4]))
    """

    def __init__(
        self, channels: int, inner: int, *, bottleneck: bool, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        out = 4 * inner if bottleneck else inner
        if bottleneck:
            self.first = conv_norm(channels, inner, 1)
            self.second = conv_norm(inner, inner, stride=stride, dilation=dilation)
            self.third = conv_norm(inner, out, 1, act=None)
        else:
            self.first = conv_norm(channels, inner, stride=stride, dilation=dilation)
            self.second = conv_norm(inner, out, dilation=dilation, act=None)
            self.third = nn.Sequential()
        self.shortcut = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of `x`."""
        return F.relu(self.shortcut(x) + self.third(self.second(self.first(x))))


class ResNet(nn.Module):
    """The encoder: features at a quarter of the input's size, and at ``1 / output_stride``.

    Examples
    --------
    >>> import torch
    >>> low, deep = ResNet(3, 34)(torch.zeros(1, 3, 64, 64))
    >>> low.shape, deep.shape
    (torch.Size([1, 64, 16, 16]), torch.Size([1, 512, 4, 4]))
    """

    def __init__(self, bands: int, depth: Literal[34, 50], *, output_stride: int = 16) -> None:
        super().__init__()
        deep, wider = depth == 50, 4 if depth == 50 else 1
        self.stem = conv_norm(bands, 64, 7, stride=2)
        stages, channels, reached, dilation = [], 64, 4, 1
        for width, repeats, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            blocks = []
            for repeat in range(repeats):
                step = 1 if repeat else stride
                blocks.append(Block(channels, width, bottleneck=deep, stride=step, dilation=dilation))
                channels = wider * width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.low_channels, self.deep_channels = 64 * wider, channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shallow and deep features."""
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        low = x = self.stages[0](x)
        for stage in self.stages[1:]:
            x = stage(x)
        return low, x
