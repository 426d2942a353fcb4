"""Further terms of the loss: the bands themselves, and what another network predicts.

Both are terms of a config's table [loss], and act in training only: weights that are written hold neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xcloudmask import models
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.arch.descriptors import BandInput, Float
from xcloudmask.models.arch.setnet import prepare
from xcloudmask.models.network import load_network
from xcloudmask.train.config_tables import Distil, Loss
from xcloudmask.train.fixed import Estimated
from xcloudmask.train.losses import band_recovery, distillation, teaching
from xcloudmask.train.networks import Begun, begin, model_of
from xcloudmask.train.pseudo import opinion
from xcloudmask.train.samples import Image, Sample
from xcloudmask.types import ModelSpec


class Recovery(nn.Module):
    """Recovers the value of a band, known by its descriptor, from the embedding of all bands.

    From the descriptor a small network makes a direction in the space of the embedding and an offset; the
    estimate is linear in the embedding, so that what is recovered must lie open in it.

    Examples
    --------
    >>> Recovery(8, 72)(torch.zeros(2, 8, 4, 4), torch.zeros(2, 3, 72)).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(self, channels: int, described: int, *, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(described, width), nn.ReLU(), nn.Linear(width, channels + 1))

    def forward(self, embedding: Tensor, descriptors: Tensor) -> Tensor:
        """Return estimates, (n, bands, y, x)."""
        made = self.layers(descriptors)
        out: Tensor = torch.einsum("ncyx,nbc->nbyx", embedding, made[..., :-1]) + made[..., -1, None, None]
        return out


class Taught(nn.Module):
    """A network to train with a further loss; called in training it returns logits and that loss.

    `recovery` is the weight of `band_recovery`, and needs a network with an ``encoder`` that takes any bands.
    `distil` says how it learns from the teacher, which is called as the network is and has its classes.

    Examples
    --------
    >>> from xcloudmask.models import arch
    >>> small = {"channels": 8, "width": 16, "compact_widths": [8, 8]}
    >>> net = Taught(arch.build("sensei-v2", small), recovery=0.1)
    >>> logits, extra = net(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 72))
    >>> logits.shape, extra.item() > 0
    (torch.Size([1, 7, 16, 16]), True)
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        recovery: float = 0.0,
        teacher: nn.Module | None = None,
        distil: Distil | None = None,
    ) -> None:
        super().__init__()
        self.network, self.weight = network, recovery
        # what validation looks at
        self.window, self.takes = getattr(network, "window", None), getattr(network, "takes", ())
        self.aux, self.bands = getattr(network, "aux", ()), getattr(network, "bands", ())
        self._teaching: tuple[tuple[nn.Module, Distil], ...] = ()  # in a tuple a teacher is no submodule
        if teacher is not None and distil is not None:
            self._teaching = ((teacher.eval().requires_grad_(False), distil),)
        self._embedding: Tensor | None = None
        if recovery:
            encoder = getattr(network, "encoder", None)
            if not isinstance(encoder, nn.Module):
                raise CloudMaskError(
                    "recovery in [loss] needs a network with an encoder of any bands, such as sensei-v2"
                )
            encoder.register_forward_hook(self._keep)
            described = network.describe([BandInput("optical", 600, 700)]).shape[1]  # type: ignore[operator]
            with torch.no_grad():
                embedding = encoder.eval()(torch.zeros(1, 1, 8, 8), torch.zeros(1, described))
            encoder.train()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.recovery = Recovery(embedding.shape[1], described)

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return the network's descriptors."""
        made: Float = self.network.describe(bands)  # type: ignore[operator]
        return made

    def forward(
        self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits; in training also the further loss."""
        logits: Tensor = self.network(pixels, descriptors, present)
        if not self.training:
            return logits
        pixels, descriptors, present = prepare(pixels, descriptors, present)
        valid = (pixels != 0).any(dim=1)  # a batch holds 0 where there is no data
        extra = logits.new_zeros((), dtype=torch.float32)
        if self.weight and self._embedding is not None:
            estimate = self.recovery(self._embedding, descriptors)
            extra = extra + self.weight * band_recovery(estimate, pixels, present, valid)
        for teacher, distil in self._teaching:
            with torch.no_grad():
                target = torch.softmax(teacher.to(pixels.device)(pixels, descriptors, present).float(), dim=1)
            loss = distillation(logits, target, valid, temperature=distil.temperature)
            extra = extra + distil.weight * loss
        self._embedding = None
        return logits, extra

    def _keep(self, _: nn.Module, __: Any, out: Tensor) -> None:
        self._embedding = out if self.training else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A teacher that is asked about each image with all its bands, whichever of them the network gets.

    `model` is understood as `xcloudmask.train.pseudo.teach` does, `weight` and `temperature` are of the
    distillation.

    Examples
    --------
    >>> import numpy as np
    >>> from xcloudmask.train.samples import Sample
    >>> from xcloudmask.types import Band
    >>> red, label = np.zeros((1, 4, 4), "f4"), np.zeros((4, 4), "u1")
    >>> Asked("ukis-4band")(Sample(red, (Band("a", "red"),), label, 30.0, level="toa")) is None
    True
    """

    model: str | ModelSpec
    weight: float = 1.0
    temperature: float = 1.0
    device: str = "auto"

    def __call__(self, sample: Sample) -> Image | None:
        """Return what it predicts for a sample, None if the sample lacks its bands."""
        return opinion(sample, [self.model], device=self.device)

    def loss(self, classes: Sequence[str]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of logits of these classes against what it predicted."""
        return partial(teaching, classes=classes, temperature=self.temperature, weight=self.weight)


def with_extras(
    begun: Begun, loss: Loss, classes: Sequence[str], *, device: str = "auto"
) -> tuple[Begun, Asked | None]:
    """Return what to train, with the terms `recovery` and `distil` of the loss if it has them.

    A teacher that takes the network's bands and has its classes is asked about batches, with the bands the
    network gets. Any other is asked about images with all their bands, on `device`: for cloud, shadow or
    neither.

    Examples
    --------
    >>> from xcloudmask.train.networks import begin
    >>> classes = ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"]
    >>> begun = begin({"architecture": "spectral", "classes": classes})
    >>> from xcloudmask.train.config_tables import Distil, Loss
    >>> type(with_extras(begun, Loss(distil=Distil(model="spectral")), classes)[0].called).__name__
    'Taught'
    >>> with_extras(begun, Loss(distil=Distil(model="ukis-any")), classes)[1]
    Asked(model='ukis-any', weight=1.0, temperature=1.0, device='auto')
    """
    distil = loss.distil
    teacher = None if distil is None else _teacher(begun, distil.model, classes)
    asked = None
    if distil is not None and teacher is None:
        named = distil.model if distil.model in models.families() else model_of(distil.model)
        asked = Asked(named, distil.weight, distil.temperature, device)
    if not loss.recovery and teacher is None:
        return begun, asked
    called = Taught(begun.called, recovery=loss.recovery, teacher=teacher, distil=distil)
    return replace(begun, called=called), asked


def _teacher(begun: Begun, model: Any, classes: Sequence[str]) -> nn.Module | None:
    """Return a network that can be asked about batches in the place of the one it teaches, if it is one."""
    if model in models.families():
        return None
    spec = model_of(model)
    same = (spec.any_bands, spec.aux) == (begun.entries["any_bands"], begun.entries["aux"])
    if not same or spec.classes != tuple(classes):
        return None
    if spec.any_bands:
        body: nn.Module = load_network(spec).body
        if not hasattr(body, "describe"):
            return None
        if type(body) is not type(begun.called):
            probe = [BandInput("optical", 600, 700)]
            mine, its = (net.describe(probe) for net in (begun.called, body))  # type: ignore[operator]
            if mine.shape != its.shape or (mine != its).any():
                return None
        return body
    if spec.bands != begun.entries["bands"]:
        return None
    estimate = isinstance(begun.called, Estimated)
    return begin({"start": spec, "classes": spec.classes, "estimate": estimate}).called
