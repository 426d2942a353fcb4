"""The U-Nets of DL-L8S2-UV (López-Puigdollers, Mateo-García and Gómez-Chova 2021, Remote Sensing 13, 992).

Small U-Nets of separable convolutions for Landsat 8, Sentinel-2 and Proba-V, one logit of cloud. In front of
the last may stand the adapter of Mateo-García et al. (2021, JSTARS 14), which makes what Proba-V saw look as
Landsat would have seen it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError


def _separable(channels: int, out: int, dilation: int = 1) -> nn.Sequential:
    """Convolve each channel, then all of them, with a bias; norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1),
        nn.BatchNorm2d(out, eps=1e-3),
        nn.ReLU(),
    )


def _double(channels: int, out: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(_separable(channels, out, dilation), _separable(out, out, dilation))


def _fixed(bands: int) -> nn.Conv2d:
    """Scale and shift each band by numbers that come with the weights; untrained, it changes nothing."""
    layer = nn.Conv2d(bands, bands, 1)
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer.requires_grad_(False)


class Adapter(nn.Module):
    """Four bands of Proba-V as Landsat would have seen them; what comes out is not limited.

    Examples
    --------
    >>> Adapter()(torch.zeros(1, 4, 9, 9)).shape
    torch.Size([1, 4, 9, 9])
    """

    def __init__(self, bands: int = 4, width: int = 64) -> None:
        super().__init__()
        self.subtract, self.restore = _fixed(bands), _fixed(bands)
        self.first = _double(bands, width)
        self.second = _double(bands + width, width, dilation=2)
        self.change = nn.Conv2d(bands + 2 * width, bands, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the bands adapted."""
        x = self.subtract(x)
        x = torch.cat([x, self.first(x)], dim=1)
        out: Tensor = self.restore(self.change(torch.cat([self.second(x), x], dim=1)))
        return out


class IplUv(nn.Module):
    """The U-Net: two poolings, 32 to 128 channels, logits at the size of the input, whatever it is.

    Parameters
    ----------
    bands : int
        Input channels. The first layer scales each of them, by numbers that come with the weights and are
        not trained.
    adapter : bool
        Whether an `Adapter` stands in front; what it gives is limited to reflectance of 0 to 2.

    Examples
    --------
    >>> net = IplUv(bands=4)
    >>> net(torch.zeros(1, 4, 30, 33)).shape
    torch.Size([1, 1, 30, 33])
    >>> sum(p.numel() for p in net.parameters())  # without the means and variances of norms
    95769
    """

    def __init__(self, *, bands: int = 4, adapter: bool = False) -> None:
        super().__init__()
        if bands < 1:
            raise CloudMaskError(f"a network needs at least 1 band, got {bands}")
        self.adapter = Adapter(bands) if adapter else None
        self.scale = _fixed(bands)
        self.down = nn.ModuleList([_double(bands, 32), _double(32, 64), _double(64, 128)])
        self.grow = nn.ModuleList([nn.ConvTranspose2d(128, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)])
        self.up = nn.ModuleList([_double(128, 64), _double(64, 32)])
        self.logits = nn.Conv2d(32, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of cloud, (n, 1, y, x)."""
        if self.adapter is not None:
            x = self.adapter(x).clamp(0, 2)
        x = self.scale(x)
        skips: list[Tensor] = []
        for level in self.down:
            x = level(F.max_pool2d(x, 2, ceil_mode=True) if skips else x)
            skips.append(x)
        for grow, level, skip in zip(self.grow, self.up, skips[-2::-1], strict=True):
            x = level(torch.cat([grow(x)[..., : skip.shape[2], : skip.shape[3]], skip], dim=1))
        out: Tensor = self.logits(x)
        return out
