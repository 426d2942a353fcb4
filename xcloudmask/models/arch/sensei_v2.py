"""SEnSeI-v2 (Francis 2024, TGRS, doi 10.1109/TGRS.2024.3391625), section III-A.

From each band's descriptor (see `descriptors`) and five percentiles of its window, fully connected layers and
attention over the bands make the gain, frequency and phase with which the band's pixels are embedded as
sinusoids; the mean over bands goes to a segmentation network. The sizes stand in a figure that the text at
hand lacks: the widths here are ours, and settings.

The published network differs from the paper (facts for interoperability, not its code): settings say which is
meant. The paper's: ``attention="bands", pooling="mean", phase="outside", encoding="paper"``. The published:
``attention="as-published", pooling="sum", phase="inside", encoding="nm", entry="normed"``.
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
from xcloudmask.models.arch.deeplabv3plus import deeplabv3plus
from xcloudmask.models.arch.descriptors import FLAGS, SINUSOIDS, BandInput, Encoding, Float, describe_v2
from xcloudmask.models.arch.segformer import segformer
from xcloudmask.models.arch.setnet import full_precision, prepare

PERCENTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
#: What the seven channels mean in the paper.
CLASSES = ("land", "water", "snow", "thin_cloud", "cloud", "cloud_shadow", "no_data")

AttentionOver = Literal["bands", "as-published"]
Pooling = Literal["mean", "sum"]
Phase = Literal["outside", "inside"]
Entry = Literal["linear", "normed"]
Head = Literal["compact", "segformer-b0", "segformer-b2", "deeplabv3plus"]


def percentiles(pixels: Tensor, step: int = 1) -> Tensor:
    """Return percentiles 1, 10, 50, 90 and 99 of each band of each window, (n, bands, 5).

    Between two pixels the value is interpolated, as `numpy.quantile` does.

    Parameters
    ----------
    pixels : Tensor
        (n, bands, y, x).
    step : int
        Look at every step-th pixel of every step-th row only, which is quicker.

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
    """Layers of layer norm, ReLU and linear, with a skip connection where widths agree.

    Parameters
    ----------
    widths : sequence of int
        Of the input and of each layer's output.
    plain_entry : bool
        Whether the first layer is linear only: ReLU on raw sinusoids would lose their lower half.

    Examples
    --------
    >>> FullyConnected((77, 64, 64))(torch.zeros(2, 3, 77)).shape
    torch.Size([2, 3, 64])
    """

    def __init__(self, widths: Sequence[int], *, plain_entry: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for at, (source, out) in enumerate(pairwise(widths)):
            linear = nn.Linear(source, out)
            plain = plain_entry and at == 0
            self.layers.append(linear if plain else nn.Sequential(nn.LayerNorm(source), nn.ReLU(), linear))
        self.skips = tuple(a == b for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return features, last axis of the last width."""
        for layer, skip in zip(self.layers, self.skips, strict=True):
            x = x + layer(x) if skip else layer(x)
        return x


class BandAttention(nn.Module):
    """One transformer layer (Vaswani et al. 2017, arXiv 1706.03762), norm after each part.

    Parameters
    ----------
    width, heads, hidden : int
        Features; heads that share them; width of the feed-forward part.
    over : {"bands", "as-published"}
        ``"as-published"`` attends over the windows of a batch while training; evaluated one window at a
        time, so that each band sees itself alone.
    dropout : float
        While training.

    Examples
    --------
    >>> BandAttention(32, 4, 64)(torch.zeros(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 32])
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, over: AttentionOver = "bands", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.over = heads, over
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.query_key_value.weight)

    def _mixed(self, x: Tensor, present: Tensor) -> Tensor:
        n, bands, width = x.shape
        query, key, value = (
            part.reshape(n, bands, self.heads, -1).transpose(1, 2)
            for part in self.query_key_value(x).chunk(3, dim=2)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=present[:, None, None, :])
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, bands, width))
        return out

    def _attended(self, x: Tensor, present: Tensor) -> Tensor:
        if self.over == "bands":
            return self._mixed(x, present)
        if self.training:
            return self._mixed(x.transpose(0, 1), torch.ones_like(present.T)).transpose(0, 1)
        alone = x.reshape(-1, 1, x.shape[2])
        return self._mixed(alone, torch.ones_like(present.reshape(-1, 1))).reshape(x.shape)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Return features of the same shape; bands that are not `present` are not looked at."""
        x = self.norm1(x + self.dropout(self._attended(x, present)))
        out: Tensor = self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))
        return out


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Sizes and variants of `SenseiV2`; see the module's notes and `sensei_v2`."""

    channels: int = 32
    width: int = 128
    heads: int = 4
    layers: int = 2
    attention: AttentionOver = "bands"
    pooling: Pooling = "mean"
    phase: Phase = "outside"
    encoding: Encoding = "spread"
    entry: Entry = "linear"
    step: int = 1
    dropout: float = 0.0
    enter: tuple[int, ...] | None = None
    leave: tuple[int, ...] = ()
    embed: tuple[int, ...] | None = None
    hidden: int = 0


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
        self.pooling, self.phase_inside = settings.pooling, settings.phase == "inside"
        widths = (
            settings.width,
            *((settings.width,) if settings.embed is None else settings.embed),
            settings.channels,
        )
        self.gain, self.frequency, self.phase = (FullyConnected(widths) for _ in range(3))
        nn.init.ones_(self.gain.layers[-1][2].bias)  # type: ignore[index]
        with torch.no_grad():
            self.frequency.layers[-1][2].bias.copy_(torch.linspace(0.5, 12, settings.channels))  # type: ignore
        self.norm = nn.BatchNorm2d(settings.channels, momentum=0.05)

    def forward(self, pixels: Tensor, features: Tensor, present: Tensor) -> Tensor:
        """Return the embedded window, (n, channels, y, x)."""
        gain, frequency, phase = self.gain(features), self.frequency(features), self.phase(features)
        if self.phase_inside:
            phase = frequency * phase
        share = present.to(pixels.dtype)
        if self.pooling == "mean":
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

    Parameters
    ----------
    settings : EncoderSettings
        Sizes and variants.

    Examples
    --------
    >>> encoder = SenseiV2(EncoderSettings())
    >>> encoder(torch.zeros(2, 5, 16, 16), torch.zeros(5, 72)).shape
    torch.Size([2, 32, 16, 16])
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.step = settings.step
        width = settings.width
        source = 2 * SINUSOIDS + FLAGS + len(PERCENTILES)
        enter = (source, *((width,) if settings.enter is None else settings.enter), width)
        self.enter = FullyConnected(enter, plain_entry=settings.entry == "linear")
        hidden = settings.hidden or 2 * width
        self.attention = nn.ModuleList(
            BandAttention(width, settings.heads, hidden, over=settings.attention, dropout=settings.dropout)
            for _ in range(settings.layers)
        )
        self.leave = FullyConnected((width, *settings.leave, width))
        self.embed = BandEmbedding(settings)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the shared representation, (n, channels, y, x)."""
        pixels, descriptors, present = prepare(pixels, descriptors, present)
        with full_precision(pixels):
            described = torch.cat([descriptors, percentiles(pixels, self.step)], dim=2)
            features = self.enter(described)
            for layer in self.attention:
                features = layer(features, present)
            out: Tensor = self.embed(pixels, self.leave(features), present)
        return out


class SenseiV2Network(nn.Module):
    """The encoder and a segmentation network: a set network.

    Examples
    --------
    >>> net = sensei_v2()
    >>> red, height = BandInput("optical", 650, 680), BandInput("elevation")
    >>> net(torch.zeros(2, 2, 64, 64), torch.from_numpy(net.describe([red, height]))).shape
    torch.Size([2, 7, 64, 64])
    """

    def __init__(self, settings: EncoderSettings, head: nn.Module) -> None:
        super().__init__()
        self.encoding: Encoding = settings.encoding
        self.encoder = SenseiV2(settings)
        self.head = head

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return 64 sinusoids and flags a band."""
        return describe_v2(bands, self.encoding)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x)."""
        out: Tensor = self.head(self.encoder(pixels, descriptors, present))
        return out


def sensei_v2(
    *,
    classes: int = 7,
    head: Head = "compact",
    channels: int = 32,
    width: int = 128,
    heads: int = 4,
    layers: int = 2,
    attention: AttentionOver = "bands",
    pooling: Pooling = "mean",
    phase: Phase = "outside",
    encoding: Encoding = "spread",
    entry: Entry = "linear",
    step: int = 1,
    dropout: float = 0.0,
    enter: tuple[int, ...] | None = None,
    leave: tuple[int, ...] = (),
    embed: tuple[int, ...] | None = None,
    hidden: int = 0,
    compact_widths: tuple[int, ...] = (32, 64, 128, 192, 256),
    compact_depth: int = 2,
) -> SenseiV2Network:
    """Return SEnSeI-v2 and a head.

    Parameters
    ----------
    classes : int
        Output channels; the paper's are `CLASSES`.
    head : {"compact", "segformer-b0", "segformer-b2", "deeplabv3plus"}
        The paper has SegFormer and DeepLabV3+ on ResNet-34; ``"compact"`` is ours, see `CompactUNet`.
    channels : int
        Of the embedding.
    width, heads, layers : int
        Features of a band, attention heads that share them, attention layers.
    attention : {"bands", "as-published"}
        See `BandAttention`.
    pooling : {"mean", "sum"}
        Over bands.
    phase : {"outside", "inside"}
        ``sin(f x + p)`` or ``sin(f (x + p))``.
    encoding : {"paper", "nm", "spread"}
        See `xcloudmask.models.arch.descriptors.spectral_encoding`.
    entry : {"linear", "normed"}
        Whether the first layer is linear only, or normed and cut off at zero like the rest.
    step : int
        Percentiles look at every step-th pixel of every step-th row.
    dropout : float
        In attention, while training.
    enter, leave, embed : tuple of int
        Widths between the first and the last of the layers before attention, behind it, and of those that
        make gain, frequency and phase; ``(width,)``, ``()`` and ``(width,)`` where nothing is said.
    hidden : int
        Width of the feed-forward part of attention; twice `width` if 0.
    compact_widths, compact_depth
        Of the compact head.

    Examples
    --------
    >>> sum(p.numel() for p in sensei_v2().parameters()) < 5_000_000
    True
    """
    sizes = (
        classes,
        channels,
        width,
        heads,
        step,
        compact_depth,
        *compact_widths,
        *(enter or ()),
        *leave,
        *(embed or ()),
    )
    if min(sizes) < 1 or width % heads or not compact_widths or dropout >= 1:
        raise CloudMaskError(
            "sizes must be 1 or more, width a multiple of heads and dropout below 1; got "
            f"classes={classes}, channels={channels}, width={width}, heads={heads}, step={step}, "
            f"dropout={dropout}, compact_widths={compact_widths}, compact_depth={compact_depth}"
        )
    settings = EncoderSettings(
        channels, width, heads, layers, attention, pooling, phase, encoding, entry, step, dropout,
        enter, leave, embed, hidden,
    )  # fmt: skip
    made: nn.Module
    if head == "compact":
        made = CompactUNet(channels, classes, widths=compact_widths, depth=compact_depth)
    elif head == "deeplabv3plus":
        made = deeplabv3plus(bands=channels, classes=classes, encoder="resnet34", decoder="v3plus-separable")
    else:
        made = segformer(bands=channels, classes=classes, size="b0" if head == "segformer-b0" else "b2")
    return SenseiV2Network(settings, made)
