"""A small U-Net of separable convolutions, for a CPU: the head of the library's own `sensei` model.

Ours; after Ronneberger et al. 2015 (arXiv 1505.04597) and Howard et al. 2017 (arXiv 1704.04861). All but one
layer work at half the input's size or less; a 1x1 layer on the input itself adds what single pixels tell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcloudmask.models.arch.parts import conv_norm, init_convolutions, resize_as, separable_conv


class Residual(nn.Module):
    """A separable convolution added to its input.

    Examples
    --------
    >>> Residual(8)(torch.zeros(2, 8, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = separable_conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        out: Tensor = x + self.conv(x)
        return out


class CompactUNet(nn.Module):
    """Logits at the input's size.

    `widths` are the channels at 1/2, 1/4, 1/8, ... of it, `depth` the residual layers a level on the way
    down.

    Examples
    --------
    >>> CompactUNet(16, 7, widths=(24, 48, 96))(torch.zeros(2, 16, 50, 64)).shape
    torch.Size([2, 7, 50, 64])
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        widths: tuple[int, ...] = (32, 64, 128, 192, 256),
        depth: int = 2,
    ) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        for at, width in enumerate(widths):
            enter, source = (separable_conv, widths[at - 1]) if at else (conv_norm, channels)
            blocks = (Residual(width) for _ in range(depth if at else 1))
            levels.append(nn.Sequential(enter(source, width, stride=2), *blocks))
        self.down = nn.ModuleList(levels)
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.narrow = nn.ModuleList(conv_norm(deep, low, 1) for deep, low in pairs)
        self.up = nn.ModuleList(separable_conv(2 * low, low) for _, low in pairs)
        self.logits = nn.Conv2d(widths[0], classes, 1)
        self.direct = nn.Conv2d(channels, classes, 1, bias=False)
        init_convolutions(self)
        self.logits.reset_parameters()
        nn.init.zeros_(self.direct.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of `x`."""
        features, found = x, []
        for level in self.down:
            features = level(features)
            found.append(features)
        for narrow, up, skip in zip(self.narrow, self.up, found[-2::-1], strict=True):
            features = up(torch.cat([resize_as(narrow(features), skip), skip], dim=1))
        out: Tensor = resize_as(self.logits(features), x) + self.direct(x)
        return out
