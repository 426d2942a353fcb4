"""The network of a training: built anew, or one that was trained before, with another head if need be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import arch
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.imputation import imputer_for
from xcloudmask.models.network import load_network
from xcloudmask.models.sources import ukis
from xcloudmask.train.fixed import Estimated, Fixed
from xcloudmask.train.pretraining import set_encoder
from xcloudmask.types import AuxInput, ModelSpec

LOADER = "xcloudmask.models.loading:network"
#: Of the card of a model to start from, what stays.
KEPT = (
    "bands", "any_bands", "aux", "min_bands", "fills", "level", "gsd", "patch", "overlap", "patch_fixed",
)  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Begun:
    """A network to train: `called`, a set network, and `kept`, what is written: itself or what it wraps.

    `entries` are those of its card: bands, aux inputs, normalisation, pixel size.
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
    >>> begun = begin({"architecture": "pixel-mlp", "bands": ["red", "nir"], "classes": ["clear", "cloud"]})
    >>> begun.entries["bands"]
    ('red', 'nir')
    """
    classes, seed = tuple(table["classes"]), int(table.get("seed", 0))
    made = _built if table.get("start") is None else _started
    network, architecture, config, entries = made(table, classes, seed)
    any_bands = entries["any_bands"]
    one_logit = _has_one_logit(architecture, config)
    if one_logit and (len(classes) != 2 or any_bands):
        raise CloudMaskError(
            f"{architecture!r} tells cloud or not: two classes, such as ['clear', 'cloud']; "
            f"got {list(classes)}"
        )
    entries["activation"] = "sigmoid" if one_logit else "softmax"
    _train_only(network, architecture, config, table)
    called = network
    estimate = table.get("estimate", entries.get("fills", False))
    if estimate and (any_bands or entries["aux"]):
        what = "any" if any_bands else "aux inputs"
        raise CloudMaskError(
            f"[network] estimate = true is for networks of fixed bands; this one takes {what}"
        )
    if not any_bands:
        normalised = entries.get("mean"), entries.get("std")
        window = entries["patch"] if entries.get("patch_fixed") else None
        entries["fills"] = bool(estimate)
        if estimate:
            how = imputer_for(entries["bands"])
            called = Estimated(network, how, *normalised, one_logit=one_logit, window=window)
        else:
            called = Fixed(
                network, entries["bands"], *normalised, one_logit=one_logit, window=window, aux=entries["aux"]
            )
    elif entries["aux"]:
        called.describe([BandInput.from_band(each.band) for each in entries["aux"]])  # type: ignore[operator]
        called.aux = entries["aux"]
    return Begun(called, network, architecture, config, entries)


#: A network, its architecture and settings, and the entries of its card.
Made = tuple[nn.Module, str, dict[str, Any], dict[str, Any]]


def _built(table: Mapping[str, Any], classes: Sequence[str], seed: int) -> Made:
    """Build a network anew."""
    architecture, bands = table["architecture"], tuple(table.get("bands", ()))
    config, usual = dict(table.get("settings", {})), arch.config_of(architecture)
    aux = tuple(AuxInput.of(name) for name in table.get("aux", ()))
    if "classes" in usual:
        config["classes"] = len(classes)
    height = [each for each in aux if each.name == "elevation"] if "dem" in usual else []
    if config.get("dem", usual.get("dem")) and not height:
        aux = (*aux, AuxInput("elevation"))
    elif height:  # it has a channel of its own, the last
        config["dem"], aux = True, (*(each for each in aux if each not in height), *height)
    if bands and "bands" in usual:
        config.setdefault("bands", len(bands) + len(aux) - bool(config.get("dem")))
    network = arch.build(architecture, config, seed=seed)
    if table.get("encoder"):
        set_encoder(network, table["encoder"], architecture)
    if (not bands) != hasattr(network, "describe"):
        raise CloudMaskError(
            f"architecture {architecture!r} takes any bands: leave bands out of [network]"
            if bands
            else f"architecture {architecture!r} takes fixed bands: name them, bands = ['blue', ...] in "
            "[network]"
        )
    return network, architecture, config, {"bands": bands, "any_bands": not bands, "aux": aux}


def _started(table: Mapping[str, Any], classes: Sequence[str], seed: int) -> Made:
    """Take a network that was trained before."""
    spec = model_of(table["start"])
    entries = {name: getattr(spec, name) for name in KEPT}
    names = tuple(table.get("aux", ())) or tuple(each.name for each in spec.aux)
    if spec.any_bands:
        had = {each.name: each for each in spec.aux}
        entries["aux"] = tuple(had.get(name, AuxInput.of(name)) for name in names)
    elif names != tuple(each.name for each in spec.aux) or (spec.aux and table.get("bands", ())):
        raise CloudMaskError(
            f"model {spec.name!r} takes {', '.join((*spec.bands, *(each.name for each in spec.aux)))}: other "
            "bands, and other aux inputs, can be given to networks of any bands, or without aux"
        )
    if spec.gpu_runtime:
        spec = ukis.as_trained(spec)
    network, config = with_head(spec, classes, seed=seed)
    bands = tuple(table.get("bands", ())) or spec.bands
    if bands != spec.bands:
        network, config, spec = with_bands(network, config, spec, bands)
    return network, spec.architecture, config, {
        **entries, "bands": bands, "mean": spec.mean, "std": spec.std
    }  # fmt: skip


def _train_only(
    network: nn.Module, architecture: str, config: Mapping[str, Any], table: Mapping[str, Any]
) -> None:
    """Leave weights as they are that the table does not name; "head" is the last layer."""
    only = tuple(table.get("only", ()))
    if not only:
        return
    if "head" in only:
        only = (*(part for part in only if part != "head"), *sized_by(architecture, config, "classes"))
    names = [name for name, _ in network.named_parameters()]
    for wanted in only:
        if not any(name.startswith(wanted) for name in names):
            parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise OptionError("beginning of weights' names in [network] only", wanted, allowed=list(parts))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(only))


def model_of(start: str | Path | ModelSpec) -> ModelSpec:
    """Return the card of a model by its name, or of weights that a training wrote, by their path."""
    if isinstance(start, ModelSpec):
        return start
    path = Path(start)
    return models.get(str(path.with_suffix(".json") if path.suffix in (".safetensors", ".onnx") else start))


def with_head(spec: ModelSpec, classes: Sequence[str], *, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model's network, of an architecture known here, and its settings, for these classes.

    Where the classes are the model's own it is as it was. Otherwise the last layer is new, with weights drawn
    from `seed`, except for what it holds of classes with the same name.

    Examples
    --------
    >>> from xcloudmask import models
    >>> network, config = with_head(models.get("spectral"), ["clear", "cloud"])
    >>> config["classes"]
    2
    """
    if not spec.architecture or spec.activation not in ("softmax", "sigmoid"):
        what = "an ONNX graph" if spec.runtime == "onnx" else "a network of no architecture known here"
        if spec.architecture:
            what = "a network that gives probabilities"
        raise CloudMaskError(
            f"model {spec.name!r} is {what}, which cannot be trained on. Start from a model with an "
            "architecture ('spectral', ukis, or weights that xcloudmask.train wrote), or learn from this one "
            "as a teacher: xcloudmask.train.label_folder, or distil = {model = ...} in [loss]"
        )
    config: dict[str, Any] = json.loads(spec.config or "{}")
    old: nn.Module = load_network(spec).body.train()
    channels = config.get("classes", arch.config_of(spec.architecture).get("classes"))
    one_logit = _has_one_logit(spec.architecture, config)
    if tuple(classes) == spec.classes and (channels == len(classes) or one_logit):
        return old, config
    config["classes"] = len(classes)
    network = arch.build(spec.architecture, config, seed=seed)
    _copy_weights(old, network, sized_by(spec.architecture, config, "classes"), spec.classes, classes)
    return network, config


def _copy_weights(
    old: nn.Module, new: nn.Module, axes: Mapping[str, int], before: Sequence[str], after: Sequence[str]
) -> None:
    """Copy weights; of those that have an entry a class or band along `axes`, what both networks have."""
    state = new.state_dict()
    for name, value in old.state_dict().items():
        if name not in axes:
            state[name].copy_(value)
        elif value.shape[axes[name]] == len(before):
            for place, word in enumerate(after):
                if word in before:
                    own = value.select(axes[name], before.index(word))
                    state[name].select(axes[name], place).copy_(own)


def with_bands(
    network: nn.Module, config: Mapping[str, Any], spec: ModelSpec, bands: tuple[str, ...]
) -> tuple[nn.Module, dict[str, Any], ModelSpec]:
    """Return a network for other bands, in this order, its settings, and a card that has them.

    Weights of the bands that it took before stay; those of new ones are zero at first, and what they are
    given is normalised by what `xcloudmask.models.imputation` knows.

    Examples
    --------
    >>> from xcloudmask.models import arch
    >>> spec = ModelSpec("a", "1", ("red", "nir"), ("clear", "cloud"), "a:b", architecture="pixel-mlp")
    >>> net = arch.build("pixel-mlp", {"bands": 2, "classes": 2})
    >>> with_bands(net, {"bands": 2, "classes": 2}, spec, ("nir", "blue", "red"))[0][0].weight.shape
    torch.Size([64, 3, 1, 1])
    """
    if spec.any_bands:
        raise CloudMaskError(f"model {spec.name!r} takes any bands: leave bands out")
    layers = sized_by(spec.architecture, config, "bands")
    config = {**config, "bands": len(bands)}
    other = arch.build(spec.architecture, config)
    for name in layers:
        other.state_dict()[name].zero_()
    _copy_weights(network, other, layers, spec.bands, bands)
    numbers = {"mean": spec.mean, "std": spec.std}
    if any(values is not None and len(values) > 1 for values in numbers.values()):
        how = imputer_for(bands)
        usual = {"mean": how.mean, "std": tuple(row[at] ** 0.5 for at, row in enumerate(how.covariance))}
        for what, values in numbers.items():
            each = values or (float(what == "std"),)
            each = each * len(spec.bands) if len(each) == 1 else each
            numbers[what] = tuple(
                each[spec.bands.index(band)] if band in spec.bands else usual[what][at]
                for at, band in enumerate(bands)
            )
    return other, config, replace(spec, bands=bands, **numbers)  # type: ignore[arg-type]


def _has_one_logit(architecture: str, config: Mapping[str, Any]) -> bool:
    return config.get("classes", arch.config_of(architecture).get("classes")) in (None, 1)


def sized_by(architecture: str, config: Mapping[str, object], setting: str) -> dict[str, int]:
    """Return the tensors whose shape depends on the number of classes or of bands, and along which axis.

    Examples
    --------
    >>> sized_by("pixel-mlp", {"bands": 4, "classes": 2}, "bands")
    {'0.weight': 1}
    >>> sorted(sized_by("sensei-v2", {"classes": 4}, "classes"))
    ['head.direct.weight', 'head.logits.bias', 'head.logits.weight']
    """
    defaults = arch.config_of(architecture)
    if setting not in defaults:
        what = {"classes": "head", "bands": "layer for a number of bands"}[setting]
        raise CloudMaskError(f"architecture {architecture!r} has no {what} that could be replaced")
    count = int(str(config.get(setting, defaults[setting])))
    with torch.device("meta"):
        few, more = (
            arch.construct(architecture, {**config, setting: number}).state_dict()
            for number in (count, count + 1)
        )
    return {
        name: next(
            d for d, (a, b) in enumerate(zip(few[name].shape, more[name].shape, strict=True)) if a != b
        )
        for name in few
        if few[name].shape != more[name].shape
    }
