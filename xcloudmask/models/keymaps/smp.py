"""Names of tensors as the library segmentation_models_pytorch writes them, with timm's encoders.

Confirmed against segmentation_models_pytorch 0.6.0 and timm 1.0.31, by name, shape and result (the tests
hold the figures): ``Unet`` on ``tu-regnety_004``, ``tu-edgenext_small`` and ``mobilenet_v2``, ``DeepLabV3``
on ``mobilenet_v2``. OmniCloudMask 4 is the first two: its package (1.8.1) builds them so and loads its files
into them strictly, so these are the names in them. With random weights in files of that form, what comes out
here equals its networks to 1e-6; the real files cannot be fetched where this was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_DECODER = {
    r"decoder\.blocks\.(\d)\.conv1\.": r"up.\1.0.",
    r"decoder\.blocks\.(\d)\.conv2\.": r"up.\1.1.",
    r"segmentation_head\.0\.": "logits.",
}
_DEEPLAB = {
    r"decoder\.aspp\.convs\.4\.1\.": "pyramid.pooled.0.",
    r"decoder\.aspp\.convs\.4\.2\.": "pyramid.pooled.1.",
    r"decoder\.aspp\.convs\.(\d)\.": r"pyramid.branches.\1.",
    r"decoder\.aspp\.project\.": "pyramid.project.",
    r"decoder\.conv\.": "decode.0.0.",
    r"decoder\.bn\.": "decode.0.1.",
}
_TIMM = r"encoder\.model\."


_STEM = {_TIMM + r"stem\.conv\.": "encoder.stem.0.", _TIMM + r"stem\.bn\.": "encoder.stem.1."}
_STAGE = _TIMM + r"stages_(\d)\."
_BLOCK, _OURS = _STAGE + r"blocks\.(\d)\.", r"encoder.stages.\1.\2."
_EDGENEXT = {
    _TIMM + r"stem_(\d)\.": r"encoder.enter.0.\1.",
    _STAGE + r"downsample\.(\d)\.": r"encoder.enter.\1.\2.",
    _BLOCK + r"gamma_xca$": _OURS + "gain",
    _BLOCK + r"gamma$": _OURS + "feed_forward.gain",
    _BLOCK + r"conv_dw\.": _OURS + "spread.",
    _BLOCK + r"convs\.(\d)\.": _OURS + r"spread.\3.",
    _BLOCK + r"norm\.": _OURS + "feed_forward.norm.",
    _BLOCK + r"mlp\.fc1\.": _OURS + "feed_forward.first.",
    _BLOCK + r"mlp\.fc2\.": _OURS + "feed_forward.second.",
    _BLOCK + r"pos_embd\.token_projection\.": _OURS + "place.",
    _BLOCK + r"norm_xca\.": _OURS + "norm.",
    _BLOCK + r"xca\.temperature$": _OURS + "attention.temperature",
    _BLOCK + r"xca\.qkv\.": _OURS + "attention.query_key_value.",
    _BLOCK + r"xca\.proj\.": _OURS + "attention.out.",
}


def _efficientnet() -> dict[str, str]:
    names = {r"encoder\._conv_stem\.": "encoder.stem.0.", r"encoder\._bn0\.": "encoder.stem.1."}
    parts = {
        "_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "spread.0", "_bn1": "spread.1",
        "_se_reduce": "squeeze.reduce", "_se_expand": "squeeze.restore", "_project_conv": "project.0",
        "_bn2": "project.1",
    }  # fmt: skip
    blocks = [(stage, at) for stage, count in enumerate((2, 4, 4, 6, 6, 8, 2)) for at in range(count)]
    for number, (stage, at) in enumerate(blocks):
        for part, ours in parts.items():
            names[rf"encoder\._blocks\.{number}\.{part}\."] = f"encoder.stages.{stage}.{at}.{ours}."
    return names


_ALL = {**_DECODER, **_DEEPLAB, **_STEM, **_EDGENEXT, **_efficientnet()}

#: A tensor that each encoder has and no other, behind whatever a file puts before all its names.
_MARKS = (
    "encoder.model.s1.b1.se.fc1.weight", "encoder.model.stem_0.weight", "encoder.features.0.0.weight",
    "encoder._conv_stem.weight",
)  # fmt: skip


def smp(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a U-Net or DeepLabV3 of segmentation_models_pytorch.

    What all names begin with (``model.``, ``net.``) is kept in front of them; tensors elsewhere keep theirs.

    Examples
    --------
    >>> import torch
    >>> one = torch.zeros(1)
    >>> list(smp({"encoder.features.0.0.weight": one, "segmentation_head.0.bias": one, "mlp.0.bias": one}))
    ['encoder.features.0.0.weight', 'logits.bias', 'mlp.0.bias']
    """
    prefix = _prefix(state)
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inside = name.startswith(prefix)
        out[prefix + renamed(regnety(name.removeprefix(prefix)), _ALL) if inside else name] = tensor
    return out


_REGNETY = re.compile(r"(?:encoder\.model\.s|layers\.0\.)(\d+)\.b(\d+)\.(\w+)\.(\w+)\.(\w+)")
_PARTS = {"conv1": "expand", "conv2": "spread", "conv3": "project", "downsample": "shortcut", "se": "squeeze"}
_LAYERS = {"conv": "0", "bn": "1", "fc1": "reduce", "fc2": "restore"}


def regnety(name: str) -> str:
    """Return what a tensor of timm's RegNetY is called here, in a network of smp's or of fastai's.

    Examples
    --------
    >>> regnety("encoder.model.s1.b2.conv1.bn.weight"), regnety("layers.0.3.b1.se.fc1.bias")
    ('encoder.stages.0.1.expand.1.weight', 'encoder.stages.2.0.squeeze.reduce.bias')
    """
    parts = _REGNETY.fullmatch(name)
    if parts is None:
        return name
    stage, block, part, layer, what = parts.groups()
    return f"encoder.stages.{int(stage) - 1}.{int(block) - 1}.{_PARTS[part]}.{_LAYERS[layer]}.{what}"


def _prefix(state: Mapping[str, Tensor]) -> str:
    for name in state:
        for mark in _MARKS:
            if name == mark or name.endswith("." + mark):
                return name.removesuffix(mark)
    return ""


def renamed(name: str, table: Mapping[str, str]) -> str:
    r"""Return `name` with its beginning replaced as the first fitting entry says; itself if none fits.

    Examples
    --------
    >>> renamed("a.0.weight", {r"a\.(\d)\.": r"b.\1."})
    'b.0.weight'
    """
    for pattern, ours in table.items():
        found = re.match(pattern, name)
        if found is not None:
            return found.expand(ours) + name[found.end() :]
    return name
