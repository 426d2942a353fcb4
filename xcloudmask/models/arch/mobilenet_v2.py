"""MobileNetV2 as an encoder (Sandler et al. 2018, CVPR, arXiv 1801.04381, table 2)."""

from __future__ import annotations

from torch import Tensor, nn

from xcloudmask.models.arch.parts import conv_norm

#: Expansion, channels, repeats and stride of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes agree.

    Examples
    --------
    >>> import torch
    >>> InvertedResidual(16, 24, stride=2)(torch.zeros(2, 16, 8, 8)).shape
    torch.Size([2, 24, 4, 4])
    """

    def __init__(
        self, channels: int, out: int, *, stride: int = 1, expand: int = 6, dilation: int = 1
    ) -> None:
        super().__init__()
        hidden = channels * expand
        layers: list[nn.Module] = [conv_norm(channels, hidden, 1, act=nn.ReLU6)] if expand != 1 else []
        layers.append(
            conv_norm(hidden, hidden, stride=stride, dilation=dilation, groups=hidden, act=nn.ReLU6)
        )
        layers.extend(conv_norm(hidden, out, 1, act=None))
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Return features of `x`."""
        out: Tensor = self.conv(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """The encoder: features at a quarter of the input's size, and at ``1 / output_stride``.

    Stages past the output stride keep their size; their 3x3 convolutions are dilated instead. Without the
    `last` 1x1 convolution, to 1280 channels, the deep features are the 320 that DeepLab for mobile devices
    takes, where the first block of a stage that keeps its size is dilated as the blocks before it are.

    Examples
    --------
    >>> import torch
    >>> low, deep = MobileNetV2(4, output_stride=16)(torch.zeros(2, 4, 64, 64))
    >>> low.shape, deep.shape
    (torch.Size([2, 24, 16, 16]), torch.Size([2, 1280, 4, 4]))
    """

    def __init__(self, bands: int, *, output_stride: int = 16, last: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(bands, 32, stride=2, act=nn.ReLU6)]
        channels, reached, dilation = 32, 2, 1
        for expand, out, repeats, stride in STAGES:
            before = dilation
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            first = dilation if last else before
            layers.append(InvertedResidual(channels, out, stride=stride, expand=expand, dilation=first))
            layers += [
                InvertedResidual(out, out, expand=expand, dilation=dilation) for _ in range(repeats - 1)
            ]
            channels = out
        if last:
            layers.append(conv_norm(channels, 1280, 1, act=nn.ReLU6))
            channels = 1280
        self.features = nn.Sequential(*layers)
        self.low_channels, self.deep_channels = 24, channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shallow and deep features."""
        low = x
        for at, layer in enumerate(self.features):
            x = layer(x)
            if at == 3:  # stem, the 16-channel block, two blocks of 24 channels
                low = x
        return low, x
