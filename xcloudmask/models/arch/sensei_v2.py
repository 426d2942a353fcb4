"""SEnSeI-v2 (Francis 2024, TGRS, doi 10.1109/TGRS.2024.3391625), section III-A.

From each band's descriptor (see `descriptors`) and five percentiles of its window, fully connected layers and
attention make the gain, frequency and phase with which the band's pixels are embedded as sinusoids; the bands
together go to a segmentation network. There are two variants:

- ``"published"``: what the weights of its author compute, which differs from the paper. Layers before
  attention give twice their output, attention sees one band at a time, ``sin(f (x + p))`` is summed over
  bands. The tests hold it to the answers of the author's code.
- ``"own"``: nearer to the paper, and what our model ``sensei`` and its training use. Layers are added to
  their input, attention is over bands, one more layer follows it, ``sin(f x + p)`` is averaged over bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.compact_unet import CompactUNet
from xcloudmask.models.arch.deeplabv3plus import DeepLab
from xcloudmask.models.arch.descriptors import (
    PUBLISHED_LENGTH,
    SPREAD_LENGTH,
    BandInput,
    Float,
    describe_spread,
    describe_v2,
    with_published_edges,
)
from xcloudmask.models.arch.segformer import SegFormer
from xcloudmask.models.arch.setnet import full_precision, prepare

PERCENTILES = (0.01, 0.10, 0.50, 0.90, 0.99)

Variant = Literal["own", "published"]
Skip = Literal["input", "output", "none"]
Head = Literal[
    "compact", "pixel", "deeplabv3plus-resnet34", "deeplabv3plus-resnet50",
    "segformer-b0", "segformer-b1", "segformer-b2", "segformer-b3", "segformer-b4", "segformer-b5",
]  # fmt: skip


def percentiles(pixels: Tensor, step: int = 1) -> Tensor:
    """Return percentiles 1, 10, 50, 90 and 99 of each band of each window, (n, bands, 5).

    Between two pixels the value is interpolated, as `numpy.quantile` does. It is quicker to look at every
    `step`-th pixel of every `step`-th row only.

    Examples
    --------
    >>> percentiles(torch.arange(101.0).reshape(1, 1, 1, 101)).tolist()
    [[[1.0, 10.0, 50.0, 90.0, 99.0]]]
    """
    ranked = torch.sort(pixels[:, :, ::step, ::step].flatten(2), dim=2).values
    last = ranked.shape[2] - 1
    places = [last * share for share in PERCENTILES]
    low = torch.tensor([math.floor(place) for place in places], device=pixels.device)
    high = torch.tensor([math.ceil(place) for place in places], device=pixels.device)
    part = torch.tensor([place - math.floor(place) for place in places], device=pixels.device).to(
        ranked.dtype
    )
    below, above = ranked.index_select(2, low), ranked.index_select(2, high)
    return below + (above - below) * part


class FullyConnected(nn.Module):
    """Layers of layer norm, ReLU and linear, of these widths from the input on.

    `skip` says what is added to a layer's output: its input where widths agree, or the output once more. With
    `plain_entry` the first layer is linear only: ReLU on raw sinusoids would lose their lower half.

    Examples
    --------
    >>> FullyConnected((77, 64, 64))(torch.zeros(2, 3, 77)).shape
    torch.Size([2, 3, 64])
    """

    def __init__(self, widths: Sequence[int], *, skip: Skip = "input", plain_entry: bool = False) -> None:
        super().__init__()
        self.skip = skip
        self.layers = nn.ModuleList()
        for number, (source, out) in enumerate(pairwise(widths)):
            linear = nn.Linear(source, out)
            plain = plain_entry and number == 0
            self.layers.append(linear if plain else nn.Sequential(nn.LayerNorm(source), nn.ReLU(), linear))

    def forward(self, x: Tensor) -> Tensor:
        """Return features, last axis of the last width."""
        for layer in self.layers:
            out = layer(x)
            if self.skip == "output":
                out = 2 * out
            elif self.skip == "input" and out.shape == x.shape:
                out = x + out
            x = out
        return x


class BandAttention(nn.Module):
    """One transformer layer (Vaswani et al. 2017, arXiv 1706.03762), norm after each part.

    With `alone` each band sees itself only. The published network attends over the windows of a batch, and is
    run on one window at a time; here the answer never depends on a window's neighbours in the batch.

    Examples
    --------
    >>> BandAttention(32, 4, 64)(torch.zeros(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 32])
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, alone: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.alone = heads, alone
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.query_key_value.weight)

    def _attended(self, x: Tensor, present: Tensor) -> Tensor:
        n, bands, width = x.shape
        query, key, value = (
            part.reshape(n, bands, self.heads, -1).transpose(1, 2)
            for part in self.query_key_value(x).chunk(3, dim=2)
        )
        mixed = value  # of a band that sees itself only, the softmax is 1
        if not self.alone:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=present[:, None, None, :])
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, bands, width))
        return out

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Return features of the same shape; bands that are not `present` are not looked at."""
        x = self.norm1(x + self.dropout(self._attended(x, present)))
        out: Tensor = self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))
        return out


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Sizes and variant of `SenseiV2`; see `SenseiV2Network`."""

    variant: Variant = "own"
    channels: int = 32
    width: int = 128
    heads: int = 4
    layers: int = 2
    enter: tuple[int, ...] | None = None
    embed: tuple[int, ...] | None = None
    hidden: int | None = None
    step: int = 1
    dropout: float = 0.0


class BandEmbedding(nn.Module):
    """Sinusoids of each band's pixels, pooled over bands, then batch norm.

    Three networks give gain, frequency and phase of each band and channel. Frequencies start spread over
    0.5 to 12 radians a unit of reflectance, gains at one: ours, so that channels differ from the start.

    Examples
    --------
    >>> embed = BandEmbedding(EncoderSettings(channels=8, width=16))
    >>> embed(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.published = settings.variant == "published"
        between = (settings.width,) if settings.embed is None else settings.embed
        widths = (settings.width, *between, settings.channels)
        skip: Skip = "none" if self.published else "input"
        self.gain, self.frequency, self.phase = (FullyConnected(widths, skip=skip) for _ in range(3))
        nn.init.ones_(self.gain.layers[-1][2].bias)  # type: ignore[index]
        with torch.no_grad():
            self.frequency.layers[-1][2].bias.copy_(torch.linspace(0.5, 12, settings.channels))  # type: ignore
        self.norm = nn.BatchNorm2d(settings.channels, momentum=0.05)

    def forward(self, pixels: Tensor, features: Tensor, present: Tensor) -> Tensor:
        """Return the embedded window, (n, channels, y, x)."""
        gain, frequency, phase = self.gain(features), self.frequency(features), self.phase(features)
        share = present.to(pixels.dtype)
        if self.published:  # sin(f (x + p)), summed
            phase = frequency * phase
        else:  # sin(f x + p), averaged
            share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
        gain = gain * share.unsqueeze(2)
        total: Tensor | None = None
        for band in range(pixels.shape[1]):  # one at a time: memory does not grow with the bands
            f, p, g = (part[:, band, :, None, None] for part in (frequency, phase, gain))
            wave = torch.sin(torch.addcmul(p, f, pixels[:, band : band + 1]))
            total = wave * g if total is None else torch.addcmul(total, wave, g)
        out: Tensor = self.norm(total)
        return out


class SenseiV2(nn.Module):
    """The encoder: any bands, radar and height to a fixed number of channels.

    Examples
    --------
    >>> encoder = SenseiV2(EncoderSettings())
    >>> encoder(torch.zeros(2, 5, 16, 16), torch.zeros(5, 72)).shape
    torch.Size([2, 32, 16, 16])
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.step, width = settings.step, settings.width
        published = settings.variant == "published"
        source = (PUBLISHED_LENGTH if published else SPREAD_LENGTH) + len(PERCENTILES)
        widths = (source, *((width,) if settings.enter is None else settings.enter), width)
        self.enter = FullyConnected(
            widths, skip="output" if published else "input", plain_entry=not published
        )
        self.attention = nn.ModuleList(
            BandAttention(
                width, settings.heads, settings.hidden or 2 * width, alone=published, dropout=settings.dropout
            )
            for _ in range(settings.layers)
        )
        self.leave = nn.Identity() if published else FullyConnected((width, width))
        self.embed = BandEmbedding(settings)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the shared representation, (n, channels, y, x)."""
        pixels, descriptors, present = prepare(pixels, descriptors, present)
        with full_precision(pixels):
            features = self.enter(torch.cat([descriptors, percentiles(pixels, self.step)], dim=2))
            for layer in self.attention:
                features = layer(features, present)
            out: Tensor = self.embed(pixels, self.leave(features), present)
        return out


class SenseiV2Network(nn.Module):
    """The encoder and a segmentation network: a set network.

    Parameters
    ----------
    classes : int
        Output channels.
    head : str
        ``"segformer-b0"`` to ``"-b5"``, ``"deeplabv3plus-resnet34"``, ``"-resnet50"`` and ``"pixel"`` (three
        layers on single pixels) are published; ``"compact"`` is ours, see `CompactUNet`.
    variant : {"own", "published"}
        See the module's notes.
    channels : int
        Of the embedding.
    width, heads, layers : int
        Features of a band, attention heads that share them, attention layers.
    enter, embed : tuple of int, optional
        Widths between the first and the last of the layers before attention, and of those that make gain,
        frequency and phase; ``(width,)`` if not given.
    hidden : int, optional
        Width of the feed-forward part of attention; twice `width` if not given.
    head_width : int, optional
        Of SegFormer's decoder, or of the layers of ``"pixel"``; as published if not given.
    step : int
        Percentiles look at every step-th pixel of every step-th row.
    dropout : float
        In attention, while training.
    compact_widths, compact_depth
        Of the compact head.

    Examples
    --------
    >>> net = SenseiV2Network()
    >>> red, height = BandInput("optical", 650, 680), BandInput("elevation")
    >>> net(torch.zeros(2, 2, 64, 64), torch.from_numpy(net.describe([red, height]))).shape
    torch.Size([2, 7, 64, 64])
    >>> sum(p.numel() for p in net.parameters()) < 5_000_000
    True
    """

    def __init__(
        self,
        *,
        classes: int = 7,
        head: Head = "compact",
        variant: Variant = "own",
        channels: int = 32,
        width: int = 128,
        heads: int = 4,
        layers: int = 2,
        enter: tuple[int, ...] | None = None,
        embed: tuple[int, ...] | None = None,
        hidden: int | None = None,
        head_width: int | None = None,
        step: int = 1,
        dropout: float = 0.0,
        compact_widths: tuple[int, ...] = (32, 64, 128, 192, 256),
        compact_depth: int = 2,
    ) -> None:
        super().__init__()
        sizes = (classes, channels, width, heads, step, compact_depth, *compact_widths)
        optional = [size for size in (*(enter or ()), *(embed or ()), hidden, head_width) if size is not None]
        if min(*sizes, *optional) < 1 or width % heads or not compact_widths or dropout >= 1:
            raise CloudMaskError(
                "sizes must be 1 or more, width a multiple of heads and dropout below 1; got "
                f"classes={classes}, channels={channels}, width={width}, heads={heads}, step={step}, "
                f"enter={enter}, embed={embed}, hidden={hidden}, head_width={head_width}, dropout={dropout}, "
                f"compact_widths={compact_widths}, compact_depth={compact_depth}"
            )
        settings = EncoderSettings(
            variant, channels, width, heads, layers, enter, embed, hidden, step, dropout
        )
        name, _, size = head.partition("-")
        made: nn.Module
        if name == "compact":
            made = CompactUNet(channels, classes, widths=compact_widths, depth=compact_depth)
        elif name == "deeplabv3plus":
            made = DeepLab(bands=channels, classes=classes, encoder=size, decoder="v3plus-separable")  # type: ignore[arg-type]
        elif name == "segformer":
            made = SegFormer(bands=channels, classes=classes, size=size, width=head_width)  # type: ignore[arg-type]
        else:
            between = head_width or 256
            made = nn.Sequential(
                nn.Conv2d(channels, between, 1), nn.ReLU(), nn.Conv2d(between, between, 1), nn.ReLU(),
                nn.Conv2d(between, classes, 1),
            )  # fmt: skip
        self.published, self.encoder, self.head = variant == "published", SenseiV2(settings), made

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return sinusoids and flags of each band."""
        return describe_v2([*map(with_published_edges, bands)]) if self.published else describe_spread(bands)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x)."""
        out: Tensor = self.head(self.encoder(pixels, descriptors, present))
        return out
