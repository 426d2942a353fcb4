"""Names of tensors in the weights of the published SEnSeI-v2.

Written from facts alone, without its code (GPL-3.0): names begin with ``senseiv2.blocks.<i>.`` and
``segmenter.``; a block is fully connected layers (norm, then linear), a transformer encoder of torch, or the
embedding, with a network each for gain, frequency and phase and a batch norm behind them. What layers are
called within a block is not known. They are recognised by their tensors: two dimensions are linear, one is a
norm, the n-th norm goes with the n-th linear layer, and every shape must fit the next. Where that leaves a
doubt the file is refused. Not tried on the published files, which cannot be fetched where this was written;
whether its flags take as many entries as ours (`describe_v2`) is not known either, and loading tells.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]

_BLOCK = re.compile(r"(?:.*\.)?senseiv2\.blocks\.(\d+)\.(.+)")
_HEAD = re.compile(r"(?:.*\.)?segmenter\.(.+)")
_LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)\.(.+)")
#: Words in the name of each network of the embedding.
_ROLES = {"gain": ("gain", "amp"), "frequency": ("freq",), "phase": ("phase",)}
_ATTENTION = {
    "self_attn.in_proj_weight": "query_key_value.weight",
    "self_attn.in_proj_bias": "query_key_value.bias",
    "self_attn.out_proj.": "out.",
    "linear1.": "linear1.",
    "linear2.": "linear2.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
}


def senseiv2(state: State, head: Callable[[State], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Rename the encoder's tensors; `head` renames those of the segmentation network.

    Examples
    --------
    >>> import torch
    >>> one = {"segmenter.logits.bias": torch.zeros(1)}
    >>> list(senseiv2(one, dict))
    ['head.logits.bias']
    """
    blocks: dict[int, dict[str, Tensor]] = defaultdict(dict)
    behind: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if found := _BLOCK.fullmatch(name):
            blocks[int(found[1])][found[2]] = tensor
        elif found := _HEAD.fullmatch(name):
            behind[found[1]] = tensor
        else:
            out[name] = tensor
    counts = {"enter": 0, "attention": 0, "leave": 0, "embed": 0}
    for at in sorted(blocks):
        _add(out, blocks[at], counts, f"block {at}")
    return out | {f"head.{name}": tensor for name, tensor in head(behind).items()}


def settings_of(ours: State, *, heads: int) -> dict[str, Any]:
    """Return the settings of architecture ``sensei-v2`` that renamed tensors fit, as it was published.

    Parameters
    ----------
    ours : mapping of str to Tensor
        What `senseiv2` returns.
    heads : int
        Attention heads, which the tensors do not tell; the file that lies beside the weights does.

    Examples
    --------
    >>> from xcloudmask.models.arch import build
    >>> settings = settings_of(build("sensei-v2", {"leave": [64]}).state_dict(), heads=4)
    >>> settings["width"], settings["enter"], settings["leave"], settings["layers"]
    (128, [128], [64], 2)
    """
    between = {
        part: [int(ours[name].shape[0]) for name in _linears(ours, prefix)]
        for part, prefix in (
            ("enter", "encoder.enter."), ("leave", "encoder.leave."), ("embed", "encoder.embed.gain."),
        )
    }  # fmt: skip
    hidden = ours["encoder.attention.0.linear1.weight"].shape
    return {
        **{part: widths[:-1] for part, widths in between.items()},
        "width": int(hidden[1]),
        "hidden": int(hidden[0]),
        "heads": heads,
        "layers": len({name.split(".")[2] for name in ours if name.startswith("encoder.attention.")}),
        "channels": between["embed"][-1],
        "attention": "as-published",
        "pooling": "sum",
        "phase": "inside",
        "encoding": "nm",
        "entry": "normed",
    }


def _linears(ours: State, prefix: str) -> list[str]:
    found = [name for name, tensor in ours.items() if name.startswith(prefix) and tensor.dim() == 2]
    return sorted(found, key=_natural)


def _add(out: dict[str, Tensor], block: State, counts: dict[str, int], where: str) -> None:
    """Add a block's tensors under our names; `counts` tells how many layers of each kind there are yet."""
    if any(".self_attn." in name for name in block):
        if counts["leave"] or counts["embed"]:
            raise WeightsError(f"{where}: attention behind other layers, which this architecture has not")
        first = counts["attention"]
        for name, tensor in block.items():
            found = _LAYER.fullmatch(name)
            rest = found[2] if found else name
            theirs = next((known for known in _ATTENTION if rest.startswith(known)), None)
            if found is None or theirs is None:
                raise WeightsError(f"{where}: {name!r} is no part of an attention layer that is known")
            at = first + int(found[1])
            out[f"encoder.attention.{at}.{_ATTENTION[theirs]}{rest.removeprefix(theirs)}"] = tensor
            counts["attention"] = max(counts["attention"], at + 1)
    elif any(name.endswith("running_mean") for name in block):
        _add_embedding(out, block, where)
        counts["embed"] += 1
    else:
        part = "leave" if counts["attention"] else "enter"
        counts[part] = _add_layers(out, block, f"encoder.{part}.layers.", counts[part], where)


def _add_embedding(out: dict[str, Tensor], block: State, where: str) -> None:
    """Add gain, frequency and phase, recognised by words in their names, and the batch norm."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    norm = {name.rpartition(".")[0] for name in block if name.endswith("running_mean")}
    for name, tensor in block.items():
        path, _, last = name.rpartition(".")
        if path in norm:
            out[f"encoder.embed.norm.{last}"] = tensor
            continue
        roles = [role for role, words in _ROLES.items() if any(word in name.lower() for word in words)]
        if len(roles) != 1:
            raise WeightsError(f"{where}: {name!r} does not tell whether it makes gain, frequency or phase")
        parts[roles[0]][name] = tensor
    for role in _ROLES:
        _add_layers(out, parts[role], f"encoder.embed.{role}.layers.", 0, f"{where}, {role}")


def _add_layers(out: dict[str, Tensor], block: State, ours: str, first: int, where: str) -> int:
    """Add pairs of norm and linear layer, numbered from `first`; return the number behind the last."""
    paths = sorted({name.rpartition(".")[0] for name in block}, key=_natural)
    weights = {path: block.get(f"{path}.weight") for path in paths}
    norms = [path for path, weight in weights.items() if weight is not None and weight.dim() == 1]
    linears = [path for path, weight in weights.items() if weight is not None and weight.dim() == 2]
    known = {f"{path}.{last}" for path in (*norms, *linears) for last in ("weight", "bias")}
    if len(norms) != len(linears) or not linears or known != set(block):
        raise WeightsError(
            f"{where}: {len(norms)} norms and {len(linears)} linear layers, and "
            f"{', '.join(sorted(set(block) ^ known)[:3]) or 'nothing'} besides or missing: not the layers "
            "that are known"
        )
    source: int | None = None
    for at, (norm, linear) in enumerate(zip(norms, linears, strict=True), first):
        width = block[f"{linear}.weight"].shape[1]
        if block[f"{norm}.weight"].shape[0] != width or source not in (None, width):
            raise WeightsError(f"{where}: {norm!r} and {linear!r} do not follow one another")
        source = block[f"{linear}.weight"].shape[0]
        for last in ("weight", "bias"):
            out[f"{ours}{at}.0.{last}"] = block[f"{norm}.{last}"]
            out[f"{ours}{at}.2.{last}"] = block[f"{linear}.{last}"]
    return first + len(linears)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that has 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
