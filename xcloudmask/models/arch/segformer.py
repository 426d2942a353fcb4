"""SegFormer (Xie et al. 2021, NeurIPS, arXiv 2105.15203): Mix Transformer encoder and all-MLP head.

Sizes after the paper's tables 1 and 6. No positional encoding, so any window of 32 pixels or more will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.parts import conv_norm, resize_as

Size = Literal["b0", "b1", "b2", "b3", "b4", "b5"]
SMALLEST_WINDOW = 32


@dataclass(frozen=True, slots=True)
class MitSize:
    """Channels and depth of the four stages, and the head's width in the paper."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head: int


_WIDE = (64, 128, 320, 512)
SIZES: dict[str, MitSize] = {
    "b0": MitSize((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "b1": MitSize(_WIDE, (2, 2, 2, 2), 256),
    "b2": MitSize(_WIDE, (3, 4, 6, 3), 768),
    "b3": MitSize(_WIDE, (3, 4, 18, 3), 768),
    "b4": MitSize(_WIDE, (3, 8, 27, 3), 768),
    "b5": MitSize(_WIDE, (3, 6, 40, 3), 768),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a map made `reduction` times smaller.

    Examples
    --------
    >>> EfficientAttention(32, heads=2, reduction=4)(torch.zeros(1, 64, 32), 8, 8).shape
    torch.Size([1, 64, 32])
    """

    def __init__(self, channels: int, *, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.reduce = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels) if reduction > 1 else None

    def forward(self, x: Tensor, rows: int, cols: int) -> Tensor:
        """Return attended tokens, (n, rows * cols, channels)."""
        n, length, channels = x.shape
        source = x
        if self.reduce is not None and self.norm is not None:
            grid = x.transpose(1, 2).reshape(n, channels, rows, cols)
            source = self.norm(self.reduce(grid).flatten(2).transpose(1, 2))
        query = self.query(x).reshape(n, length, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(source).chunk(2, dim=2)
        key = key.reshape(n, -1, self.heads, channels // self.heads).transpose(1, 2)
        value = value.reshape(n, -1, self.heads, channels // self.heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, channels))
        return out


class MixFeedForward(nn.Module):
    """Two linear layers with a 3x3 convolution of each channel between them.

    Examples
    --------
    >>> MixFeedForward(8)(torch.zeros(1, 16, 8), 4, 4).shape
    torch.Size([1, 16, 8])
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        hidden = channels * ratio
        self.first = nn.Linear(channels, hidden)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.second = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, rows: int, cols: int) -> Tensor:
        """Return tokens of the same shape."""
        hidden = self.first(x)
        grid = hidden.transpose(1, 2).reshape(x.shape[0], -1, rows, cols)
        out: Tensor = self.second(F.gelu(self.spread(grid).flatten(2).transpose(1, 2)))
        return out


class MitBlock(nn.Module):
    """Attention, then the feed-forward part; each is normed before and added to its input.

    Examples
    --------
    >>> MitBlock(32, heads=1, reduction=8)(torch.zeros(1, 256, 32), 16, 16).shape
    torch.Size([1, 256, 32])
    """

    def __init__(self, channels: int, *, heads: int, reduction: int, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = EfficientAttention(channels, heads=heads, reduction=reduction)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = MixFeedForward(channels)
        self.drop = drop

    def _kept(self, branch: Tensor) -> Tensor:
        """Drop the branch for a share of the windows while training (stochastic depth)."""
        if not self.training or self.drop == 0:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.drop
        return branch * keep / (1 - self.drop)

    def forward(self, x: Tensor, rows: int, cols: int) -> Tensor:
        """Return tokens of the same shape."""
        x = x + self._kept(self.attention(self.norm1(x), rows, cols))
        return x + self._kept(self.feed_forward(self.norm2(x), rows, cols))


class MitStage(nn.Module):
    """Overlapping patches, some blocks, a norm.

    Examples
    --------
    >>> MitStage(4, 32, depth=1, heads=1, reduction=8, kernel=7, stride=4)(torch.zeros(1, 4, 64, 64)).shape
    torch.Size([1, 32, 16, 16])
    """

    def __init__(
        self,
        bands: int,
        channels: int,
        *,
        depth: int,
        heads: int,
        reduction: int,
        kernel: int,
        stride: int,
        drops: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(bands, channels, kernel, stride, kernel // 2)
        self.embed_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(
            MitBlock(channels, heads=heads, reduction=reduction, drop=drops[at] if drops else 0.0)
            for at in range(depth)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, (n, channels, y / stride, x / stride)."""
        grid = self.embed(x)
        n, channels, rows, cols = grid.shape
        tokens = self.embed_norm(grid.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, rows, cols)
        out: Tensor = self.norm(tokens).transpose(1, 2).reshape(n, channels, rows, cols)
        return out


class MixTransformer(nn.Module):
    """The encoder: features at 1/4, 1/8, 1/16 and 1/32 of the input's size.

    While training, a share of branches is dropped (stochastic depth), from 0 to `drop` in the last block.

    Examples
    --------
    >>> [tuple(f.shape[1:]) for f in MixTransformer(3, "b0")(torch.zeros(1, 3, 64, 64))]
    [(32, 16, 16), (64, 8, 8), (160, 4, 4), (256, 2, 2)]
    """

    def __init__(self, bands: int, size: Size, *, drop: float = 0.1) -> None:
        super().__init__()
        known = SIZES[size]
        total = sum(known.depths)
        stages, source, first = [], bands, 0
        for at, (channels, depth) in enumerate(zip(known.channels, known.depths, strict=True)):
            drops = tuple(drop * block / max(total - 1, 1) for block in range(first, first + depth))
            how = {"kernel": 3 if at else 7, "stride": 2 if at else 4, "depth": depth}
            stages.append(
                MitStage(source, channels, heads=HEADS[at], reduction=REDUCTIONS[at], drops=drops, **how)
            )
            source, first = channels, first + depth
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the four stages' features."""
        if min(x.shape[-2:]) < SMALLEST_WINDOW:
            raise CloudMaskError(
                f"SegFormer takes windows of {SMALLEST_WINDOW} pixels or more, got {tuple(x.shape[-2:])}; "
                "use a larger patch_size"
            )
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class SegFormer(nn.Module):
    """Encoder, head, and logits at the input's size.

    Parameters
    ----------
    bands, classes : int
        Channels in and out.
    size : {"b0", ..., "b5"}
        See `SIZES`.
    width : int, optional
        Of the head; the paper's for this size if not given.

    Examples
    --------
    >>> net = SegFormer(bands=3)
    >>> net(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 7, 64, 64])
    >>> f"{sum(p.numel() for p in net.parameters()):,}"
    '3,715,943'
    """

    def __init__(
        self, *, bands: int = 3, classes: int = 7, size: Size = "b0", width: int | None = None
    ) -> None:
        super().__init__()
        width = SIZES[size].head if width is None else width
        if min(bands, classes, width) < 1:
            raise CloudMaskError(
                f"a network needs at least 1 band, class and width, got {bands}, {classes}, {width}"
            )
        self.encoder = MixTransformer(bands, size)
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in SIZES[size].channels)
        self.fuse = conv_norm(4 * width, width, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.logits = nn.Conv2d(width, classes, 1)
        self.apply(_init)
        self.logits.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of `x`."""
        features = self.encoder(x)
        same = [resize_as(p(f), features[0]) for p, f in zip(self.project, features, strict=True)]
        fused = self.fuse(torch.cat(same[::-1], dim=1))
        return resize_as(self.logits(self.dropout(fused)), x)


def _init(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
