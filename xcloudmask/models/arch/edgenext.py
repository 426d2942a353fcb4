"""EdgeNeXt-small as an encoder (Maaz et al. 2022, ECCV workshops, arXiv 2206.10589, table 1).

Attention is over channels (cross-covariance, El-Nouby et al. 2021), so it takes windows of any size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

#: Of each stage: channels, blocks, kernel, and into how many parts its last block splits the channels.
STAGES = ((48, 3, 3, 0), (96, 3, 5, 2), (160, 9, 7, 3), (304, 3, 9, 4))
HEADS = 8
#: Sinusoids of a pixel's row, and as many of its column, in the one stage that has them.
SINUSOIDS, POSITIONS_AT = 32, 1


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (n, channels, y, x).

    Examples
    --------
    >>> ChannelNorm(4)(torch.zeros(2, 4, 3, 3)).shape
    torch.Size([2, 4, 3, 3])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Return `input`, normed."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeedForward(nn.Module):
    """Norm, two linear layers, and a gain of each channel, on (n, y, x, channels).

    Examples
    --------
    >>> FeedForward(4)(torch.zeros(2, 3, 3, 4)).shape
    torch.Size([2, 3, 3, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.first = nn.Linear(channels, 4 * channels)
        self.second = nn.Linear(4 * channels, channels)
        self.gain = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be added to a block's input."""
        out: Tensor = self.gain * self.second(F.gelu(self.first(self.norm(x))))
        return out


class ConvBlock(nn.Module):
    """A large filter of each channel, then `FeedForward`; added to the input.

    Examples
    --------
    >>> ConvBlock(8, 7)(torch.zeros(2, 8, 9, 9)).shape
    torch.Size([2, 8, 9, 9])
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.feed_forward = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        out: Tensor = x + self.feed_forward(self.spread(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class ChannelAttention(nn.Module):
    """Attention of channels to channels, by how alike they are over the window; on (n, pixels, channels).

    Examples
    --------
    >>> ChannelAttention(16)(torch.zeros(2, 9, 16)).shape
    torch.Size([2, 9, 16])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        n, length, channels = x.shape
        query, key, value = (
            part.transpose(1, 2).reshape(n, HEADS, channels // HEADS, length)
            for part in self.query_key_value(x).chunk(3, dim=2)
        )
        alike = F.normalize(query, dim=3) @ F.normalize(key, dim=3).transpose(2, 3)
        mixed = torch.softmax(alike * self.temperature, dim=3) @ value
        out: Tensor = self.out(mixed.reshape(n, channels, length).transpose(1, 2))
        return out


class SplitBlock(nn.Module):
    """Filters that feed one another, attention over channels, then `FeedForward`; added to the input.

    Examples
    --------
    >>> SplitBlock(32, 2, positions=True)(torch.zeros(2, 32, 5, 7)).shape
    torch.Size([2, 32, 5, 7])
    """

    def __init__(self, channels: int, parts: int, *, positions: bool) -> None:
        super().__init__()
        width = math.ceil(channels / parts)
        self.spread = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(parts - 1)
        )
        self.place = nn.Conv2d(2 * SINUSOIDS, channels, 1) if positions else None
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = ChannelAttention(channels)
        self.gain = nn.Parameter(torch.full((channels,), 1e-6))
        self.feed_forward = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        n, channels, rows, cols = x.shape
        *parts, rest = x.chunk(len(self.spread) + 1, dim=1)
        found: list[Tensor] = []
        for conv, part in zip(self.spread, parts, strict=True):
            found.append(conv(part + found[-1] if found else part))
        mixed = torch.cat([*found, rest], dim=1)
        if self.place is not None:
            mixed = mixed + self.place(sinusoids(rows, cols).to(mixed))
        tokens = mixed.flatten(2).transpose(1, 2)
        tokens = tokens + self.gain * self.attention(self.norm(tokens))
        out: Tensor = x + self.feed_forward(tokens.reshape(n, rows, cols, channels)).permute(0, 3, 1, 2)
        return out


def sinusoids(rows: int, cols: int) -> Tensor:
    """Return where in the window each pixel lies, (1, 64, rows, cols): its row, then its column.

    Examples
    --------
    >>> sinusoids(2, 3).shape
    torch.Size([1, 64, 2, 3])
    """
    index = torch.arange(SINUSOIDS)
    slower = 10000.0 ** (2 * (index // 2) / SINUSOIDS)

    def along(length: int) -> Tensor:
        part = torch.arange(1, length + 1) / (length + 1e-6) * (2 * math.pi)
        angle = part[:, None] / slower
        return torch.where(index % 2 == 0, angle.sin(), angle.cos()).T

    down = along(rows)[:, :, None].expand(-1, rows, cols)
    across = along(cols)[:, None, :].expand(-1, rows, cols)
    return torch.cat([down, across]).unsqueeze(0)


class EdgeNeXtSmall(nn.Module):
    """The encoder: features at 1/4, 1/8, 1/16 and 1/32 of the input's size; none at 1/2.

    Examples
    --------
    >>> [tuple(f.shape[1:]) for f in EdgeNeXtSmall(3)(torch.zeros(2, 3, 64, 64))]
    [(0, 32, 32), (48, 16, 16), (96, 8, 8), (160, 4, 4), (304, 2, 2)]
    """

    channels = (0, *(channels for channels, *_ in STAGES))

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.enter, self.stages = nn.ModuleList(), nn.ModuleList()
        source = bands
        for at, (out, repeats, kernel, parts) in enumerate(STAGES):
            step = 2 if at else 4
            shrink = nn.Conv2d(source, out, step, step)
            self.enter.append(
                nn.Sequential(ChannelNorm(source), shrink) if at else nn.Sequential(shrink, ChannelNorm(out))
            )
            blocks: list[nn.Module] = [ConvBlock(out, kernel) for _ in range(repeats - bool(parts))]
            if parts:
                blocks.append(SplitBlock(out, parts, positions=at == POSITIONS_AT))
            self.stages.append(nn.Sequential(*blocks))
            source = out

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five features."""
        found = [x.new_zeros(x.shape[0], 0, x.shape[2] // 2, x.shape[3] // 2)]
        for enter, stage in zip(self.enter, self.stages, strict=True):
            x = stage(enter(x))
            found.append(x)
        return found
