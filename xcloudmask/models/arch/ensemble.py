"""Several networks as one: their mean probability, and how far they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.models.arch.descriptors import BandInput, Float
from xcloudmask.models.arch.setnet import SetNetwork

Activation = Literal["softmax", "sigmoid"]
Reduction = Literal["mean", "max", "min"]


class Ensemble(nn.Module):
    """Members that share inputs and classes.

    It returns probabilities, so the engine adds no activation. A member with one logit tells cloud; it
    becomes the two classes not cloud, cloud.

    Parameters
    ----------
    members : sequence of nn.Module
        Each maps the same arguments to logits (n, classes, y, x).
    activation : {"softmax", "sigmoid"}
        Of each member.
    reduce : {"mean", "max", "min"}
        How members are joined; max and min are of each class and scaled to sum to one again (for one
        logit they are those of cloud).
    spread : bool
        Whether a last channel, the uncertainty, is added: the standard deviation between members of the
        probability of cloud; 0 where all agree, at most 0.5.
    cloud : sequence of int
        Which classes are cloud. If it is not told, the uncertainty is the largest over classes.

    Examples
    --------
    >>> pair = Ensemble([nn.Conv2d(2, 1, 1), nn.Conv2d(2, 1, 1)], activation="sigmoid", spread=True)
    >>> pair(torch.zeros(1, 2, 4, 4)).shape
    torch.Size([1, 3, 4, 4])
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        activation: Activation = "softmax",
        reduce: Reduction = "mean",
        spread: bool = False,
        cloud: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if not members:
            raise CloudMaskError("an ensemble needs at least one member")
        for what, value, allowed in (
            ("activation", activation, get_args(Activation)), ("reduce", reduce, get_args(Reduction)),
        ):  # fmt: skip
            if value not in allowed:
                raise OptionError(f"{what} of an ensemble", value, allowed=allowed)
        self.members = nn.ModuleList(members)
        self.activation, self.reduce, self.spread, self.cloud = activation, reduce, spread, list(cloud)

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return the descriptors that the members were made for, if they take any set of bands."""
        first = self.members[0]
        if not isinstance(first, SetNetwork):
            raise BandError("the members of this ensemble take fixed bands")
        return first.describe(bands)

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.activation == "softmax":
            return torch.softmax(logits, dim=1)
        cloud = torch.sigmoid(logits)
        return torch.cat([1 - cloud, cloud], dim=1)

    def _joined(self, each: Tensor) -> Tensor:
        if self.reduce == "mean":
            return each.mean(dim=0)
        if self.activation == "sigmoid":
            cloud = each[:, :, 1:]
            cloud = cloud.amax(dim=0) if self.reduce == "max" else cloud.amin(dim=0)
            return torch.cat([1 - cloud, cloud], dim=1)
        joined = each.amax(dim=0) if self.reduce == "max" else each.amin(dim=0)
        return joined / joined.sum(dim=1, keepdim=True).clamp(min=1e-12)

    def forward(self, pixels: Tensor, *more: Tensor) -> Tensor:
        """Return probabilities, (n, classes, y, x), and the uncertainty behind them if asked for."""
        each = torch.stack([self._probabilities(member(pixels, *more)) for member in self.members])
        joined = self._joined(each)
        if not self.spread:
            return joined
        told = each[:, :, self.cloud].sum(dim=2, keepdim=True) if self.cloud else each
        deviation = told.std(dim=0, correction=0).amax(dim=1, keepdim=True)
        return torch.cat([joined, deviation], dim=1)


def ensemble(
    *,
    members: tuple[Mapping[str, object], ...],
    activation: Activation = "sigmoid",
    reduce: Reduction = "mean",
    spread: bool = True,
    cloud: tuple[int, ...] = (),
) -> Ensemble:
    """Return an ensemble of architectures by name.

    Parameters
    ----------
    members : tuple of mapping
        One ``{"name": ..., "config": {...}}`` a member, as `xcloudmask.models.arch.build` takes them; each
        starts from weights of its own.
    activation, reduce, spread, cloud
        See `Ensemble`.

    Examples
    --------
    >>> pair = ensemble(members=({"name": "pixel-mlp"}, {"name": "pixel-mlp"}), activation="softmax")
    >>> len(pair.members)
    2
    """
    from xcloudmask.models import arch

    made = []
    for member in members:
        name, config = member.get("name"), member.get("config", {})
        if set(member) - {"name", "config"} or not isinstance(name, str) or not isinstance(config, Mapping):
            raise CloudMaskError(
                f"a member of an ensemble reads {{'name': ..., 'config': {{...}}}}, got {member!r}"
            )
        if name == "ensemble":
            raise CloudMaskError("an ensemble may not hold another one")
        made.append(arch.construct(name, config))
    return Ensemble(made, activation=activation, reduce=reduce, spread=spread, cloud=cloud)
