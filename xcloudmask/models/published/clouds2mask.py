"""CloudS2Mask: fastai's U-Net on RegNetY-600MF, a whole module in a pickle.

Its activation is in no tensor: the classes that the pickle names tell it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import WeightsError
from xcloudmask.models.keymaps import regnety, renamed
from xcloudmask.models.published import Contents, Family

if TYPE_CHECKING:
    from torch import Tensor

#: All of Sentinel-2: B01 to B08, B8A, B09 to B12.
BANDS = (
    "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09",
    "cirrus", "swir16", "swir22",
)  # fmt: skip
#: Of numbers of Sentinel-2 divided by 32767.
_MEAN = (
    0.0726236999, 0.0660886765, 0.0619407669, 0.0633047372, 0.0685865507,
    0.0853943378, 0.0940167084, 0.0900641233, 0.0991509408, 0.0354297571,
    0.00363283954, 0.0685574487, 0.0486043841,
)  # fmt: skip
_STD = (
    0.0201520473, 0.0226982124, 0.02307388, 0.0266827065, 0.026376335,
    0.0274393428, 0.0289608724, 0.0286611468, 0.0301365964, 0.0134826759,
    0.00192040007, 0.0239389185, 0.0200694147,
)  # fmt: skip
_COUNTS = 32767 / 10_000  # to reflectance

_STEM, _FIRST, _LOGITS = "layers.0.0.conv.weight", "layers.0.1.b1.conv2.conv.weight", "layers.12.0.weight"
_NAMES = {
    r"layers\.0\.0\.conv\.": "encoder.stem.0.",
    r"layers\.0\.0\.bn\.": "encoder.stem.1.",
    r"layers\.1\.": "norm.",
    r"layers\.3\.": "middle.",
    r"layers\.11\.convpath\.0\.": "residual.0.",
    r"layers\.11\.convpath\.1\.0\.": "residual.1.",
    r"layers\.12\.0\.": "logits.",
} | {
    rf"layers\.{step + 4}\.{part}": f"up.{step}.{ours}"
    for step in range(4)
    for part, ours in {
        r"shuf\.0\.0\.": "grow.conv.0.", r"bn\.": "norm.", r"conv1\.": "first.", r"conv2\.": "second.",
    }.items()
} | {r"layers\.8\.0\.0\.": "grow.conv.0."}  # fmt: skip
_BLOCK = re.compile(r"layers\.0\.(\d+)\.b(\d+)\.conv1\.conv\.weight")
_ACTIVATION = re.compile(
    r"(?:fastai\.layers|torch\.nn\.modules\.activation|timm\.layers\.activations\w*)\.(\w+)"
)


def recognises(contents: Contents) -> bool:
    """Whether these are the 13 bands, the four classes and the steps between them, out of a whole module."""
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
    ends = shapes.get(_STEM, ())[1:2], shapes.get(_LOGITS, ())[:1]
    between = {_FIRST, "layers.7.shuf.0.0.weight", "layers.11.convpath.1.0.weight"} <= shapes.keys()
    return ends == ((len(BANDS),), (4,)) and between and bool(contents.notes.get("classes"))


def card(contents: Contents) -> dict[str, Any]:
    """Return what the tensors, the classes named and the file's name say."""
    file = str(contents.notes.get("file", ""))
    pixel = re.search(r"_(10|20)m\.", file)
    low, high = (float(pixel[1]),) * 2 if pixel else (10.0, 20.0)
    return {
        "bands": BANDS,
        "classes": ("clear", "thick_cloud", "thin_cloud", "cloud_shadow"),
        "activation": "softmax",
        "architecture": "dynamic-unet",
        "config": _config(contents),
        "mean": tuple(mean * _COUNTS for mean in _MEAN),
        "std": tuple(std * _COUNTS for std in _STD),
        "level": "toa",
        "gsd": (low, high),
        "patch": 500,
        "overlap": 128,
        "licence": "MIT",
        "citation": "Wright et al. (2024), CloudS2Mask, doi:10.1016/j.rse.2024.114122",
        "description": "U-Net on RegNetY-600MF on all 13 bands of Sentinel-2 L1C",
        "limits": "Sentinel-2 L1C only. The published tool gives the network the stored numbers; since "
        "processing baseline 04.00 (2022) they are 1000 higher than reflectance*10000, which is what this "
        "library gives it. It reads each band at the nearest pixel, blends with linear ramps in 8-bit "
        "numbers and stops augmenting windows without isolated pixels",
    }


def _config(contents: Contents) -> dict[str, Any]:
    """Return the settings of ``dynamic-unet`` that the tensors and the classes named tell."""
    tensors = contents.tensors
    blocks = [tuple(map(int, match.groups())) for match in map(_BLOCK.fullmatch, tensors) if match]
    stages = range(1, 1 + max(stage for stage, _ in blocks))
    return {
        "bands": tensors[_STEM].shape[1],
        "classes": tensors[_LOGITS].shape[0],
        "stem": tensors[_STEM].shape[0],
        "widths": [tensors[f"layers.0.{stage}.b1.conv1.conv.weight"].shape[0] for stage in stages],
        "depths": [sum(each == stage for each, _ in blocks) for stage in stages],
        "group": tensors[_FIRST].shape[1],
        "act": _activation(contents.notes["classes"]),
    }


def _activation(classes: frozenset[str]) -> str:
    """Return the decoder's activation; the encoder's own are ReLU and, in its squeeze, sigmoid."""
    known = (match[1].lower() for match in map(_ACTIVATION.fullmatch, classes) if match)
    named = {name for name in known if name.endswith(("mish", "lu", "swish", "tanh"))}
    if others := sorted(named - {"relu", "mish"}):
        raise WeightsError(f"its pickle names the activation {others[0]}; dynamic-unet has relu and mish")
    return "mish" if "mish" in named else "relu"


def translate(contents: Contents) -> dict[str, Tensor]:
    """Return the tensors by the names of ``dynamic-unet``."""
    return {renamed(regnety(name), _NAMES): tensor for name, tensor in contents.tensors.items()}


FAMILY = Family("clouds2mask", recognises, card, translate)
