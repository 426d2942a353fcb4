"""Layers that several architectures share."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def conv_norm(
    channels: int,
    out: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: int | None = None,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation; without `padding` the size is kept (or divided).

    Examples
    --------
    >>> import torch
    >>> conv_norm(3, 8, stride=2)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 8, 8, 8])
    """
    padding = dilation * (kernel // 2) if padding is None else padding
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    if act is not None:
        layers.append(act(inplace=True))
    return nn.Sequential(*layers)


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    """Return what a residual block adds its input by: as it is, or brought to the block's shape by 1x1.

    Examples
    --------
    >>> shortcut(8, 8, 1)
    Identity()
    """
    same = stride == 1 and channels == out
    return nn.Identity() if same else conv_norm(channels, out, 1, stride=stride, act=None)


def separable_conv(channels: int, out: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3x3 convolution of each channel, then 1x1 across channels; norm and ReLU after the latter.

    Examples
    --------
    >>> sum(p.numel() for p in separable_conv(8, 4).parameters())
    112
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, dilation, dilation, channels, bias=False),
        *conv_norm(channels, out, 1),
    )


def resize_as(x: Tensor, like: Tensor, *, corners: bool = False) -> Tensor:
    """Bilinear resampling of `x` to the rows and columns of `like`.

    `corners` puts the centres of the corner pixels on one another, as some published networks have it.

    Examples
    --------
    >>> import torch
    >>> resize_as(torch.zeros(1, 2, 4, 4), torch.zeros(1, 9, 7, 5)).shape
    torch.Size([1, 2, 7, 5])
    """
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=corners)


def init_convolutions(module: nn.Module) -> None:
    """He initialisation of convolutions by what they give; not for logits, which would start huge.

    Examples
    --------
    >>> init_convolutions(conv_norm(3, 4))
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
