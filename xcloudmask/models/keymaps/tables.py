"""Names of tensors in published files, and what they are called in our modules.

A key map takes a state dict to another one. It is written down, not guessed from shapes: what it does not
know stays as it is, so that loading names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from xcloudmask.errors import OptionError
from xcloudmask.models.keymaps.smp import renamed, smp

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]

_BLOCK, _OURS = r"encoder\.block\.(\d)\.(\d+)\.", r"encoder.stages.\1.blocks.\2."
#: SegFormer as the library transformers writes it, name by name.
_SEGFORMER = {
    r"encoder\.patch_embeddings\.(\d)\.proj\.": r"encoder.stages.\1.embed.",
    r"encoder\.patch_embeddings\.(\d)\.layer_norm\.": r"encoder.stages.\1.embed_norm.",
    r"encoder\.layer_norm\.(\d)\.": r"encoder.stages.\1.norm.",
    _BLOCK + r"layer_norm_1\.": _OURS + "norm1.",
    _BLOCK + r"layer_norm_2\.": _OURS + "norm2.",
    _BLOCK + r"attention\.self\.query\.": _OURS + "attention.query.",
    _BLOCK + r"attention\.self\.sr\.": _OURS + "attention.reduce.",
    _BLOCK + r"attention\.self\.layer_norm\.": _OURS + "attention.norm.",
    _BLOCK + r"attention\.output\.dense\.": _OURS + "attention.out.",
    _BLOCK + r"mlp\.dense1\.": _OURS + "feed_forward.first.",
    _BLOCK + r"mlp\.dwconv\.dwconv\.": _OURS + "feed_forward.spread.",
    _BLOCK + r"mlp\.dense2\.": _OURS + "feed_forward.second.",
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


KEYMAPS: Mapping[str, Callable[[State], dict[str, Tensor]]] = {
    "smp": smp,
    "transformers-segformer": transformers_segformer,
}


def translate(keymap: str, state: State) -> dict[str, Tensor]:
    """Return a state dict with our names.

    Parameters
    ----------
    keymap : str
        One of `KEYMAPS`.
    state : mapping of str to Tensor
        As it was published.

    Examples
    --------
    >>> translate("nonsense", {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown key map 'nonsense'. Allowed: smp, transformers-segformer...
    """
    try:
        return KEYMAPS[keymap](state)
    except KeyError:
        raise OptionError("key map", keymap, allowed=KEYMAPS) from None
