"""An ONNX graph as steps to compute one after the other, once it is known to be sound.

See `xcloudmask.train.graph`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xcloudmask.engine.predictor import is_out_of_memory
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.weights import safety
from xcloudmask.train.operators import OPERATORS, SETTINGS
from xcloudmask.train.reshaping import MOST, refused

#: Operators, and which of their inputs are weights that training may change.
WEIGHED = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "PRelu": (1,),
}  # fmt: skip
#: Operators that hand on what they get.
PASSING = ("Cast", "Dropout", "Identity")
#: Versions of ONNX's operators whose meaning is known here, from and to.
OPSETS = (9, 23)


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of a graph: what it reads, what it makes, how, and what nobody reads afterwards."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Any]
    done: tuple[str, ...] = ()

    def run(self, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what it makes of what is held."""
        given = [held[name] if name else None for name in self.inputs]
        try:
            made = OPERATORS[self.operator](self.settings, *given)
        except Exception as error:
            if isinstance(error, CloudMaskError) or is_out_of_memory(error):
                raise
            shapes = ", ".join("none" if one is None else str(list(one.shape)) for one in given)
            raise CloudMaskError(
                f"{self.operator} {self.outputs[0]!r} of the graph cannot be computed from {shapes}: {error}"
                ". See that the image has the bands and the size that the graph takes, and that the graph "
                "runs in onnxruntime"
            ) from error
        return dict(zip(self.outputs, made if isinstance(made, tuple) else (made,), strict=False))


def parsed(body: bytes) -> Any:
    """Return an ONNX graph's description, its weights as initializers; the package onnx is needed."""
    try:
        import onnx
    except ImportError:
        raise CloudMaskError(
            "to train an ONNX graph on, the package onnx is needed: pip install 'xcloudmask[train]'"
        ) from None
    safety.onnx(body, "the graph")
    try:
        proto = onnx.load_from_string(body)
    except Exception as error:  # protobuf's own, which differs between its versions
        raise CloudMaskError(f"these bytes are no ONNX graph: {error}; fetch the file anew") from error
    strange = {node.op_type for node in proto.graph.node if node.domain not in ("", "ai.onnx")}
    strange |= {node.op_type for node in proto.graph.node} - OPERATORS.keys()
    strange |= {f"function {one.name}" for one in proto.functions} | {
        f"sparse tensor {one.values.name}" for one in proto.graph.sparse_initializer
    }
    if strange:
        raise refused(
            f"a graph that uses {', '.join(sorted(strange))} (known: {', '.join(sorted(OPERATORS))})"
        )
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        raise CloudMaskError(
            f"this ONNX graph contradicts itself: {error}; export it anew, onnx.checker.check_model tells "
            "whether it is sound"
        ) from error
    opset_of(proto)
    wanted = weights_of(proto.graph)
    moved = [one for one in proto.graph.node if one.op_type == "Constant" and one.output[0] in wanted]
    for one in moved:
        if one.attribute[0].name == "value":
            proto.graph.initializer.add().CopyFrom(one.attribute[0].t)
            proto.graph.initializer[-1].name = one.output[0]
            proto.graph.node.remove(one)
            proto.ir_version = max(proto.ir_version, 4)  # from then on initializers need not be inputs
    return proto


def origins_of(nodes: Any, passing: Collection[str] = PASSING) -> dict[str, str]:
    """Return what is but another name, or another precision, of what."""
    return {one.output[0]: one.input[0] for one in nodes if one.op_type in passing}


def origin(name: str, origins: Mapping[str, str]) -> str:
    """Return what a tensor was called first.

    Examples
    --------
    >>> origin("c", {"c": "b", "b": "a"})
    'a'
    """
    while name in origins:
        name = origins[name]
    return name


def weights_of(graph: Any) -> set[str]:
    """Return what operators take for weights, by its first name; linear layers may come in several parts."""
    nodes = graph.node
    origins = origins_of(nodes, (*PASSING, "Transpose"))
    read = {one.input[at] for one in nodes for at in WEIGHED.get(one.op_type, ()) if at < len(one.input)}
    return {origin(name, origins) for name in read if name} | biases_of(graph)


def biases_of(graph: Any) -> set[str]:
    """Return what is added to the product with a weight, by its first name: a number, or one a channel."""
    held = {one.name: one.dims for one in graph.initializer}
    held |= {
        one.output[0]: one.attribute[0].t.dims
        for one in graph.node
        if one.op_type == "Constant" and one.attribute[0].name == "value"
    }
    turned = origins_of(graph.node, (*PASSING, "Transpose"))
    products = {
        one.output[0]
        for one in graph.node
        if one.op_type == "MatMul" and any(origin(name, turned) in held for name in one.input)
    }
    origins = origins_of(graph.node)
    found: set[str] = set()
    for one in graph.node:
        if one.op_type == "Add":
            ends = [origin(name, origins) for name in one.input]
            if products & set(ends):
                found |= {name for name in ends if name in held and sum(n > 1 for n in held[name]) <= 1}
    return found


def opset_of(proto: Any) -> int:
    """Return for which version of ONNX's operators a graph is written."""
    version: int = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), 0)
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise CloudMaskError(
            f"the graph is written for version {version} of ONNX's operators; {OPSETS[0]} to {OPSETS[1]} can "
            "be trained here: convert it with onnx.version_converter.convert_version"
        )
    return version


def step_of(node: Any, opset: int) -> Step:
    """Return what a node of the graph does."""
    from onnx import TensorProto, helper

    operator = node.op_type
    settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    odd = settings.keys() - SETTINGS.get(operator, "").split()
    if odd or (any(node.output[1:]) and operator not in ("Split", "Dropout")):
        raise refused(f"{operator} {node.output[0]!r} with {', '.join(sorted(odd)) or 'several outputs'}")
    if isinstance(settings.get("value"), TensorProto):
        settings["value"] = single(tensor_of(settings["value"]))
    settings |= {"opset": opset, "outputs": len(node.output)}
    return Step(operator, tuple(node.input), tuple(node.output), settings)


def tensor_of(told: Any) -> Tensor:
    """Return the numbers that a graph holds."""
    from onnx import numpy_helper

    try:
        return torch.from_numpy(np.array(numpy_helper.to_array(told)))
    except (TypeError, ValueError) as error:
        raise refused(f"the tensor {told.name!r} ({error})") from error


def single(value: Tensor) -> Tensor:
    """Return real numbers in single precision, others as they are."""
    return value.float() if value.is_floating_point() else value


def needed(steps: list[Step], gives: str) -> list[Step]:
    """Leave out what the output does not come from."""
    wanted, kept = {gives}, []
    for step in reversed(steps):
        if wanted & set(step.outputs):
            wanted |= {name for name in step.inputs if name}
            kept.append(step)
    return kept[::-1]


def folded(steps: list[Step], known: dict[str, Tensor], gives: str) -> tuple[list[Step], dict[str, Tensor]]:
    """Compute what does not depend on the input once, and note after which step nobody needs a tensor."""
    left: list[Step] = []
    made = 0
    for step in steps:
        if any(name and name not in known for name in step.inputs):
            left.append(step)
            continue
        new = {name: single(value) for name, value in step.run(known).items()}
        made += sum(value.numel() for value in new.values())
        if made > MOST // 4:
            raise refused(f"a graph whose constants grow beyond {MOST // 4:,} numbers")
        known |= new
    last = {name: at for at, step in enumerate(left) for name in step.inputs}
    last |= {name: at for at, step in enumerate(left) for name in step.outputs if name not in last}
    made_here = {name for step in left for name in step.outputs} - {gives}
    done = [tuple(name for name in made_here if last[name] == at) for at in range(len(left))]
    return [replace(step, done=names) for step, names in zip(left, done, strict=True)], {
        name: value for name, value in known.items() if name in last
    }
