"""Names of tensors in other libraries' files, and what they are called in our modules.

A key map takes a state dict to another one. It is written down, not guessed from shapes: what it does not
know stays as it is, so that loading names it.

``smp``: names of segmentation_models_pytorch with timm's encoders. Confirmed against its version 0.6.0 and
timm 1.0.31, by name, shape and result (the tests hold the figures): ``Unet`` on ``tu-regnety_004``,
``tu-edgenext_small`` and ``mobilenet_v2``, ``DeepLabV3`` on ``mobilenet_v2``. OmniCloudMask 4 is the first
two: its package (1.8.1) builds them so and loads its files into them strictly, so these are the names in
them. With random weights in files of that form, what comes out here equals its networks to 1e-6; the real
files cannot be fetched where this was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]

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
#: DeepLabV3Plus, which the networks beside SEnSeI-v2 have on ``resnet34`` and ``resnet50``.
_PLUS = {
    r"decoder\.aspp\.0\.convs\.0\.": "pyramid.branches.0.",
    r"decoder\.aspp\.0\.convs\.([123])\.0\.": r"pyramid.branches.\1.",
    r"decoder\.aspp\.0\.convs\.([123])\.1\.": r"pyramid.branches.\1.2.",
    r"decoder\.aspp\.0\.convs\.4\.1\.": "pyramid.pooled.0.",
    r"decoder\.aspp\.0\.convs\.4\.2\.": "pyramid.pooled.1.",
    r"decoder\.aspp\.0\.project\.": "pyramid.project.",
    r"decoder\.aspp\.1\.": "smooth.",
    r"decoder\.aspp\.2\.": "smooth.2.",
    r"decoder\.block1\.": "low.",
    r"decoder\.block2\.0\.": "decode.0.",
    r"decoder\.block2\.1\.": "decode.0.2.",
}
_RESNET = {r"encoder\.conv1\.": "encoder.stem.0.", r"encoder\.bn1\.": "encoder.stem.1."} | {
    rf"encoder\.layer{stage + 1}\.(\d+)\.{theirs}\.": rf"encoder.stages.{stage}.\1.{ours}."
    for stage in range(4)
    for theirs, ours in {
        "conv1": "first.0", "bn1": "first.1", "conv2": "second.0", "bn2": "second.1", "conv3": "third.0",
        "bn3": "third.1", r"downsample\.0": "shortcut.0", r"downsample\.1": "shortcut.1",
    }.items()
}  # fmt: skip
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


_ALL = {**_DECODER, **_DEEPLAB, **_PLUS, **_STEM, **_RESNET, **_EDGENEXT, **_efficientnet()}

#: A tensor that each encoder has and no other, behind whatever a file puts before all its names.
_MARKS = (
    "encoder.model.s1.b1.se.fc1.weight", "encoder.model.stem_0.weight", "encoder.features.0.0.weight",
    "encoder._conv_stem.weight", "encoder.layer1.0.conv1.weight",
)  # fmt: skip


def smp(state: State) -> dict[str, Tensor]:
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


def _prefix(state: State) -> str:
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


_MIT, _OUR_MIT = r"encoder\.block\.(\d)\.(\d+)\.", r"encoder.stages.\1.blocks.\2."
#: SegFormer as the library transformers writes it, name by name.
_SEGFORMER = {
    r"encoder\.patch_embeddings\.(\d)\.proj\.": r"encoder.stages.\1.embed.",
    r"encoder\.patch_embeddings\.(\d)\.layer_norm\.": r"encoder.stages.\1.embed_norm.",
    r"encoder\.layer_norm\.(\d)\.": r"encoder.stages.\1.norm.",
    _MIT + r"layer_norm_1\.": _OUR_MIT + "norm1.",
    _MIT + r"layer_norm_2\.": _OUR_MIT + "norm2.",
    _MIT + r"attention\.self\.query\.": _OUR_MIT + "attention.query.",
    _MIT + r"attention\.self\.sr\.": _OUR_MIT + "attention.reduce.",
    _MIT + r"attention\.self\.layer_norm\.": _OUR_MIT + "attention.norm.",
    _MIT + r"attention\.output\.dense\.": _OUR_MIT + "attention.out.",
    _MIT + r"mlp\.dense1\.": _OUR_MIT + "feed_forward.first.",
    _MIT + r"mlp\.dwconv\.dwconv\.": _OUR_MIT + "feed_forward.spread.",
    _MIT + r"mlp\.dense2\.": _OUR_MIT + "feed_forward.second.",
    r"decode_head\.linear_c\.(\d)\.proj\.": r"project.\1.",
    r"decode_head\.linear_fuse\.": r"fuse.0.",
    r"decode_head\.batch_norm\.": r"fuse.1.",
    r"decode_head\.classifier\.": r"logits.",
}
_KEY = re.compile(r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.key\.(weight|bias)")


def transformers_segformer(state: State) -> dict[str, Tensor]:
    """Rename SegFormer's tensors; join keys and values, which are one layer here.

    Examples
    --------
    >>> import torch
    >>> list(transformers_segformer({"segformer.encoder.layer_norm.0.bias": torch.zeros(1)}))
    ['encoder.stages.0.norm.bias']
    """
    import torch

    short = {name.removeprefix("segformer."): tensor for name, tensor in state.items()}
    out: dict[str, Tensor] = {}
    for name, tensor in short.items():
        key = _KEY.fullmatch(name)
        if key is not None:
            value = short[name.replace(".self.key.", ".self.value.")]
            joined = torch.cat([tensor, value])
            out[f"encoder.stages.{key[1]}.blocks.{key[2]}.attention.key_value.{key[3]}"] = joined
        elif ".attention.self.value." not in name:
            ours = renamed(name, _SEGFORMER)
            # each stage's projection is linear there, and a convolution of one pixel here
            flat = ours.startswith("project.") and tensor.dim() == 2
            out[ours] = tensor[:, :, None, None] if flat else tensor
    return out


#: By the names that ``xcloudmask models convert --keymap`` takes.
KEYMAPS: Mapping[str, Callable[[State], dict[str, Tensor]]] = {
    "smp": smp,
    "transformers-segformer": transformers_segformer,
}
