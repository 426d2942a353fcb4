"""DeepLabV3+ (Chen et al. 2018, ECCV, arXiv 1802.02611) on MobileNetV2 or ResNet-34 and -50.

The paper leaves the decoder's size to the reader ("a few" 3x3 convolutions); `decoder` says what is here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models.arch.mobilenet_v2 import MobileNetV2
from xcloudmask.models.arch.parts import conv_norm, init_convolutions, resize_as, separable_conv
from xcloudmask.models.arch.resnet import ResNet

Encoder = Literal["mobilenet-v2", "mobilenet-v2-320", "resnet34", "resnet50"]
Decoder = Literal["v3plus", "v3plus-separable", "v3", "pooled"]
STRIDES = (8, 16)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen at several distances and as one mean.

    Beside a 3x3 branch for each dilation stand a 1x1 branch and the mean over the window.

    Examples
    --------
    >>> Pyramid(8, 4, (6, 12))(torch.zeros(2, 8, 16, 16)).shape
    torch.Size([2, 4, 16, 16])
    """

    def __init__(self, channels: int, out: int, rates: tuple[int, ...], *, separable: bool = False) -> None:
        super().__init__()
        atrous = separable_conv if separable else conv_norm
        self.branches = nn.ModuleList(
            [conv_norm(channels, out, 1), *(atrous(channels, out, dilation=rate) for rate in rates)]
        )
        self.pooled = conv_norm(channels, out, 1)
        self.project = conv_norm(out * (len(rates) + 2), out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of `x`, same size."""
        everywhere = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        out: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), everywhere], dim=1))
        return out


class DeepLab(nn.Module):
    """Encoder, pyramid, decoder, and logits at the input's size.

    Parameters
    ----------
    bands, classes : int
        Channels in and out.
    encoder : {"mobilenet-v2", "mobilenet-v2-320", "resnet34", "resnet50"}
        ``-320`` leaves out MobileNetV2's last 1x1 convolution.
    output_stride : {8, 16}
        How much smaller the encoder's deep features are than the input; at 8 the pyramid's rates (6, 12, 18)
        are doubled, as in the paper; with ``"v3plus-separable"`` they are 12, 24 and 36 at either.
    decoder : {"v3plus", "v3plus-separable", "v3", "pooled"}
        ``"v3plus"``: the pyramid's output, enlarged, beside 48 channels of shallow features, then one 3x3
        convolution. ``"v3plus-separable"``: ``DeepLabV3Plus`` of segmentation_models_pytorch: separable
        convolutions throughout, one of them behind the pyramid.
        ``"v3"``: DeepLabV3, one 3x3 convolution and no shallow features. ``"pooled"``: neither atrous
        branches nor decoder, the small form that TensorFlow's model zoo gives MobileNetV2.
    corners : bool
        Whether logits are enlarged with corner pixels upon corner pixels, as some libraries do.

    Examples
    --------
    >>> small = DeepLab(bands=13, encoder="mobilenet-v2-320", output_stride=8, decoder="pooled")
    >>> small(torch.zeros(2, 13, 64, 64)).shape
    torch.Size([2, 2, 64, 64])
    >>> sum(p.numel() for p in small.parameters())  # SEnSeI, table VII: 2.11 million
    2111554
    """

    def __init__(
        self,
        *,
        bands: int = 3,
        classes: int = 2,
        encoder: Encoder = "mobilenet-v2",
        output_stride: int = 16,
        decoder: Decoder = "v3plus",
        corners: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in STRIDES:
            raise OptionError("output_stride", output_stride, allowed=STRIDES)
        if bands < 1 or classes < 1:
            raise CloudMaskError(f"a network needs at least 1 band and 1 class, got {bands} and {classes}")
        self.encoder = (
            ResNet(bands, 34 if encoder == "resnet34" else 50, output_stride=output_stride)
            if encoder.startswith("resnet")
            else MobileNetV2(bands, output_stride=output_stride, last=encoder == "mobilenet-v2")
        )
        width, low, deep = 256, self.encoder.low_channels, self.encoder.deep_channels
        separable = decoder == "v3plus-separable"
        far = (12, 24, 36) if separable else tuple(rate * 16 // output_stride for rate in (6, 12, 18))
        rates = () if decoder == "pooled" else far
        self.separable, self.corners = separable, corners
        self.pyramid = Pyramid(deep, width, rates, separable=separable)
        self.smooth = separable_conv(width, width) if separable else nn.Sequential()
        self.low = conv_norm(low, 48, 1) if decoder.startswith("v3plus") else None
        if decoder == "v3plus":
            self.decode = nn.Sequential(conv_norm(width + 48, width))
        elif separable:
            self.decode = nn.Sequential(separable_conv(width + 48, width))
        elif decoder == "v3":
            self.decode = nn.Sequential(conv_norm(width, width))
        else:
            self.decode = nn.Sequential(nn.Dropout(0.1))
        self.logits = nn.Conv2d(width, classes, 1)
        init_convolutions(self)
        self.logits.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of `x`."""
        low, deep = self.encoder(x)
        out = self.smooth(self.pyramid(deep))
        if self.low is not None:
            enlarged = resize_as(out, low, corners=self.separable)
            out = torch.cat([enlarged, self.low(low)], dim=1)
        return resize_as(self.logits(self.decode(out)), x, corners=self.corners)
