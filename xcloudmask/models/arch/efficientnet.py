"""EfficientNet-B4 as an encoder (Tan and Le 2019, arXiv 1905.11946), without the layers of its classifier.

Where the size is halved, zeros are added as TensorFlow adds them to images of 380 pixels, the network's own:
one more below and to the right than above and to the left, but alike where the side is odd. Weights that were
published expect it.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.models.arch.parts import conv_norm
from xcloudmask.models.arch.regnet import SqueezeExcite

#: Of a stage: blocks, kernel, stride of the first block, zeros before and behind its rows where these differ,
#: how much wider than its input a block is within, channels.
STAGES = (
    (2, 3, 1, None, 1, 24),
    (4, 3, 2, (0, 1), 6, 32),
    (4, 5, 2, None, 6, 56),  # of 380 pixels 95 are left here
    (6, 3, 2, (0, 1), 6, 112),
    (6, 5, 1, None, 6, 160),
    (8, 5, 2, (1, 2), 6, 272),
    (2, 3, 1, None, 6, 448),
)
STEM = 48
#: The stages whose features a decoder is given: the last ones of each size.
LEVELS = (1, 2, 4, 6)


class Block(nn.Module):
    """Widen, look around in each channel, squeeze and excite, narrow; added to the input where it fits.

    Examples
    --------
    >>> import torch
    >>> Block(24, 32, 3, stride=2, uneven=(0, 1))(torch.zeros(2, 24, 8, 8)).shape
    torch.Size([2, 32, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        uneven: tuple[int, int] | None = None,
        wider: int = 6,
    ) -> None:
        super().__init__()
        inner = channels * wider
        self.expand = conv_norm(channels, inner, 1, act=nn.SiLU) if wider > 1 else nn.Identity()
        self.pad = (uneven or ()) * 2
        padding = 0 if uneven else None
        self.spread = conv_norm(
            inner, inner, kernel, stride=stride, groups=inner, padding=padding, act=nn.SiLU
        )
        self.squeeze = SqueezeExcite(inner, channels // 4, act=F.silu)
        self.project = conv_norm(inner, out, 1, act=None)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Return features of `x`."""
        inner = self.expand(x)
        inner = self.squeeze(self.spread(F.pad(inner, self.pad) if self.pad else inner))
        out: Tensor = self.project(inner)
        return x + out if self.adds else out


class EfficientNetB4(nn.Module):
    """The encoder: features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size.

    Examples
    --------
    >>> import torch
    >>> [tuple(f.shape[1:]) for f in EfficientNetB4(3)(torch.zeros(2, 3, 64, 64))]
    [(48, 32, 32), (32, 16, 16), (56, 8, 8), (160, 4, 4), (448, 2, 2)]
    """

    channels = (STEM, *(STAGES[at][-1] for at in LEVELS))
    multiple = 32

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = conv_norm(bands, STEM, stride=2, padding=0, act=nn.SiLU)
        stages, source = [], STEM
        for repeats, kernel, stride, uneven, wider, out in STAGES:
            first = Block(source, out, kernel, stride=stride, uneven=uneven, wider=wider)
            rest = (Block(out, out, kernel, wider=wider) for _ in range(repeats - 1))
            stages.append(nn.Sequential(first, *rest))
            source = out
        self.stages = nn.ModuleList(stages)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps, layer.momentum = 1e-3, 0.01

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five features."""
        x = self.stem(F.pad(x, (0, 1, 0, 1)))
        found = [x]
        for at, stage in enumerate(self.stages):
            x = stage(x)
            if at in LEVELS:
                found.append(x)
        return found
