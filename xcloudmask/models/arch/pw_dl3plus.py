"""PW-DL3+: a DeepLab on MobileNetV2, and an MLP on each pixel's own spectrum beside it.

The operational cloud masker of FDR4VGT-CLOUD (Contreras, Aybar and Gomez-Chova 2026, "A multisensor deep
learning framework for robust cloud segmentation in SPOT-VGT and Proba-V"; model card of the same name). This
is for training one of one's own: the published weights are exported programs, which carry their graph.

What is stated: the two parts; four bands (blue, red, NIR, SWIR), windows of 512, one cloud probability;
12.65 million weights with both; and, from the sizes of the family's other networks, that the pixel-wise part
and the joining have 1,313 weights together. So here:

- DeepLab: ``DeepLabV3`` of segmentation_models_pytorch on ``mobilenet_v2``, at output stride 8, its logits
  enlarged with corners aligned (tested, see `xcloudmask.models.keymaps`). It has 12,648,225 weights, and
  12,649,538 with the other part. The card writes DeepLabV3+, the file's name ``deeplabv3``: the plus of that
  library has 4.4 million, one with a dense pyramid and decoder 12.76.
- pixel-wise part: two 1x1 convolutions to 32 with batch norm and ReLU, and one to the logit: 1,313 weights.
- joining: the sum of both logits, which has none.

Not checked, as no published file could be read where this was written: which layers the 1,313 weights are in
the published network, how its parts are joined, and what it calls them.
"""

from __future__ import annotations

from torch import Tensor, nn

from xcloudmask.models.arch.deeplabv3plus import DeepLab
from xcloudmask.models.arch.parts import conv_norm


class PixelWiseDeepLab(nn.Module):
    """DeepLab and a pixel-wise MLP; the answer is the sum of their logits: one, of cloud.

    Parameters
    ----------
    bands : int
        Input channels; blue, red, NIR and SWIR reflectance by default.
    output_stride : {8, 16}
        How much smaller the deep features are than the input; 16 takes less time.

    Examples
    --------
    >>> import torch
    >>> net = PixelWiseDeepLab()
    >>> net(torch.zeros(2, 4, 64, 64)).shape
    torch.Size([2, 1, 64, 64])
    >>> sum(p.numel() for p in net.pixelwise.parameters())
    1313
    >>> sum(p.numel() for p in net.parameters())
    12649538
    """

    def __init__(self, *, bands: int = 4, output_stride: int = 8) -> None:
        super().__init__()
        self.deeplab = DeepLab(
            bands=bands, classes=1, output_stride=output_stride, decoder="v3", corners=True
        )
        self.pixelwise = nn.Sequential(conv_norm(bands, 32, 1), conv_norm(32, 32, 1), nn.Conv2d(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of cloud, (n, 1, y, x)."""
        out: Tensor = self.deeplab(x) + self.pixelwise(x)
        return out
