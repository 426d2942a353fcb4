"""What published networks look like: names and shapes as their libraries write them, and figures of theirs.

The names are the other way round than the key maps have them, written anew. The figures were taken from
segmentation_models_pytorch 0.6.0 with timm 1.0.31 (torch 2.13), whose modules were filled as `filled` does.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch

SKIPS = [
    (r"^up\.(\d)\.0\.", r"decoder.blocks.\1.conv1."),
    (r"^up\.(\d)\.1\.", r"decoder.blocks.\1.conv2."),
    (r"^logits\.", "segmentation_head.0."),
]
REGNETY = [
    (r"^encoder\.stem\.0\.", "encoder.model.stem.conv."),
    (r"^encoder\.stem\.1\.", "encoder.model.stem.bn."),
    (r"\.squeeze\.reduce\.", ".se.fc1."),
    (r"\.squeeze\.restore\.", ".se.fc2."),
    (r"\.expand\.", ".conv1."),
    (r"\.spread\.", ".conv2."),
    (r"\.project\.", ".conv3."),
    (r"\.shortcut\.", ".downsample."),
    (r"^(encoder\.stages.*)\.(conv\d|downsample)\.0\.", r"\1.\2.conv."),
    (r"^(encoder\.stages.*)\.(conv\d|downsample)\.1\.", r"\1.\2.bn."),
    (r"^encoder\.stages\.(\d)\.(\d)\.", lambda m: f"encoder.model.s{int(m[1]) + 1}.b{int(m[2]) + 1}."),
    *SKIPS,
]
EDGENEXT = [
    (r"^encoder\.enter\.0\.(\d)\.", r"encoder.model.stem_\1."),
    (r"^encoder\.enter\.(\d)\.(\d)\.", r"encoder.model.stages_\1.downsample.\2."),
    (r"\.norm\.", ".norm_xca."),
    (r"\.feed_forward\.gain$", ".gamma"),
    (r"\.gain$", ".gamma_xca"),
    (r"\.feed_forward\.norm_xca\.", ".norm."),
    (r"\.feed_forward\.first\.", ".mlp.fc1."),
    (r"\.feed_forward\.second\.", ".mlp.fc2."),
    (r"\.spread\.(\d)\.", r".convs.\1."),
    (r"\.spread\.", ".conv_dw."),
    (r"\.place\.", ".pos_embd.token_projection."),
    (r"\.attention\.temperature$", ".xca.temperature"),
    (r"\.attention\.query_key_value\.", ".xca.qkv."),
    (r"\.attention\.out\.", ".xca.proj."),
    (r"^encoder\.stages\.(\d)\.(\d)\.", r"encoder.model.stages_\1.blocks.\2."),
    *SKIPS,
]
DEEPLAB = [
    (r"^pyramid\.pooled\.0\.", "decoder.aspp.convs.4.1."),
    (r"^pyramid\.pooled\.1\.", "decoder.aspp.convs.4.2."),
    (r"^pyramid\.branches\.", "decoder.aspp.convs."),
    (r"^pyramid\.project\.", "decoder.aspp.project."),
    (r"^decode\.0\.0\.", "decoder.conv."),
    (r"^decode\.0\.1\.", "decoder.bn."),
    (r"^logits\.", "segmentation_head.0."),
]


@dataclass(frozen=True)
class Published:
    """A network of the library: which of ours it is, and what was found of it."""

    architecture: str
    names: list
    weights: int
    digest: str  # of its names and shapes
    config: dict = field(default_factory=dict)
    bands: int = 3
    #: Its logits of `pixels`: the first class in rows 3, 20, 40, 60 and columns 5, 50, 90; mean size of all.
    logits: tuple = ()
    size: float = 0.0


NETWORKS = {
    "Unet, tu-regnety_004": Published(
        "unet", REGNETY, 6_732_716, "6ebf5626c7ad89cf2a952e460a02f05549dcff67b1af0a382a480618f80b6f91",
        {"encoder": "regnety-004"}, 3,
        (0.24237, 0.22175, 0.22271, 0.22805, 0.20478, 0.20837,
         0.2074, 0.20265, 0.21234, 0.21685, 0.20898, 0.2133),
        0.191746,
    ),
    "Unet, tu-edgenext_small": Published(
        "unet", EDGENEXT, 7_668_428, "2ad105d913f7abf00f223e5bcd77aeb1c28738305a91c415ffad1750681b591e",
        {"encoder": "edgenext-small"}, 3,
        (0.18713, 0.25414, 0.25221, 0.26029, 0.25104, 0.32461,
         0.30179, 0.28725, 0.29591, 0.31729, 0.31909, 0.27606),
        0.223769,
    ),
    "Unet, mobilenet_v2": Published(
        "unet", SKIPS, 6_629_668, "3bc2d038b4ad7e23cdccaa1efe93894671e13cac4e6f9e5e61cd133bece82c73",
        {"encoder": "mobilenet-v2", "bands": 4}, 4,
        (0.28192, 0.2918, 0.26965, 0.29289, 0.26791, 0.28835,
         0.26824, 0.27686, 0.27446, 0.28207, 0.28626, 0.26151),
        0.225909,
    ),
    "DeepLabV3, mobilenet_v2": Published(
        "deeplabv3plus", DEEPLAB, 12_648_225,
        "76ea688a1e443976971851a7010717ceb7d35f9ce9645b63453302faf81e0161",
        {"bands": 4, "classes": 1, "output_stride": 8, "decoder": "v3", "corners": True}, 4,
        (-0.14708, -0.15073, -0.16714, -0.13669, -0.13301, -0.16719, -0.13758, -0.13134, -0.15723, -0.11411,
         -0.09979, -0.12654),
        0.138148,
    ),
}  # fmt: skip


def renamed(state, names):
    """A state dict of ours under the names of the library."""
    out = {}
    for name, tensor in state.items():
        for ours, theirs in names:
            name = re.sub(ours, theirs, name)
        out[name] = tensor
    return out


def filled(state):
    """The same names and shapes with numbers that follow from the names."""
    out = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            out[name] = torch.zeros_like(tensor)
            continue
        numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
        if tensor.dim() >= 2:
            numbers = numbers / np.sqrt(np.prod(tensor.shape[1:]))
        elif name.endswith("running_var"):
            numbers = 1 + 0.1 * np.abs(numbers)
        elif name.endswith(("bias", "running_mean")):
            numbers = 0.1 * numbers
        else:
            numbers = 1 + 0.1 * numbers
        out[name] = torch.from_numpy(numbers.astype(np.float32))
    return out


def digest(state):
    """Of names and shapes."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pixels(bands):
    """The window that the figures were taken from."""
    return torch.from_numpy(np.random.RandomState(0).random_sample((1, bands, 64, 96)).astype(np.float32))
