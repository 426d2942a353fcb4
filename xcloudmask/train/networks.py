"""The network of a training: built anew, or one that was trained before, with another head if need be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xcloudmask.errors import BandError, CloudMaskError
from xcloudmask.models import arch, card
from xcloudmask.models.arch.descriptors import BandInput, Float
from xcloudmask.models.network import load_network
from xcloudmask.types import ModelSpec

LOADER = "xcloudmask.models.loading:network"


class Fixed(nn.Module):
    """A network for fixed bands with its normalisation, called as a set network is.

    Parameters
    ----------
    network : nn.Module
        Maps (n, bands, y, x) to (n, classes, y, x).
    bands : sequence of str
        What it takes, in order.
    mean, std : sequence of float, optional
        It is given (value - mean) / std.
    one_logit : bool
        Whether its only channel is the logit of cloud; not cloud then gets a channel of zeros, which makes
        the softmax of both the sigmoid of it.

    Examples
    --------
    >>> net = Fixed(nn.Conv2d(2, 3, 1), ["red", "nir"], mean=[0.1])
    >>> net(torch.zeros(1, 2, 4, 4), torch.zeros(2, 0)).shape
    torch.Size([1, 3, 4, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        bands: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        one_logit: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.bands, self.one_logit = network, tuple(bands), one_logit
        for name, values in (("mean", mean or (0.0,)), ("std", std or (1.0,))):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def describe(self, bands: Sequence[BandInput]) -> Float:
        """Return empty descriptors: the bands are known by their place."""
        return np.zeros((len(bands), 0), np.float32)

    def forward(self, pixels: Tensor, descriptors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the network's logits."""
        if pixels.shape[1] != len(self.bands):
            raise BandError(f"this network takes {', '.join(self.bands)}; got {pixels.shape[1]} bands")
        out: Tensor = self.network((pixels - self.mean) / self.std)
        return torch.cat([torch.zeros_like(out), out], dim=1) if self.one_logit else out


@dataclass(frozen=True, eq=False, slots=True)
class Begun:
    """A network to train.

    Parameters
    ----------
    called : nn.Module
        A set network, to be trained.
    kept : nn.Module
        What is written at the end: itself, or what a `Fixed` wraps.
    architecture : str
        Its name.
    config : dict
        Its settings.
    entries : dict
        Of its card: bands, normalisation, pixel size.
    """

    called: nn.Module
    kept: nn.Module
    architecture: str
    config: dict[str, Any]
    entries: dict[str, Any]


def begin(table: Mapping[str, Any]) -> Begun:
    """Build the network that the table [network] of a config describes.

    Examples
    --------
    >>> begin({"start": "ukis-4band-l2a", "classes": ["clear", "cloud"]})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: model 'ukis-4band-l2a' is an ONNX graph, which cannot be trained on...
    """
    classes, seed = tuple(table["classes"]), int(table.get("seed", 0))
    bands = tuple(table.get("bands", ()))
    if "start" in table:
        spec = model_of(table["start"])
        network, config = with_head(spec, classes, seed=seed)
        fixed = {name: getattr(spec, name) for name in ("bands", "level", "mean", "std", "patch_fixed")}
        entries = {**fixed, **{name: getattr(spec, name) for name in ("gsd", "patch", "overlap")}}
        entries |= {"any_bands": spec.any_bands, "min_bands": spec.min_bands}
        architecture = spec.architecture
        if table.get("head_only"):
            head = head_of(architecture, config)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name in head)
    else:
        architecture = table["architecture"]
        config = dict(table.get("settings", {}))
        if "classes" in arch.config_of(architecture):
            config["classes"] = len(classes)
        network = arch.build(architecture, config, seed=seed)
        entries = {"bands": bands, "any_bands": not bands}
    if entries["any_bands"] != hasattr(network, "describe"):
        raise CloudMaskError(
            f"architecture {architecture!r} takes fixed bands: say which, bands = ['blue', ...] in [network]"
            if entries["any_bands"]
            else f"architecture {architecture!r} takes any bands: leave bands out of [network]"
        )
    one_logit = _has_one_logit(architecture, config)
    if one_logit and (len(classes) != 2 or entries["any_bands"]):
        raise CloudMaskError(
            f"architecture {architecture!r} tells cloud or not: two classes, such as ['clear', 'cloud']; got "
            f"{list(classes)}"
        )
    entries["activation"] = "sigmoid" if one_logit else "softmax"
    called = network
    if not entries["any_bands"]:
        normalised = entries.get("mean"), entries.get("std")
        called = Fixed(network, entries["bands"], *normalised, one_logit=one_logit)
    return Begun(called, network, architecture, config, entries)


def model_of(start: str | Path | ModelSpec) -> ModelSpec:
    """Return the card of a model by its name, or of weights that a training wrote, by their path."""
    if isinstance(start, ModelSpec):
        return start
    path = Path(start)
    if path.suffix not in (".safetensors", ".json"):
        from xcloudmask import models

        return models.get(str(start))
    weights, told = path.with_suffix(".safetensors").resolve(), path.with_suffix(".json")
    for file in (weights, told):
        if not file.exists():
            raise CloudMaskError(
                f"{file} does not exist: weights and card, .safetensors and .json, go together"
            )
    return card.from_json(told.read_bytes(), told.name, loader=LOADER, weights=str(weights))


def with_head(spec: ModelSpec, classes: Sequence[str], *, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model's network and its settings, with a head for these classes.

    Where the classes are the model's own it is as it was. Otherwise the last layer is new, except for what
    it holds of classes with the same name.

    Parameters
    ----------
    spec : ModelSpec
        The model; its weights belong to one of `xcloudmask.models.arch.NAMES`.
    classes : sequence of str
        What the channels shall mean.
    seed : int
        Of the new weights.

    Examples
    --------
    >>> from xcloudmask import models
    >>> network, config = with_head(models.get("spectral"), ["clear", "cloud"])
    >>> config["classes"]
    2
    """
    if spec.runtime == "onnx" or not spec.architecture or spec.activation not in ("softmax", "sigmoid"):
        what = "an ONNX graph" if spec.runtime == "onnx" else "a network of no architecture known here"
        if spec.architecture:
            what = "a network that gives probabilities"
        raise CloudMaskError(
            f"model {spec.name!r} is {what}, which cannot be trained on. Start from a model with an "
            "architecture ('spectral', or weights that xcloudmask.train wrote), and learn from this one as a "
            "teacher: xcloudmask.train.pseudo"
        )
    config: dict[str, Any] = json.loads(spec.config or "{}")
    old: nn.Module = load_network(spec).body.train()
    channels = config.get("classes", arch.config_of(spec.architecture).get("classes"))
    one_logit = _has_one_logit(spec.architecture, config)
    if tuple(classes) == spec.classes and (channels == len(classes) or one_logit):
        return old, config
    config["classes"] = len(classes)
    network = arch.build(spec.architecture, config, seed=seed)
    state, head = network.state_dict(), head_of(spec.architecture, config)
    for name, value in old.state_dict().items():
        if name not in head:
            state[name] = value
        elif value.shape[head[name]] == len(spec.classes):
            for at, word in enumerate(classes):
                if word in spec.classes:
                    row = value.select(head[name], spec.classes.index(word))
                    state[name].select(head[name], at).copy_(row)
    network.load_state_dict(state)
    return network, config


def _has_one_logit(architecture: str, config: Mapping[str, Any]) -> bool:
    return config.get("classes", arch.config_of(architecture).get("classes")) in (None, 1)


def head_of(architecture: str, config: Mapping[str, object]) -> dict[str, int]:
    """Return the tensors whose shape depends on the number of classes, and along which axis.

    Examples
    --------
    >>> sorted(head_of("sensei-v2", {"classes": 4}))
    ['head.direct.weight', 'head.logits.bias', 'head.logits.weight']
    """
    if "classes" not in arch.config_of(architecture):
        raise CloudMaskError(f"architecture {architecture!r} has no head that could be replaced")
    count = int(str(config["classes"]))
    with torch.device("meta"):
        few, more = (
            arch.construct(architecture, {**config, "classes": number}).state_dict()
            for number in (count, count + 1)
        )
    return {
        name: next(
            d for d, (a, b) in enumerate(zip(few[name].shape, more[name].shape, strict=True)) if a != b
        )
        for name in few
        if few[name].shape != more[name].shape
    }
