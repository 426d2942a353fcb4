"""PW-DL3+: DeepLabV3+ on MobileNetV2, fused with an MLP on each pixel's own spectrum.

The operational cloud masker of FDR4VGT-CLOUD (Contreras, Aybar and Gomez-Chova 2026, "A multisensor deep
learning framework for robust cloud segmentation in SPOT-VGT and Proba-V"; model card of the same name). The
card gives: the two parts, four bands (blue, red, NIR, SWIR), windows of 512, one cloud probability, 12.65
million parameters. Left open, and chosen here:

- pyramid: dense (not separable) 3x3 branches of 256 channels on all 1280 channels of MobileNetV2, at output
  stride 16; only this comes near the stated size;
- decoder: 48 shallow channels and one dense 3x3 convolution (12.77 million in all, +0.9 %). With
  ``decoder="v3"`` (no shallow features) the network without the MLP has 12,648,225 parameters, the stated
  figure to four digits, and as many as ``DeepLabV3`` on ``mobilenet_v2`` of segmentation_models_pytorch,
  whose U-Net++ has the 6,825,009 that the same authors state for theirs; the published file's name reads
  ``deeplabv3`` too. So ``decoder="v3", output_stride=8, corners=True``, which is that network (tested, see
  `xcloudmask.models.keymaps.smp`), is kept for published weights;
- MLP: two layers of 64, each with batch norm and ReLU, then 16 features;
- fusion: 16 features of DeepLab at full size beside those 16, one hidden layer of 32, one logit.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from xcloudmask.models.arch.deeplabv3plus import DeepLab, deeplabv3plus
from xcloudmask.models.arch.parts import conv_norm


class PixelWiseDeepLab(nn.Module):
    """DeepLab and a pixel-wise MLP, joined by a small layer.

    Parameters
    ----------
    deeplab : DeepLab
        Gives `features` channels at the input's size.
    bands, features : int
        Input channels; features that either part gives.

    Examples
    --------
    >>> net = PixelWiseDeepLab(deeplabv3plus(bands=4, classes=16), 4)
    >>> net(torch.zeros(2, 4, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    """

    def __init__(self, deeplab: DeepLab, bands: int, features: int = 16) -> None:
        super().__init__()
        self.deeplab = deeplab
        self.pixelwise = nn.Sequential(
            conv_norm(bands, 64, 1), conv_norm(64, 64, 1), nn.Conv2d(64, features, 1)
        )
        self.fuse = nn.Sequential(conv_norm(2 * features, 32, 1), nn.Conv2d(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of cloud, (n, 1, y, x)."""
        out: Tensor = self.fuse(torch.cat([self.deeplab(x), self.pixelwise(x)], dim=1))
        return out


def pw_dl3plus(
    *,
    bands: int = 4,
    output_stride: int = 16,
    decoder: Literal["v3plus", "v3"] = "v3plus",
    corners: bool = False,
) -> PixelWiseDeepLab:
    """Return PW-DL3+ for blue, red, NIR and SWIR reflectance; one logit, of cloud.

    Parameters
    ----------
    bands : int
        Input channels.
    output_stride : {8, 16}
        How much smaller the deep features are than the input.
    decoder : {"v3plus", "v3"}
        See the module's notes.
    corners : bool
        See `DeepLab`.

    Examples
    --------
    >>> round(sum(p.numel() for p in pw_dl3plus().parameters()) / 1e6, 2)
    12.77
    """
    features = 16  # of either part; deeplabv3plus checks the rest
    deeplab = deeplabv3plus(
        bands=bands, classes=features, output_stride=output_stride, decoder=decoder, corners=corners
    )
    return PixelWiseDeepLab(deeplab, bands, features)
