"""The operators of ONNX that move, cut and resize tensors, in torch, and what all operators share.

See `xcloudmask.train.operators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

from xcloudmask.errors import CloudMaskError

Settings = Mapping[str, Any]

#: Types of ONNX. Half and double precision are computed in float32, which is what a gradient needs.
TYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float32,
}
#: Numbers in one tensor. A graph of a few bytes may ask for any size; 4 GiB are more than a window needs.
MOST = 2**30
ROUNDING: Mapping[bytes, Callable[[Any], Any]] = {
    b"round_prefer_floor": lambda at: np.ceil(at - np.float32(0.5)),
    b"round_prefer_ceil": lambda at: np.floor(at + np.float32(0.5)),
    b"floor": np.floor,
    b"ceil": np.ceil,
}


def refused(what: str) -> CloudMaskError:
    """Return the error for what a graph asks and is not done here."""
    return CloudMaskError(
        f"{what} cannot be trained here; learn from this model as a teacher instead: xcloudmask.train.pseudo"
    )


def room(shape: Iterable[int]) -> None:
    """Refuse a tensor that no image needs."""
    sizes = [int(n) for n in shape]
    if math.prod(sizes) > MOST:
        raise refused(f"a tensor of {' x '.join(map(str, sizes))} numbers (more than {MOST:,})")


def together(*tensors: Tensor) -> list[Tensor]:
    """Shapes and indices are reckoned on the CPU; bring them to where the image is."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), tensors[0].device)
    return [t.to(device) for t in tensors]


def broadcast(*shapes: Iterable[int]) -> list[int]:
    """Return the shape that tensors of these have together, if there is room for it.

    Examples
    --------
    >>> broadcast((3, 1, 5), (4, 1))
    [3, 4, 5]
    """
    made = np.broadcast_shapes(*(tuple(shape) for shape in shapes))
    room(made)
    return list(made)


def axis_of(n: int, rank: int) -> int:
    """Return the number of an axis, which may count from the end.

    Examples
    --------
    >>> axis_of(-1, 4)
    3
    """
    if not -rank <= n < rank:
        raise IndexError(f"axis {n} of a tensor with {rank}")
    return n % rank


def _pad(
    a: Settings, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Any = None
) -> Tensor:
    told: list[int] = a["pads"] if pads is None else pads.tolist()
    over = [axis_of(n, x.ndim) for n in (range(x.ndim) if axes is None else axes.tolist())]
    if len(told) != 2 * len(over):
        raise refused(f"Pad with {len(told)} counts for {len(over)} axes")
    edges = {n: (told[i], told[i + len(over)]) for i, n in enumerate(over)}
    turned = [n for axis in reversed(range(x.ndim)) for n in edges.get(axis, (0, 0))]
    room(n + sum(edges.get(axis, (0, 0))) for axis, n in enumerate(x.shape))
    mode = a.get("mode", b"constant")
    if mode == b"constant":
        return f.pad(x, turned, value=a.get("value", 0.0) if value is None else value.item())
    if mode not in (b"reflect", b"edge") or any(turned[4:]) or min(turned) < 0 or x.ndim != 4:
        raise refused(f"Pad with mode={mode!r} and {told}")
    return f.pad(x, turned[:4], mode="reflect" if mode == b"reflect" else "replicate")


def _resized(x: Tensor, scales: Tensor | None, sizes: Tensor | None) -> tuple[list[int], list[Any]]:
    """Return the size to come, and by what factor ONNX reckons."""
    if sizes is not None and sizes.numel():
        size = [int(n) for n in sizes.tolist()]
        factors = [np.float32(n) / np.float32(old) for n, old in zip(size, x.shape, strict=True)]
    elif scales is not None and scales.numel():
        factors = [np.float32(s) for s in scales.tolist()]
        size = [int(np.float32(n) * s) for n, s in zip(x.shape, factors, strict=True)]
    else:
        raise refused("Resize without scales and sizes")
    if size[:2] != list(x.shape[:2]) or min(size) < 1 or x.ndim != 4:
        raise refused(f"Resize from {list(x.shape)} to {size}")
    room(size)
    return size[2:], factors[2:]


def _nearest(a: Settings, places: bytes, old: int, new: int, factor: Any) -> Any:
    """Return which cell is nearest to each of the new ones, in the precision of onnxruntime."""
    at = np.arange(new, dtype=np.float32)
    if places == b"align_corners":
        at = at * np.float32(old - 1) / np.float32(max(new - 1, 1))
    elif places == b"asymmetric":
        at = at / factor
    elif places == b"half_pixel" or (places == b"pytorch_half_pixel" and new > 1):
        at = (at + np.float32(0.5)) / factor - np.float32(0.5)
    elif places != b"pytorch_half_pixel":
        raise refused(f"Resize with {places!r}")
    rounded = ROUNDING[a.get("nearest_mode", b"round_prefer_floor")](at)
    return np.clip(rounded.astype(np.int64), 0, old - 1)


def _resize(a: Settings, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    how, places = a.get("mode", b"nearest"), a.get("coordinate_transformation_mode", b"half_pixel")
    odd = [name for name in ("antialias", "exclude_outside", "axes") if a.get(name)]
    if odd or a.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" or a["opset"] < 11:
        raise refused(f"Resize of version {a['opset']} with {odd or 'keep_aspect_ratio_policy'}")
    size, factors = _resized(x, scales, sizes)
    if how == b"nearest":
        for axis, (new, factor) in enumerate(zip(size, factors, strict=True), 2):
            old = x.shape[axis]
            at = _nearest(a, places, old, new, factor)
            if new % old == 0 and (at == np.arange(new) // (new // old)).all():
                x = x.repeat_interleave(new // old, axis)
            else:
                x = x.index_select(axis, torch.from_numpy(at).to(x.device))
        return x
    even = all(float(s) * n == m for n, m, s in zip(x.shape[2:], size, factors, strict=True))
    if not even and not (sizes is not None and sizes.numel()) and places != b"align_corners":
        raise refused(f"Resize by {factors}, which is not what comes of whole sizes,")
    plain = places in (b"half_pixel", b"align_corners") or (places == b"pytorch_half_pixel" and min(size) > 1)
    if how != b"linear" or not plain:
        raise refused(f"Resize with mode={how!r} and {places!r}")
    return f.interpolate(x, size=size, mode="bilinear", align_corners=places == b"align_corners")


def _cut(a: Settings, x: Tensor, *rest: Tensor | None) -> Tensor:
    told: list[Any] = [None if t is None else t.tolist() for t in rest] + [None] * 4
    starts, ends = (a[name] if told[i] is None else told[i] for i, name in enumerate(("starts", "ends")))
    axes = a.get("axes", range(len(starts))) if told[2] is None else told[2]
    steps = [1] * len(starts) if told[3] is None else told[3]
    for start, end, n, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(n, x.ndim)
        at = range(x.shape[axis])[slice(start, end, step)]
        if step > 0:
            x = x[(slice(None),) * axis + (slice(at.start, at.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(at), dtype=torch.int64, device=x.device))
    return x


def _split(a: Settings, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = axis_of(a.get("axis", 0), x.ndim)
    told = a.get("split") if sizes is None else sizes.tolist()
    if told is None:
        parts, size = a["outputs"], x.shape[axis]
        whole = -(-size // parts)
        told = [whole] * (parts - 1) + [size - whole * (parts - 1)]
    uneven = sizes is None and "split" not in a and a["opset"] < 18 and len(set(told)) > 1
    if len(told) != a["outputs"] or min(told) < 1 or a.get("num_outputs", len(told)) != len(told) or uneven:
        raise refused(f"Split of {x.shape[axis]} into {told} for {a['outputs']} outputs")
    return torch.split(x, told, axis)


def axes_of(a: Settings, given: Tensor | None, rank: int) -> list[int]:
    """Return the axes that an input or, in older graphs, an attribute names."""
    told = a.get("axes", []) if given is None else given.tolist()
    axes = sorted(axis_of(n, rank) for n in told)
    if len(set(axes)) < len(axes):
        raise ValueError(f"an axis is named twice in {told}")
    return axes


def _squeeze(a: Settings, x: Tensor, axes: Tensor | None = None) -> Tensor:
    told = axes_of(a, axes, x.ndim) or [n for n in range(x.ndim) if x.shape[n] == 1]
    if any(x.shape[n] != 1 for n in told):
        raise ValueError(f"axes {told} of {list(x.shape)} have more than one element")
    return x.squeeze(tuple(told))


def _unsqueeze(a: Settings, x: Tensor, axes: Tensor | None = None) -> Tensor:
    count = len(a.get("axes", []) if axes is None else axes)
    for axis in axes_of(a, axes, x.ndim + count):
        x = x.unsqueeze(axis)
    return x


def _reshape(a: Settings, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(
        [x.shape[i] if n == 0 and not a.get("allowzero") else n for i, n in enumerate(shape.tolist())]
    )


def _gather(a: Settings, x: Tensor, at: Tensor) -> Tensor:
    axis = axis_of(a.get("axis", 0), x.ndim)
    room((*x.shape[:axis], at.numel(), *x.shape[axis + 1 :]))
    x, at = together(x, at.long())
    picked = x.index_select(axis, torch.where(at < 0, at + x.shape[axis], at).reshape(-1))
    return picked.reshape([*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]])


def _concat(a: Settings, *x: Tensor) -> Tensor:
    room([sum(t.numel() for t in x)])
    return torch.cat(together(*x), a["axis"])


def _cast(a: Settings, x: Tensor) -> Tensor:
    if a["to"] not in TYPES:
        raise refused(f"Cast to the type {a['to']} of ONNX")
    kind = TYPES[a["to"]]
    return x if kind.is_floating_point and x.is_floating_point() else x.to(kind)


def _constant(a: Settings) -> Tensor:
    for key in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if key in a:
            return torch.as_tensor(a[key])
    raise refused(f"Constant of {sorted(a)}")


def _filled(a: Settings, shape: Tensor) -> Tensor:
    room(shape.tolist())
    value: Tensor = a.get("value", torch.zeros(1))
    return value.reshape(()).expand(shape.tolist())


def _expand(a: Settings, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(broadcast(x.shape, shape.tolist()))


def _flatten(a: Settings, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


RESHAPING: Mapping[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda a, x: x,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda a, x: torch.tensor(x.shape, dtype=torch.int64)[a.get("start", 0) : a.get("end")],
    "Slice": _cut,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": lambda a, x: x.permute(a["perm"] if "perm" in a else list(reversed(range(x.ndim)))),
    "Unsqueeze": _unsqueeze,
}
