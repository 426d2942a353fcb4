"""Every operator in torch against onnxruntime, in many settings; what is not the same is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from xcloudmask.errors import CloudMaskError
from xcloudmask.train.operators import OPERATORS, SETTINGS
from xcloudmask.train.reshaping import RESHAPING
from xcloudmask.train.steps import OPSETS, step_of

HUGE = 2**63 - 1


def r(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    """Draw numbers; each shape has its own."""
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


def i(*values: int) -> Any:
    return np.array(values, np.int64)


def whole(*shape: int) -> Any:
    return np.random.default_rng(1).integers(-9, 9, shape) * 2 + 1


def number(value: Any, kind: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.array(value, kind))


X = r(2, 3, 7, 9)
BN = [X, r(3), r(3, high=1), r(3, low=-1), r(3, low=0.5)]
#: Operator, inputs, attributes, the versions it is tried in (all by default), how many outputs.
CASES: list[tuple[str, list[Any], dict[str, Any], tuple[int, ...], int]] = []
#: Operator, inputs, attributes, version, outputs: what must be refused rather than computed otherwise.
REFUSED: list[tuple[str, list[Any], dict[str, Any], int, int]] = []
ALL, OLD, NEW = (9, 11, 13, 17, 21, 23), (9, 10, 11, 12), (13, 17, 18, 22)


def case(operator: str, *inputs: Any, at: tuple[int, ...] = ALL, outputs: int = 1, **attributes: Any) -> None:
    CASES.append((operator, list(inputs), attributes, at, outputs))


def refuse(operator: str, *inputs: Any, at: int = 17, outputs: int = 1, **attributes: Any) -> None:
    REFUSED.append((operator, list(inputs), attributes, at, outputs))


for name in ("Add", "Sub", "Mul", "Div"):
    case(name, X, r(3, 1, 9, low=0.5))
    case(name, r(1, low=0.5), X if name != "Div" else r(2, 3, 7, 9, low=0.5))
    case(name, whole(2, 5), whole(5))
    case(name, r(4, 1), np.float32(3))
case("Div", i(-7, 7, -7, 7), i(2, -2, -2, 3))
case("Pow", r(2, 5, low=0.1), r(5))
case("Pow", X, np.float32(2))
case("Pow", i(2, 3, -4), np.float32(2), at=(13, 17))
case("Pow", X, np.array(2, np.int64), at=(13, 17))
for name in (
    "Sigmoid",
    "Tanh",
    "Relu",
    "Exp",
    "Neg",
    "Erf",
    "Softplus",
    "Identity",
    "GlobalAveragePool",
    "GlobalMaxPool",
):
    case(name, X)
    case(name, r(2, 3, 4, 4, low=-90, high=80))
for name in ("GlobalAveragePool", "GlobalMaxPool"):
    case(name, r(2, 3, 5))
case("Sqrt", r(2, 5, low=0))
case("HardSwish", r(2, 3, 4, 4, low=-5, high=5), at=(14, 17))
case("Elu", X)
case("Elu", X, alpha=0.3)
case("LeakyRelu", X)
case("LeakyRelu", X, alpha=0.3)
case("HardSigmoid", r(2, 9, low=-5, high=5))
case("HardSigmoid", r(2, 9, low=-5, high=5), alpha=1 / 6, beta=0.4)
case("Gelu", X, at=(20, 23))
case("Gelu", X, at=(20, 23), approximate="tanh")
case("PRelu", X, r(3, 1, 1))
case("PRelu", X, r(1))
case("PRelu", X, r(9))
for axis in (-1, 0, 1, 2, 3):
    case("Softmax", X, axis=axis)
case("Softmax", X)
for bounds in ((0, 1), (1, -1), (-0.5, 0.5)):
    case("Clip", X, *map(np.float32, bounds), at=(11, 12, 13, 18))
    if bounds[0] < bounds[1]:
        case("Clip", X, at=(9, 10), min=float(bounds[0]), max=float(bounds[1]))
case("Clip", X, np.float32(0.3), at=(11, 17))
case("Clip", X, None, np.float32(0.3), at=(11, 17))
case("Clip", X)
case("Clip", X, at=(9,), max=0.2)
case("Clip", whole(7), np.array(-3, np.int64), np.array(3, np.int64), at=(12, 17))

# layers
W, B = r(4, 3, 3, 3), r(4)
case("Conv", X, W)
case("Conv", X, W, B, pads=[1, 1, 1, 1])
case("Conv", X, W, B, pads=[0, 1, 2, 3], strides=[2, 1], kernel_shape=[3, 3])
case("Conv", X, W, dilations=[2, 3], pads=[2, 3, 2, 3])
case("Conv", r(1, 4, 8, 8), r(6, 2, 3, 3), r(6), group=2, pads=[1, 1, 1, 1])
case("Conv", r(1, 4, 8, 8), r(4, 1, 5, 1), group=4, strides=[1, 2])
for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    for strides in ([1, 1], [2, 2], [3, 2]):
        case("Conv", X, W, auto_pad=auto, strides=strides)
        case("Conv", r(1, 3, 8, 8), r(2, 3, 2, 4), auto_pad=auto, strides=strides)
        for pool in ("MaxPool", "AveragePool"):
            case(pool, X, auto_pad=auto, strides=strides, kernel_shape=[3, 2])
case("ConvTranspose", X, r(3, 4, 2, 2), r(4), strides=[2, 2])
case("ConvTranspose", X, r(3, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
case("ConvTranspose", r(1, 4, 5, 5), r(4, 3, 3, 2), group=2, strides=[1, 2], pads=[1, 0, 1, 0])
case("ConvTranspose", X, r(3, 4, 3, 3), dilations=[2, 2], auto_pad="NOTSET")
for pool in ("MaxPool", "AveragePool"):
    case(pool, X, kernel_shape=[2, 3])
    case(pool, X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    case(pool, X, kernel_shape=[3, 2], strides=[1, 2], pads=[0, 1, 2, 0])
    case(pool, X - 9, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
case("AveragePool", X, kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1)
case("MaxPool", X, kernel_shape=[2, 2], storage_order=1)
case("BatchNormalization", *BN)
case("BatchNormalization", *BN, epsilon=0.1, momentum=0.3)
case("BatchNormalization", *BN, at=(14, 17), training_mode=0)
case("InstanceNormalization", X, r(3), r(3, high=1))
case("InstanceNormalization", X, r(3), r(3, high=1), epsilon=0.1)
case("LayerNormalization", X, r(9), r(9), at=(17, 21))
case("LayerNormalization", X, r(9), at=(17, 21), epsilon=0.1)
case("LayerNormalization", X, r(7, 9), r(7, 9), at=(17, 21), axis=2)
case("LayerNormalization", X, r(3, 7, 9), at=(17, 21), axis=-3)
case("Gemm", r(4, 5), r(5, 3), r(3))
case("Gemm", r(4, 5), r(5, 3), at=(11, 17))
case("Gemm", r(4, 5), r(5, 3), r(4, 1), alpha=0.5, beta=2.0)
case("Gemm", r(5, 4), r(3, 5), r(4, 3), transA=1, transB=1, beta=0.3)
case("Gemm", r(4, 5), r(5, 3), np.float32(2))
case("MatMul", r(4, 5), r(5, 3))
case("MatMul", r(2, 1, 4, 5), r(3, 5, 6))
case("MatMul", r(5), r(5, 3))
case("MatMul", r(2, 4, 5), r(5))
for told in ([1], [-1], [2, 3], [0, -1], None):
    axes = {} if told is None else {"axes": told}
    case("ReduceMean", X, at=(9, 11, 13, 17), **axes)
    case("ReduceMean", X, at=(9, 13), keepdims=0, **axes)
    case("ReduceMean", X, *([] if told is None else [i(*told)]), at=(18, 22))
case("ReduceMean", X, i(2, 3), at=(18,), keepdims=0)
case("ReduceMean", X, at=(18,), noop_with_empty_axes=1)
case("Dropout", X, at=(9, 10), ratio=0.4)
case("Dropout", X, at=(12, 17))
case("Dropout", X, np.float32(0.5), at=(12, 17), outputs=2)
case("Dropout", X, np.float32(0.5), np.array(False), at=(12, 17))

# moving, cutting, resizing
case("Concat", X, r(2, 1, 7, 9), axis=1)
case("Concat", i(1, 2), i(3), axis=-1)
case("Cast", r(3, 5), to=TensorProto.INT64)
case("Cast", r(3, 5), to=TensorProto.INT32)
case("Cast", np.array([0.0, 0.3, -2], np.float32), to=TensorProto.BOOL)
case("Cast", r(3, 5), to=TensorProto.FLOAT)
case("Cast", whole(4), to=TensorProto.FLOAT)
case("Cast", np.array([True, False]), to=TensorProto.INT64)
case("Constant", value=number([[1, 2.5]]))
case("Constant", value=number([3, -4], np.int64))
case("Constant", at=(12, 17), value_float=0.5)
case("Constant", at=(12, 17), value_int=7)
case("Constant", at=(12, 17), value_floats=[0.5, 2.0])
case("Constant", at=(12, 17), value_ints=[5, -6])
case("ConstantOfShape", i(2, 3))
case("ConstantOfShape", i(2, 0, 3))
case("ConstantOfShape", np.zeros(0, np.int64))
case("ConstantOfShape", i(4), value=number([7], np.int64))
case("ConstantOfShape", i(4, 2), value=number([-0.5]))
case("Expand", r(3, 1, 9), i(2, 3, 4, 9))
case("Expand", X, i(9))
case("Expand", X, i(1, 1, 1))
case("Expand", np.array([[True], [False]]), i(2, 3))
for axis in (0, 1, 2, 4, -1, -3):
    case("Flatten", X, axis=axis, at=(11, 17))
case("Flatten", X)
case("Gather", X, i(2, 0), axis=1)
case("Gather", X, i(-1, 3, -9), axis=-1)
case("Gather", i(5, 6, 7), np.array(1, np.int64))
case("Gather", X, np.array([[0, 1], [-1, 0]], np.int64))
case("Gather", X, np.array([1, -2], np.int32), axis=2)
PADS = i(0, 0, 1, 2, 0, 0, 3, 0)
for mode in ("constant", "reflect", "edge"):
    case("Pad", X, PADS, at=(11, 13, 18, 21), mode=mode)
    case("Pad", X, at=(9, 10), mode=mode, pads=PADS.tolist())
case("Pad", X, i(1, 0, 1, 2, 0, 2, 3, 0), np.float32(-3.5), at=(11, 13, 18))
case("Pad", X, i(0, 0, -1, 2, 0, 0, 3, -2), at=(11, 13))
case("Pad", X, at=(9,), pads=[0, 1, 0, 0, 1, 0, 0, 2], value=1.5)
case("Pad", X, i(1, 2, 3, 0), None, i(-1, 2), at=(18, 21))
case("Pad", X, i(1, 2, 3, 0), np.float32(2), i(3, 1), at=(18, 21))
case("Pad", X, i(1, 2, 3, 0), None, i(-1, 2), at=(18,), mode="reflect")
case("Pad", i(1, 2, 3), i(1, 2), np.array(2**60 + 1, np.int64), at=(13,))
case("Reshape", X, i(2, -1))
case("Reshape", X, i(0, 0, -1))
case("Reshape", X, i(0, 9, 7, 3))
case("Reshape", r(0, 3), i(3, 0), at=(14, 17), allowzero=1)
case("Reshape", r(6), i(1, -1, 2))
case("Shape", X)
case("Shape", X, at=(15, 21), start=1)
case("Shape", X, at=(15, 21), start=-2, end=-1)
case("Shape", X, at=(15, 21), start=-9, end=99)
case("Slice", X, i(1), i(5), i(2), i(1), at=(10, 13))
case("Slice", X, i(1, 2), i(5, HUGE), i(2, -1), at=(10, 13))
case("Slice", X, i(0), i(-2), i(-1), i(2), at=(10, 13))
case("Slice", X, i(-1), i(-HUGE), i(3), i(-1), at=(10, 13))
case("Slice", X, i(-1), i(-HUGE - 1), i(3), i(-2), at=(10, 13))
case("Slice", X, i(HUGE), i(-4), i(3), i(-3), at=(10, 13))
case("Slice", X, i(5), i(2), i(3), at=(10, 13))
case("Slice", X, i(0, 1), i(1, HUGE), at=(10, 13))
case("Slice", X, np.array([1], np.int32), np.array([3], np.int32), at=(10, 13))
case("Slice", X, at=(9,), starts=[1, -4], ends=[HUGE, -1], axes=[1, 3])
case("Slice", X, at=(9,), starts=[1], ends=[2])
case("Slice", X, i(), i(), at=(13,))
case("Split", r(6, 4), at=(9, 13), outputs=3)
case("Split", r(6, 4), at=(9, 11), outputs=2, split=[1, 5])
case("Split", r(6, 4), i(1, 3), at=(13, 18), outputs=2, axis=-1)
case("Split", r(7, 4), at=(18, 21), outputs=3, num_outputs=3)
case("Split", r(6, 4), at=(18, 21), outputs=2, axis=1, num_outputs=2)
S = r(1, 3, 1, 4)
for told in ([0], [2], [0, 2], [-2], [2, -4]):
    case("Squeeze", S, at=(11,), axes=told)
    case("Squeeze", S, i(*told), at=(13, 21))
for told in ([0], [4], [0, 2], [-2], [-6, 3]):
    case("Unsqueeze", S, at=(11,), axes=told)
    case("Unsqueeze", S, i(*told), at=(13, 21))
case("Unsqueeze", r(3), i(3, 0, -3), at=(13,))
case("Squeeze", S)
case("Transpose", X)
case("Transpose", X, perm=[0, 2, 3, 1])

NEAR = {"mode": "nearest"}
PLACES = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
for size in ((14, 18), (21, 36), (13, 20), (3, 4), (1, 1), (7, 9), (70, 5), (35, 99)):
    for places in PLACES:
        told = {"coordinate_transformation_mode": places}
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
            case(
                "Resize",
                X,
                None,
                None,
                i(2, 3, *size),
                at=(11, 13, 18),
                **NEAR,
                **told,
                nearest_mode=rounding,
            )
        if places in ("half_pixel", "align_corners") or (places == "pytorch_half_pixel" and size != (1, 1)):
            case("Resize", X, None, None, i(2, 3, *size), at=(11, 13, 18), mode="linear", **told)
ODD = np.array([1, 1, 1.3, 0.7], np.float32)
for places in PLACES:
    case("Resize", X, None, ODD, at=(11, 13, 18), mode="nearest", coordinate_transformation_mode=places)
TWICE = np.array([1, 1, 2, 2], np.float32)
case("Resize", X, None, TWICE, at=(11, 13, 18, 19, 23), mode="linear")
case("Resize", X, None, TWICE, at=(13,), mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
case("Resize", X, None, TWICE, at=(13,), mode="nearest", cubic_coeff_a=-0.75, nearest_mode="floor",
     coordinate_transformation_mode="asymmetric")  # fmt: skip
case("Resize", X, r(8), TWICE, at=(13,))
case("Resize", X, np.zeros(0, np.float32), TWICE, at=(11, 13), mode="linear")
case("Resize", X, None, TWICE, at=(18,), mode="linear", antialias=0, keep_aspect_ratio_policy="stretch")
case("Resize", r(1, 2, 8, 8), None, np.array([1, 1, 0.5, 0.25], np.float32), at=(13,), mode="linear")

# refused
refuse("Resize", X, None, TWICE, mode="cubic")
refuse("Resize", X, None, TWICE, mode="linear", at=18, antialias=1)
refuse("Resize", X, None, TWICE, mode="linear", coordinate_transformation_mode="asymmetric")
refuse("Resize", X, r(8), TWICE, mode="nearest", coordinate_transformation_mode="tf_crop_and_resize")
refuse("Resize", X, None, TWICE, mode="nearest", at=19, coordinate_transformation_mode="half_pixel_symmetric")
refuse("Resize", X, None, ODD, mode="linear")
refuse(
    "Resize", X, None, None, i(2, 3, 1, 1), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
)
refuse("Resize", X, None, None, i(2, 6, 7, 9))
refuse("Resize", X, None, None, i(14, 18), at=18, axes=[2, 3])
refuse("Resize", X, None, None, i(2, 3, 14, 14), at=18, keep_aspect_ratio_policy="not_larger")
refuse("Resize", X, None, TWICE, mode="linear", exclude_outside=1)
refuse("Resize", X, TWICE, at=10)
refuse("Resize", X)
refuse("BatchNormalization", *BN, training_mode=1)
refuse("BatchNormalization", *BN, training_mode=1, outputs=3)
refuse("BatchNormalization", *BN, at=9, outputs=5)
refuse("BatchNormalization", *BN, at=9, spatial=0)
refuse("Dropout", X, np.float32(0.5), np.array(True))
refuse("MaxPool", X, kernel_shape=[2, 2], outputs=2)
refuse("LayerNormalization", X, r(9), outputs=3)
for pool in ("MaxPool", "AveragePool"):
    refuse(pool, X, at=19, kernel_shape=[2, 2], dilations=[2, 2])
    refuse(pool, X, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    refuse(pool, r(2, 3, 9), kernel_shape=[2])
refuse("Conv", r(1, 3, 9), r(4, 3, 3))
refuse("Conv", r(1, 3, 5, 5, 5), r(4, 3, 3, 3, 3))
refuse("Conv", X, W, pads=[-1, 0, 0, 0])
refuse("Conv", X, W, auto_pad="SAME")
refuse("ConvTranspose", X, r(3, 4, 3, 3), pads=[1, 0, 0, 0])
refuse("ConvTranspose", X, r(3, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
refuse("ConvTranspose", X, r(3, 4, 3, 3), output_shape=[9, 11])
refuse("Gemm", r(1, 5), r(5, 3), r(4, 3))
refuse("Gather", X, i(3), axis=1)
refuse("Gather", X, i(-4), axis=1)
refuse("Gather", X, i(0), axis=4)
refuse("Squeeze", S, i(1))
refuse("Split", r(7, 4), at=13, outputs=3)
refuse("Split", r(4, 4), at=18, outputs=3, num_outputs=4)
refuse("Split", r(2, 4), at=18, outputs=4, num_outputs=4)
refuse("Split", r(6, 4), i(1, 4), outputs=2)
refuse("Pad", X, i(1, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
refuse("Pad", X, i(0, 0, 1, 1, 0, 0, 1, 1), at=19, mode="wrap")
refuse("Pad", X, i(0, 0, -1, 1, 0, 0, 1, 1), mode="edge")
refuse("Pad", X, i(1, 1))
refuse("Cast", X, to=TensorProto.UINT8)
refuse("Cast", X, to=TensorProto.BFLOAT16)
refuse("Constant", value_string=b"word")
refuse("PRelu", r(3), r(2, 3))
refuse("Unsqueeze", X, i(9))
refuse("Unsqueeze", X, i(1, -5))
refuse("ReduceMean", X, axes=[1, -3])
refuse("Conv", X, W, auto_pad="SAME_UPPER", dilations=[2, 1])
refuse("ReduceMean", X, axes=[4])
refuse("Softmax", X, axis=7, at=11)
refuse("Reshape", X, i(5, -1))
refuse("LayerNormalization", X, r(9), at=17, stash_type=10)
refuse("Elu", X, beta=2.0)
refuse("Add", X, r(3, 1, 1), at=9, axis=1)
# memory
refuse("ConstantOfShape", i(2**20, 2**20))
refuse("Expand", X, i(2**30, 1, 1, 1, 1))
refuse("Pad", X, i(0, 0, 2**20, 0, 0, 0, 0, 2**20))
refuse("Resize", X, None, None, i(2, 3, 2**20, 2**20))
refuse("Conv", X, W, pads=[2**20] * 4)
refuse("ConvTranspose", X, r(3, 4, 2, 2), strides=[2**20, 2**20])
refuse("AveragePool", X, kernel_shape=[2, 2], pads=[2**20] * 4)
for name in ("Add", "MatMul", "Pow"):
    refuse(name, r(2**16, 1), r(1, 2**16))
refuse("Gather", r(2, 2**16), np.zeros(2**16, np.int64))
refuse("Gemm", r(2**16, 1), r(1, 2**16))


def node_of(operator: str, inputs: list[Any], attributes: dict[str, Any], outputs: int) -> Any:
    names = ["" if value is None else f"in{n}" for n, value in enumerate(inputs)]
    return helper.make_node(operator, names, [f"out{n}" for n in range(outputs)], **attributes)


def versed(operator: str, inputs: list[Any], at: int) -> list[Any]:
    """Version 11 of Resize wants what is not given to be given, but empty."""
    empty = np.zeros(0, np.float32) if (operator, at) == ("Resize", 11) else None
    return [empty if value is None else value for value in inputs]


def tried(operator: str, inputs: list[Any], attributes: dict[str, Any], at: int, outputs: int) -> list[Any]:
    step = step_of(node_of(operator, inputs, attributes, outputs), at)
    held = {f"in{n}": torch.from_numpy(np.array(v)) for n, v in enumerate(inputs) if v is not None}
    return [value.numpy() for value in step.run(held).values()]


def expected(
    operator: str, inputs: list[Any], attributes: dict[str, Any], at: int, outputs: int
) -> list[Any]:
    told = [
        helper.make_tensor_value_info(f"in{n}", helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in enumerate(inputs)
        if v is not None
    ]
    node = node_of(operator, inputs, attributes, outputs)
    made = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "one", told, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", at)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx.shape_inference.infer_shapes(model).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    given: list[Any] = session.run(
        None, {f"in{n}": np.array(v) for n, v in enumerate(inputs) if v is not None}
    )
    return given


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_what_torch_computes_is_what_onnxruntime_computes(operator: str) -> None:
    cases = [
        (name, versed(name, inputs, at), attributes, at, outputs)
        for name, inputs, attributes, versions, outputs in CASES
        for at in versions
        if name == operator
    ]
    assert cases
    wrong = []
    for one in cases:
        ours, theirs = tried(*one), expected(*one)
        same = len(ours) == len(theirs) and all(
            a.dtype == b.dtype and a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5)
            for a, b in zip(ours, theirs, strict=True)
        )
        if not same:
            wrong.append(
                (one[2:], [np.shape(v) for v in one[1]], [a.shape for a in ours], [b.shape for b in theirs])
            )
    assert not wrong


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: f"{one[0]}-{sorted(one[2])}-{one[3]}")
def test_what_is_not_the_same_is_refused(one: tuple[str, list[Any], dict[str, Any], int, int]) -> None:
    with pytest.raises(CloudMaskError, match=r"of the graph cannot be computed|cannot be trained here"):
        tried(*one)


def test_the_tables_speak_of_operators_that_exist_and_of_attributes_that_onnx_knows() -> None:
    assert SETTINGS.keys() <= OPERATORS.keys()
    assert RESHAPING.keys() <= OPERATORS.keys()
    for name in OPERATORS:
        known = {
            attribute
            for version in range(OPSETS[0], OPSETS[1] + 1)
            if onnx.defs.has(name, version, "")
            for attribute in onnx.defs.get_schema(name, version, "").attributes
        }
        assert set(SETTINGS.get(name, "").split()) <= known, name
