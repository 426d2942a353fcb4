"""OmniCloudMask 4: two U-Nets of segmentation_models_pytorch, a file each, whose logits are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xcloudmask.models.keymaps import smp
from xcloudmask.models.published import Contents, Family

if TYPE_CHECKING:
    from torch import Tensor

#: A tensor of each network that the other one lacks, and its encoder.
_ENCODERS = {
    "encoder.model.s1.b1.se.fc1.weight": "regnety-004",
    "encoder.model.stem_0.weight": "edgenext-small",
}
_FIRST = ("encoder.model.stem.conv.weight", "encoder.model.stem_0.weight")
_LOGITS = "segmentation_head.0.weight"
#: What the cards of each network, and of both together, say.
SHARED: Mapping[str, Any] = {
    "bands": ("red", "green", "nir"),
    "classes": ("clear", "thick_cloud", "thin_cloud", "cloud_shadow"),
    "gaps": "nan",
    "gsd": (10.0, 50.0),
    "patch": 1000,
    "overlap": 300,
    "licence": "MIT",
    "citation": "Wright et al. (2025), OmniCloudMask, doi:10.1016/j.rse.2025.114694",
}


def recognises(contents: Contents) -> bool:
    """Whether these are three bands, one of the two encoders, and logits of four classes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
    bands = [shapes[name][1:2] for name in _FIRST if name in shapes]
    return bands == [(3,)] and shapes.get(_LOGITS) == (4, 16, 3, 3) and bool(_ENCODERS.keys() & shapes.keys())


def card(contents: Contents) -> dict[str, Any]:
    """Return what both networks share, and which of them this is."""
    (encoder,) = (name for mark, name in _ENCODERS.items() if mark in contents.tensors)
    return {
        **SHARED,
        "activation": "softmax",
        "architecture": "unet",
        "config": {"encoder": encoder, "standardise": True},
        "reduce": "mean-logits",
        "description": f"U-Net on {encoder} on red, green and NIR, as z-scores of each window",
        "limits": "one of two networks that the published tool averages; it blends logits of windows, with "
        "linear ramps, where this library blends probabilities, and takes smaller windows where much is no "
        "data",
    }


def translate(contents: Contents) -> dict[str, Tensor]:
    """Return the tensors by the names of ``unet``."""
    return smp(contents.tensors)


FAMILY = Family("omnicloudmask", recognises, card, translate)
