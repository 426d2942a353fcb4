"""An ONNX graph as a torch module, so that a network that came as a graph can be trained on.

Its weights keep their names, and `Graph.to_onnx` writes the graph back with what they have become. Only the
operators of networks that look at images are known; see `xcloudmask.train.operators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError
from xcloudmask.train.reshaping import refused
from xcloudmask.train.steps import (
    PASSING,
    folded,
    needed,
    opset_of,
    origin,
    origins_of,
    parsed,
    single,
    step_of,
    tensor_of,
    weights_of,
)


class Graph(nn.Module):
    """A network that an ONNX graph describes; it maps (n, bands, y, x) to (n, classes, y, x).

    Parameters
    ----------
    body : bytes
        The graph, in float32 or float16; it is computed in float32.

    Notes
    -----
    Batch normalisation keeps the means and variances that came with the graph, in training too: an exported
    graph does not tell how they were gathered, and a few scenes would spoil them.

    Examples
    --------
    >>> Graph(b"no graph")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.WeightsError: the graph is no ONNX file, or did not arrive whole...
    """

    def __init__(self, body: bytes) -> None:
        super().__init__()
        proto = parsed(body)
        graph = proto.graph
        tensors = {one.name: tensor_of(one) for one in graph.initializer}
        inputs = [one.name for one in graph.input if one.name not in tensors]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise CloudMaskError(
                f"a graph to train on has one input and one output; this one has {len(inputs)} and "
                f"{len(graph.output)}: cut it to one of each with onnx.utils.extract_model"
            )
        self.body: bytes = proto.SerializeToString()
        self.reads, self.gives = inputs[0], graph.output[0].name
        steps = needed([step_of(node, opset_of(proto)) for node in graph.node], self.gives)
        self.origins = origins_of(graph.node)
        found = weights_of(graph) & tensors.keys() & {name for step in steps for name in step.inputs}
        self.weights = tuple(sorted(name for name in found if tensors[name].is_floating_point()))
        known = {name: single(tensor) for name, tensor in tensors.items() if name not in self.weights}
        self.steps, known = folded(steps, known, self.gives)
        if not self.weights or not any(self.gives in step.outputs for step in self.steps):
            raise refused("a graph without weights, or whose output does not depend on its input,")
        # Whole numbers are shapes and places: they stay on the CPU, where reading them stalls nothing.
        self.whole = {name: value for name, value in known.items() if not value.is_floating_point()}
        real = sorted(known.keys() - self.whole.keys())
        self.constants = {name: f"constant_{number}" for number, name in enumerate(real)}
        for name, key in self.constants.items():
            self.register_buffer(key, known[name], persistent=False)
        for name in self.weights:
            self._put(name, nn.Parameter(tensors[name].float()))
        held = dict(self.named_parameters())
        for name in self.weights:
            if "training" in name.split(".") or name not in held:
                raise CloudMaskError(
                    f"a weight of the graph is called {name!r}, which torch cannot hold: give it another "
                    "name in the file (its initializer and the nodes that read it)"
                )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return what the graph says."""
        held: dict[str, Tensor] = {self.reads: pixels, **self.whole, **dict(self.named_parameters())}
        buffers = dict(self.named_buffers())
        held |= {name: buffers[key] for name, key in self.constants.items()}
        for step in self.steps:
            held |= step.run(held)
            for name in step.done:
                del held[name]
        return held[self.gives]

    def to_onnx(self) -> bytes:
        """Return the graph with the weights as they are now, in the precision it came in."""
        from onnx import numpy_helper

        proto = parsed(self.body)
        weights = dict(self.named_parameters())
        for one in proto.graph.initializer:
            if one.name in weights:
                now = weights[one.name].detach().cpu().float().numpy()
                old = numpy_helper.to_array(one)
                if now.shape != old.shape:
                    _reshape(proto.graph, one.name, now.shape)
                if now.shape != old.shape or not np.array_equal(now, old.astype(np.float32)):
                    one.CopyFrom(numpy_helper.from_array(_as_before(one.name, now, old.dtype), one.name))
        written: bytes = proto.SerializeToString()
        return written

    def head(self) -> tuple[str, ...]:
        """Return the names of the last layer's weights, one row a class."""
        made = {name: step for step in self.steps for name in step.outputs}
        last = made[self.gives]
        while last.operator in PASSING and last.inputs[0] in made:
            last = made[last.inputs[0]]
        names = tuple(origin(name, self.origins) for name in last.inputs[1:] if name)
        between = {last.outputs[0], *last.inputs[1:], *names, self.gives} - {""}
        readers = [name for step in self.steps for name in step.inputs if name in between]
        plain = last.operator == "Conv" and last.settings.get("group", 1) == 1
        if not plain or not set(names) <= set(self.weights) or len(readers) > len(set(readers)):
            raise CloudMaskError(
                f"the last operator of this graph is {last.operator}; only a convolution with weights of its "
                "own that gives logits can be trained on with other classes. Learn from this model as a "
                "teacher instead: xcloudmask.train.pseudo"
            )
        return names

    def replace_head(self, old: Sequence[str], new: Sequence[str], *, seed: int = 0) -> None:
        """Give the last layer a row for each of the `new` classes; those it had before keep theirs."""
        draw = torch.Generator().manual_seed(seed)
        weights, names = dict(self.named_parameters()), self.head()
        rows = weights[names[0]].shape[0]
        if len(old) != rows or not new or len(set(new)) < len(new) or len(set(old)) < len(old):
            raise CloudMaskError(
                f"this graph gives {rows} channels, so name as many classes, each once; they were said to be "
                f"{list(old)}, and are to be {list(new)}"
            )
        for name in names:
            was = weights[name].detach()
            spread = float(was.std(correction=0)) if was.ndim > 1 else 0.0
            now = (torch.randn((len(new), *was.shape[1:]), generator=draw) * spread).to(was)
            for at, word in enumerate(new):
                if word in old:
                    now[at] = was[old.index(word)]
            self._put(name, nn.Parameter(now, requires_grad=weights[name].requires_grad))

    def _put(self, name: str, weight: nn.Parameter) -> None:
        """Register a weight under its name in the graph; a dot there means a module within.

        torch's own way refuses names such as "head.weight", because this class has a method of that name.
        """
        owner: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            inner = owner._modules.setdefault(part, nn.Module())
            owner = inner if inner is not None else nn.Module()
        owner._parameters[leaf] = weight


def _as_before(name: str, now: Any, dtype: Any) -> Any:
    """Return a weight in the precision that it came in."""
    with np.errstate(over="ignore"):
        cast = now.astype(dtype)
    if not np.isfinite(cast).all():
        raise CloudMaskError(
            f"the weight {name!r} has become {np.abs(now).max()}, which {dtype} does not hold: the training "
            "has run away; train with a smaller learning rate"
        )
    return cast


def _reshape(graph: Any, name: str, shape: tuple[int, ...]) -> None:
    """Let the graph's notes follow its last layer, which has another number of rows now."""
    del graph.value_info[:]
    told = [one for one in graph.input if one.name == name]
    changed = [(one, shape) for one in told] + [(one, None) for one in graph.output]
    for one, sizes in changed:
        dims = one.type.tensor_type.shape.dim
        for at, size in enumerate(sizes or ()):
            dims[at].dim_value = size
        if sizes is None and len(dims) > 1:
            dims[1].dim_value = shape[0]
