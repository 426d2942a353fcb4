"""SEnSeI v1 (Francis et al. 2022): the encoder, from the Keras file that its pre-training wrote.

The file holds no segmenter, so it is a beginning of a training and no model yet. Its decoders of the
pre-training (``RECOVERY``) are read by `xcloudmask.train.pretraining`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from xcloudmask.errors import WeightsError
from xcloudmask.models.published import Contents, Family

if TYPE_CHECKING:
    from torch import Tensor

ENCODER, DECODERS = "encoder.", "decoders."
_LAYER = re.compile(
    r"SEnSeI[\w-]*/(SEnSeI/|(?P<recovery>RECOVERY/))?(?P<block>[A-Z_]+_BLOCK)/"
    r"(Conv-(?P<conv>\d+|last|final)/[^/]+/(?P<of_conv>kernel|bias)|GroupNorm-(?P<norm>\d+)/(?P<of_norm>gamma|beta))"
)
_OURS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file by our names: those of the encoder, and of the decoders beside it.

    Examples
    --------
    >>> import torch
    >>> theirs = "SEnSeI/SEnSeI/DESCRIPTOR_BLOCK/Conv-0/conv2d/kernel"
    >>> ours = renamed({theirs: torch.zeros(1, 1, 3, 16)})
    >>> {name: tuple(tensor.shape) for name, tensor in ours.items()}
    {'encoder.descriptor_block.linears.0.weight': (16, 3)}
    """
    ours = {}
    for name, tensor in tensors.items():
        layer = _LAYER.fullmatch(name)
        if layer is None:
            continue
        number = layer["conv"] or layer["norm"]
        within = f"linears.{number}" if layer["conv"] else f"norms.{number}"
        place = number if number in ("last", "final") else within
        leaf = layer["of_conv"] or layer["of_norm"]
        full = f"{DECODERS if layer['recovery'] else ENCODER}{layer['block'].lower()}.{place}.{_OURS[leaf]}"
        ours[full] = tensor[0, 0].T.contiguous() if leaf == "kernel" and tensor.ndim == 4 else tensor
    return ours


def recognises(contents: Contents) -> bool:
    """Tell if these are the tensors of the whole encoder."""
    ours = translate(contents)
    if not ours:
        return False
    import torch

    from xcloudmask.models.arch.sensei_v1 import SenseiV1

    with torch.device("meta"):
        wanted = SenseiV1().state_dict(prefix=ENCODER)
    return {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in wanted.items()}


def translate(contents: Contents) -> dict[str, Tensor]:
    """Return the encoder's tensors by our names."""
    return {name: tensor for name, tensor in renamed(contents.tensors).items() if name.startswith(ENCODER)}


def card(contents: Contents) -> NoReturn:
    """Say that the encoder alone answers nothing, and how it becomes a model."""
    file = contents.notes.get("file", "the file")
    raise WeightsError(
        f"{file} is the encoder of SEnSeI v1 alone (sensei-v1): it turns any bands into 64 channels, and the "
        "network behind it, which tells cloud from clear, was not published. Train one with your own labels, "
        f"by xcloudmask train: [network] architecture = 'sensei-v1', encoder = {str(file)!r}, "
        "classes = ['clear', 'cloud']; for single pixels settings = {head = 'pixel'}"
    )


FAMILY = Family("sensei-v1", recognises, card, translate)
