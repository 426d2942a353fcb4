"""The Keras files of IPL-UV: DL-L8S2-UV for Landsat 8 and Sentinel-2, pvl8dagans for Proba-V.

The adapter of pvl8dagans (``full.hdf5``) is no cloud network: it goes in front of one, where a file holds
both. `xcloudmask.models.convert.convert` makes such a file of the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import WeightsError
from xcloudmask.models.published import Contents, Family

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"(?P<block>\w+)_(?P<kind>conv|bn)_(?P<number>[12])/(?P<leaf>\w+)")
_PLACES = {
    "input": "down.0", "pool1": "down.1", "pool2": "down.2", "up1": "up.0", "up2": "up.1",
    "generator_block_1": "adapter.first", "generator_block_2": "adapter.second",
    "normalization": "scale", "upconv1": "grow.0", "upconv2": "grow.1", "linear_model": "logits",
    "normalization_gen_in": "adapter.subtract", "normalization_gen_out": "adapter.restore",
    "out_generator": "adapter.change",
}  # fmt: skip
#: Of a separable convolution (0: each channel, 1: across channels) and of the batch norm behind it.
_LEAVES = {
    "depthwise_kernel": "0.weight", "pointwise_kernel": "1.weight", "bias": "1.bias", "gamma": "2.weight",
    "beta": "2.bias", "moving_mean": "2.running_mean", "moving_variance": "2.running_var",
}  # fmt: skip
_KERNEL, _ADAPTER = "normalization/kernel", "out_generator/kernel"

LANDSAT = ("blue", "green", "red", "nir", "swir16", "swir22")
PROBA_V = ("blue", "red", "nir", "swir16")


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as ``layer/kernel``: what stands between the two is the layer's name again."""
    return {f"{name.split('/')[0]}/{name.split('/')[-1]}": tensor for name, tensor in tensors.items()}


def recognises(contents: Contents) -> bool:
    """Whether these are the U-Net of four or six bands, the adapter, or both."""
    tensors = _by_layer(contents.tensors)
    kernels = [tuple(tensors[name].shape) for name in (_KERNEL, _ADAPTER) if name in tensors]
    known = {(1, 1, 4, 4), (1, 1, 6, 6), (1, 1, 132, 4)}
    return bool(kernels) and known.issuperset(kernels) and None not in map(_renamed, tensors)


def card(contents: Contents) -> dict[str, Any]:
    """Return which of the networks this is: its first layer tells the bands that it was trained on."""
    tensors, file = _by_layer(contents.tensors), contents.notes.get("file", "the file")
    if _KERNEL not in tensors:
        raise WeightsError(
            f"{file} is the adapter of pvl8dagans alone: it makes Proba-V look like Landsat, and tells no "
            "cloud. Put it in front of the cloud network, and load what this writes: xcloudmask models "
            f"convert {file} cloud_detection_l8.hdf5 adapted.safetensors"
        )
    bands = int(tensors[_KERNEL].shape[2])
    # 16 pixels around, as the authors have; their tiles of 1024 would need four times the memory
    shared = {
        "classes": ("clear", "cloud"), "activation": "sigmoid", "level": "toa", "threshold": 0.5,
        "architecture": "ipl-uv", "patch": 512 + 32, "overlap": 32, "gaps": "zero",
    }  # fmt: skip
    if bool((tensors[_KERNEL].diagonal(dim1=2, dim2=3) == 1).all()) and bands == len(PROBA_V):
        adapter = _ADAPTER in tensors
        return {
            **shared,
            "config": {"bands": bands, "adapter": adapter},
            "bands": PROBA_V,
            "gsd": (300.0, 340.0),
            "licence": "none stated: ask the authors before you use or pass on these weights",
            "citation": "Mateo-García, Laparra, López-Puigdollers and Gómez-Chova (2021), Cross-sensor "
            "adversarial domain adaptation of Landsat-8 and Proba-V images for cloud detection, JSTARS 14",
            "description": "U-Net for Proba-V" + ", with its adapter to Landsat in front" * adapter,
            "limits": "trained on Landsat 8 brought to the bands and pixels of Proba-V; for Proba-V itself "
            "its authors put their adapter in front",
        }
    return {
        **shared,
        "config": {"bands": bands},
        "bands": LANDSAT[:bands],
        "gsd": (30.0, 30.0),
        "training_data": "L8-Biome",
        "licence": "MIT",
        "citation": "López-Puigdollers, Mateo-García and Gómez-Chova (2021), Benchmarking deep learning "
        "models for cloud detection in Landsat-8 and Sentinel-2 images, Remote Sensing 13, 992",
        "description": f"DL-L8S2-UV: U-Net on {bands} bands for Landsat 8 and Sentinel-2",
        "limits": "thin and thick cloud are one class, and no shadow; its authors resample to 30 m by cubic "
        "splines",
    }


def translate(contents: Contents) -> dict[str, Tensor]:
    """Return the tensors by the names of ``ipl-uv``."""
    import torch

    ours: dict[str, Tensor] = {}
    for name, tensor in _by_layer(contents.tensors).items():
        place = _renamed(name)
        if place is None:
            continue
        if name.endswith("kernel"):  # rows, columns, in, out; of one a channel: rows, columns, channels, 1
            depthwise = name.endswith("depthwise_kernel")
            tensor = tensor.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)).contiguous()
        ours[place] = tensor
        if name.endswith("moving_mean"):
            ours[place.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    return ours


def _renamed(name: str) -> str | None:
    """Return our name of a tensor, None if it is no tensor of these networks."""
    layer, _, leaf = name.partition("/")
    block = _BLOCK.fullmatch(name)
    if block is not None and block["block"] in _PLACES and leaf in _LEAVES:
        return f"{_PLACES[block['block']]}.{int(block['number']) - 1}.{_LEAVES[leaf]}"
    if layer in _PLACES and leaf in ("kernel", "bias"):
        return f"{_PLACES[layer]}.{'weight' if leaf == 'kernel' else 'bias'}"
    return None


FAMILY = Family("ipl-uv", recognises, card, translate)
