"""ResNet-34 as an encoder (He et al. 2016, CVPR, arXiv 1512.03385, table 1)."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.models.arch.parts import conv_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input.

    Examples
    --------
    >>> import torch
    >>> BasicBlock(64, 128, stride=2)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 128, 4, 4])
    """

    def __init__(self, channels: int, out: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.first = conv_norm(channels, out, stride=stride, dilation=dilation)
        self.second = conv_norm(out, out, dilation=dilation, act=None)
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else conv_norm(channels, out, 1, stride=stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of `x`."""
        return F.relu(self.shortcut(x) + self.second(self.first(x)))


class ResNet34(nn.Module):
    """The encoder: features at a quarter of the input's size, and at ``1 / output_stride``.

    Parameters
    ----------
    bands : int
        Input channels.
    output_stride : {8, 16, 32}
        How much smaller the deep features are than the input.

    Examples
    --------
    >>> import torch
    >>> low, deep = ResNet34(3)(torch.zeros(1, 3, 64, 64))
    >>> low.shape, deep.shape
    (torch.Size([1, 64, 16, 16]), torch.Size([1, 512, 4, 4]))
    """

    def __init__(self, bands: int, *, output_stride: int = 16) -> None:
        super().__init__()
        self.stem = conv_norm(bands, 64, 7, stride=2)
        stages, channels, reached, dilation = [], 64, 4, 1
        for out, repeats, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            blocks = []
            for repeat in range(repeats):
                blocks.append(
                    BasicBlock(channels, out, stride=stride if repeat == 0 else 1, dilation=dilation)
                )
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.low_channels, self.deep_channels = 64, channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shallow and deep features."""
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        low = x = self.stages[0](x)
        for stage in self.stages[1:]:
            x = stage(x)
        return low, x
