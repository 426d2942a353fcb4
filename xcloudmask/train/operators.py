"""The operators of ONNX that networks on images are made of, in torch: `OPERATORS`.

Each takes its settings and its inputs, None for one that is left out, and returns a tensor or a tuple. To the
settings of a node belong "opset", the version it was written for, and "outputs", how many it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as f

from xcloudmask.train.reshaping import (
    RESHAPING,
    Settings,
    axes_of,
    axis_of,
    broadcast,
    refused,
    room,
    together,
)


def _both(operate: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def checked(a: Settings, x: Tensor, y: Tensor) -> Tensor:
        broadcast(x.shape, y.shape)
        return operate(*together(x, y))

    return checked


def _edges(a: Settings, kernel: Sequence[int], x: Tensor) -> list[int]:
    """Return how many cells are put around an image, as torch's pad has them: left, right, top, bottom."""
    if x.ndim != 4 or len(kernel) != 2:
        raise refused(
            f"what has {x.ndim - 2} dimensions in space and a kernel with {len(kernel)}, not 2 and 2,"
        )
    auto = a.get("auto_pad", b"NOTSET")
    if auto in (b"NOTSET", b"VALID"):
        top, left, bottom, right = a.get("pads", [0] * 4) if auto == b"NOTSET" else [0] * 4
        out = [left, right, top, bottom]
    elif auto in (b"SAME_UPPER", b"SAME_LOWER") and set(a.get("dilations", [1])) == {1}:
        out = []
        strides = a.get("strides", [1, 1])
        for axis in (1, 0):
            size = x.shape[2 + axis]
            whole = max((-(-size // strides[axis]) - 1) * strides[axis] + kernel[axis] - size, 0)
            small = whole // 2
            out += [small, whole - small] if auto == b"SAME_UPPER" else [whole - small, small]
    else:
        raise refused(f"auto_pad={auto!r} with dilations={a.get('dilations')}")
    if min(out) < 0:
        raise refused(f"pads={a['pads']}")
    room((*x.shape[:2], x.shape[2] + sum(out[2:]), x.shape[3] + sum(out[:2])))
    return out


def _conv(a: Settings, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    left, right, top, bottom = _edges(a, weight.shape[2:], x)
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    padded = (x.shape[2] + top + bottom, x.shape[3] + left + right)
    reach = [(weight.shape[2 + i] - 1) * dilations[i] + 1 for i in (0, 1)]
    room((x.shape[0], weight.shape[0], *((padded[i] - reach[i]) // strides[i] + 1 for i in (0, 1))))
    around = [top, left]
    if (left, top) != (right, bottom):
        x, around = f.pad(x, [left, right, top, bottom]), [0, 0]
    return f.conv2d(x, weight, bias, strides, around, dilations, a.get("group", 1))


def _conv_transpose(a: Settings, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    left, right, top, bottom = _edges(a, weight.shape[2:], x)
    if (left, top) != (right, bottom) or "output_shape" in a or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise refused(f"ConvTranspose with pads={a.get('pads')}, auto_pad or output_shape")
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    sizes = (x.shape[2 + i] * strides[i] + weight.shape[2 + i] * dilations[i] for i in (0, 1))
    group, extra = a.get("group", 1), a.get("output_padding", [0, 0])
    room((x.shape[0], weight.shape[1] * group, *sizes))
    return f.conv_transpose2d(x, weight, bias, strides, [top, left], extra, group, dilations)


def _pooled(pool: Callable[..., Tensor], fill: float) -> Callable[..., Tensor]:
    def operate(a: Settings, x: Tensor) -> Tensor:
        if any(d != 1 for d in a.get("dilations", [])) or a.get("ceil_mode"):
            raise refused("pooling with ceil_mode or dilations")
        kernel, strides = a["kernel_shape"], a.get("strides", [1, 1])
        edges = _edges(a, kernel, x)
        out = pool(f.pad(x, edges, value=fill) if any(edges) else x, kernel, strides)
        if fill == 0 and any(edges) and not a.get("count_include_pad"):
            out = out / pool(f.pad(torch.ones_like(x[:1, :1]), edges), kernel, strides)
        return out

    return operate


def _over_space(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda a, x: reduce(x, tuple(range(2, x.ndim)), keepdim=True)


def _batch_norm(a: Settings, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if a.get("training_mode"):
        raise refused("BatchNormalization with training_mode=1")
    return f.batch_norm(x, mean, var, scale, bias, False, 0.0, a.get("epsilon", 1e-5))


def _layer_norm(a: Settings, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = list(x.shape[axis_of(a.get("axis", -1), x.ndim) :])
    bias = None if bias is None else bias.expand(shape)
    return f.layer_norm(x, shape, scale.expand(shape), bias, a.get("epsilon", 1e-5))


def _dropout(a: Settings, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Any:
    if training is not None and bool(training):
        raise refused("Dropout with training_mode=1")
    return x, torch.ones_like(x, dtype=torch.bool)


def _matmul(a: Settings, x: Tensor, y: Tensor) -> Tensor:
    if min(x.ndim, y.ndim) > 1:
        room((*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]))
    return torch.matmul(*together(x, y))


def _gemm(a: Settings, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = (t.T if a.get(key) else t for t, key in ((x, "transA"), (weight, "transB")))
    out: Tensor = _matmul(a, x, weight) * a.get("alpha", 1.0)
    return out if bias is None else out + a.get("beta", 1.0) * bias.expand(out.shape)


def _clip(a: Settings, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    for bound, name, clamp in ((low, "min", torch.clamp_min), (high, "max", torch.clamp_max)):
        if bound is not None:
            x = clamp(x, bound.reshape(()))
        elif name in a:
            x = clamp(x, a[name])
    return x


def _mean(a: Settings, x: Tensor, axes: Tensor | None = None) -> Tensor:
    told = axes_of(a, axes, x.ndim)
    if not told and a.get("noop_with_empty_axes"):
        return x
    return x.mean(told or list(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))


def _softmax(a: Settings, x: Tensor) -> Tensor:
    if a["opset"] >= 13:
        return torch.softmax(x, a.get("axis", -1))
    axis = axis_of(a.get("axis", 1), x.ndim)  # over that axis and all behind it
    return torch.softmax(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape)


OPERATORS: Mapping[str, Callable[..., Any]] = {
    **RESHAPING,
    "Add": _both(torch.add),
    "AveragePool": _pooled(f.avg_pool2d, 0.0),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _both(lambda x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")),
    "Dropout": _dropout,
    "Elu": lambda a, x: f.elu(x, a.get("alpha", 1.0)),
    "Erf": lambda a, x: torch.erf(x),
    "Exp": lambda a, x: torch.exp(x),
    "Gelu": lambda a, x: f.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": _over_space(torch.mean),
    "GlobalMaxPool": _over_space(torch.amax),
    "HardSigmoid": lambda a, x: torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda a, x: f.hardswish(x),
    "InstanceNormalization": lambda a, x, w, b: f.instance_norm(
        x, weight=w, bias=b, eps=a.get("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, x: f.leaky_relu(x, a.get("alpha", 0.01)),
    "MatMul": _matmul,
    "MaxPool": _pooled(f.max_pool2d, float("-inf")),
    "Mul": _both(torch.mul),
    "Neg": lambda a, x: -x,
    "PRelu": lambda a, x, slope: torch.where(x < 0, slope.expand(x.shape) * x, x),
    "Pow": _both(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "ReduceMean": _mean,
    "Relu": lambda a, x: torch.relu(x),
    "Sigmoid": lambda a, x: torch.sigmoid(x),
    "Softmax": _softmax,
    "Softplus": lambda a, x: f.softplus(x),
    "Sqrt": lambda a, x: torch.sqrt(x),
    "Sub": _both(torch.sub),
    "Tanh": lambda a, x: torch.tanh(x),
}

_WINDOW = "auto_pad dilations kernel_shape pads strides"
#: The attributes that are understood, or may be overlooked; what another one means would be a guess.
SETTINGS: Mapping[str, str] = {
    "AveragePool": f"{_WINDOW} ceil_mode count_include_pad",
    "BatchNormalization": "epsilon momentum training_mode",
    "Cast": "to saturate",
    "Clip": "min max",
    "Concat": "axis",
    "Constant": "value value_float value_floats value_int value_ints",
    "ConstantOfShape": "value",
    "Conv": f"{_WINDOW} group",
    "ConvTranspose": f"{_WINDOW} group output_padding output_shape",
    "Dropout": "ratio seed",
    "Elu": "alpha",
    "Flatten": "axis",
    "Gather": "axis",
    "Gelu": "approximate",
    "Gemm": "alpha beta transA transB",
    "HardSigmoid": "alpha beta",
    "InstanceNormalization": "epsilon",
    "LayerNormalization": "axis epsilon",
    "LeakyRelu": "alpha",
    "MaxPool": f"{_WINDOW} ceil_mode storage_order",
    "Pad": "mode pads value",
    "ReduceMean": "axes keepdims noop_with_empty_axes",
    "Reshape": "allowzero",
    "Resize": "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside "
    "extrapolation_value keep_aspect_ratio_policy mode nearest_mode",
    "Shape": "start end",
    "Slice": "starts ends axes",
    "Softmax": "axis",
    "Split": "axis num_outputs split",
    "Squeeze": "axes",
    "Transpose": "perm",
    "Unsqueeze": "axes",
}
