"""CloudDL, the U-Net of CNES.

Kettig et al. 2020, "Improving future optical Earth Observation products using transfer learning", EGU.
The slides give: U-Net with batch norm and dropout; red, green, blue, NIR and SWIR at reduced resolution, with
or without a terrain model; a binary answer; dropout and filter size found by search. Left open, and chosen
here: four levels of two 3x3 convolutions from 32 filters up, max pooling, bilinear upsampling, dropout of 0.2
after each level but the first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from xcloudmask.errors import BandError, CloudMaskError
from xcloudmask.models.arch.parts import conv_norm, init_convolutions, resize_as


class CloudUNet(nn.Module):
    """U-Net with batch norm and dropout, and height as an optional input; by default one logit, of cloud.

    Parameters
    ----------
    bands, classes : int
        Optical channels in, channels out.
    width, levels : int
        Filters of the first level (doubled at each), and how often the size is halved.
    dropout : float
        Share of feature maps dropped while training.
    dem : bool
        Whether a channel of height, scaled to about -1..1, may follow the bands, or be given as `dem`.
        Where it is not given it is zero.

    Examples
    --------
    >>> net = CloudUNet(width=8, levels=2, dem=True)
    >>> net(torch.zeros(2, 5, 32, 32)).shape, net(torch.zeros(2, 6, 32, 32)).shape
    (torch.Size([2, 1, 32, 32]), torch.Size([2, 1, 32, 32]))
    >>> f"{sum(p.numel() for p in CloudUNet().parameters()):,}"
    '7,850,177'
    """

    def __init__(
        self,
        *,
        bands: int = 5,
        classes: int = 1,
        width: int = 32,
        levels: int = 4,
        dropout: float = 0.2,
        dem: bool = False,
    ) -> None:
        super().__init__()
        if min(bands, classes, width) < 1 or levels > 6 or dropout >= 1:
            raise CloudMaskError(
                "a U-Net needs bands, classes and width of 1 or more, at most 6 levels and dropout below 1; "
                f"got bands={bands}, classes={classes}, width={width}, levels={levels}, dropout={dropout}"
            )
        self.bands, self.dem = bands, dem
        widths = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList()
        source = bands + int(dem)
        for at, out in enumerate(widths):
            self.down.append(_double(source, out, dropout if at else 0.0))
            source = out
        self.up = nn.ModuleList()
        for out in widths[-2::-1]:
            self.up.append(_double(source + out, out, dropout if out != width else 0.0))
            source = out
        self.logits = nn.Conv2d(width, classes, 1)
        init_convolutions(self)
        self.logits.reset_parameters()

    def _with_height(self, x: Tensor, dem: Tensor | None) -> Tensor:
        given = x.shape[1] - self.bands if dem is None else 1
        if dem is not None:
            x = torch.cat([x, dem], dim=1)
        if x.shape[1] - given != self.bands or given not in (0, int(self.dem)):
            also = " and may take one of height" if self.dem else ""
            raise BandError(f"this U-Net takes {self.bands} bands{also}, got {x.shape[1]}")
        if not self.dem:
            return x
        height = x[:, self.bands :] if given else torch.zeros_like(x[:, :1])
        return torch.cat([x[:, : self.bands], height], dim=1)

    def forward(self, x: Tensor, dem: Tensor | None = None) -> Tensor:
        """Return logits, (n, classes, y, x)."""
        x = self._with_height(x, dem)
        skips: list[Tensor] = []
        for level in self.down:
            x = level(F.max_pool2d(x, 2, ceil_mode=True) if skips else x)
            skips.append(x)
        for level, skip in zip(self.up, skips[-2::-1], strict=True):
            x = level(torch.cat([resize_as(x, skip), skip], dim=1))
        out: Tensor = self.logits(x)
        return out


def _double(source: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(conv_norm(source, out), conv_norm(out, out), nn.Dropout2d(dropout))
