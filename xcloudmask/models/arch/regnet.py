"""RegNetY as an encoder (Radosavovic et al. 2020, CVPR, arXiv 2003.13678, table 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.models.arch.parts import conv_norm, shortcut

#: Of each stage: channels, and blocks; of RegNetY-400MF, whose filters are in groups of 8.
STAGES = ((48, 1), (104, 3), (208, 6), (440, 6))
STEM, GROUP = 32, 8


class SqueezeExcite(nn.Module):
    """Weigh channels by what the whole window holds of them.

    Examples
    --------
    >>> SqueezeExcite(16, 4)(torch.zeros(2, 16, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """

    def __init__(self, channels: int, hidden: int, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.act = act
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.restore = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, weighed."""
        share = self.restore(self.act(self.reduce(x.mean(dim=(2, 3), keepdim=True))))
        return x * torch.sigmoid(share)


class YBlock(nn.Module):
    """1x1, grouped 3x3, squeeze and excite, 1x1; added to the input.

    Examples
    --------
    >>> YBlock(32, 48, stride=2)(torch.zeros(2, 32, 8, 8)).shape
    torch.Size([2, 48, 4, 4])
    """

    def __init__(self, channels: int, out: int, *, stride: int = 1, group: int = GROUP) -> None:
        super().__init__()
        self.expand = conv_norm(channels, out, 1)
        self.spread = conv_norm(out, out, stride=stride, groups=out // group)
        self.squeeze = SqueezeExcite(out, round(channels / 4))
        self.project = conv_norm(out, out, 1, act=None)
        self.shortcut = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of `x`."""
        return F.relu(self.project(self.squeeze(self.spread(self.expand(x)))) + self.shortcut(x))


class RegNetY(nn.Module):
    """The encoder: features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size.

    `stem` are the channels at 1/2, `stages` channels and blocks of each stage, `group` how many channels a
    3x3 filter sees.

    Examples
    --------
    >>> [tuple(f.shape[1:]) for f in RegNetY(3)(torch.zeros(2, 3, 64, 64))]
    [(32, 32, 32), (48, 16, 16), (104, 8, 8), (208, 4, 4), (440, 2, 2)]
    """

    def __init__(
        self, bands: int, *, stem: int = STEM, stages: Sequence[tuple[int, int]] = STAGES, group: int = GROUP
    ) -> None:
        super().__init__()
        self.channels = (stem, *(channels for channels, _ in stages))
        self.stem = conv_norm(bands, stem, stride=2)
        layers, source = [], stem
        for out, repeats in stages:
            first = YBlock(source, out, stride=2, group=group)
            layers.append(nn.Sequential(first, *(YBlock(out, out, group=group) for _ in range(repeats - 1))))
            source = out
        self.stages = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five features."""
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found
