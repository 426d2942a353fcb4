"""An ONNX graph as a module: the same numbers, weights that learn, and the way back."""

from __future__ import annotations

import subprocess
import sys
import weakref
from copy import deepcopy
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from xcloudmask.errors import CloudMaskError
from xcloudmask.train.graph import Graph
from xcloudmask.train.operators import OPERATORS

CLASSES = ("clear", "cloud", "cloud_shadow")
WEIGHTS = {"enc.weight", "enc.bias", "bn.weight", "bn.bias", "body.weight", "head.weight", "head.bias"}
node = helper.make_node
CONV = node("Conv", ["c", "w"], ["output"])


@pytest.fixture(autouse=True)
def quiet(one_thread: None) -> None:
    """Small sums."""


def drawn(name: str, *shape: int, kind: Any = np.float32, low: float = -0.5) -> Any:
    values = np.random.default_rng(sum(map(ord, name))).uniform(low, 0.5, shape)
    return numpy_helper.from_array(values.astype(kind), name)


def fixed(name: str, values: Any, kind: Any = np.int64) -> Any:
    return node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, kind)))


def model(
    nodes: list[Any], tensors: list[Any], *, opset: int = 17, version: int = 8, classes: Any = 3
) -> Any:
    shape = ["n", 2, "y", "x"]
    told = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    if version < 4:
        told += [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in tensors]
    made = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", classes, "y", "x"])]
    graph = helper.make_graph(nodes, "net", told, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def unet(kind: Any = np.float32, version: int = 8) -> bytes:
    """Two levels, a skip, a size that is reckoned from shapes, constants to fold; the last layer is cast."""
    to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [
        node("Cast", ["input"], ["x"], to=to),
        node("Conv", ["x", "enc.weight", "enc.bias"], ["c1"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b1"]),
        node("Relu", ["b1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "body.weight"], ["c2"], pads=[1, 1, 1, 1], group=2),
        fixed("two", [2], kind),
        fixed("half", [[[0.5]]], kind),
        node("Sub", ["two", "half"], ["factor"]),
        node("Mul", ["c2", "factor"], ["m2"]),
        fixed("space", [2, 3]),
        fixed("rest", [0, 1]),
        node("Shape", ["r1"], ["s1"]),
        node("Gather", ["s1", "space"], ["yx"]),
        node("Shape", ["m2"], ["s2"]),
        node("Gather", ["s2", "rest"], ["nc"]),
        node("Concat", ["nc", "yx"], ["size"], axis=0),
        node("Resize", ["m2", "", "", "size"], ["u2"], mode="nearest", nearest_mode="floor",
             coordinate_transformation_mode="asymmetric"),
        node("Concat", ["r1", "u2"], ["both"], axis=1),
        node("Conv", ["both", "head.weight", "head.bias"], ["logits"]),
        node("Cast", ["logits"], ["output"], to=TensorProto.FLOAT),
        node("Exp", ["both"], ["nobody reads this"]),
    ]  # fmt: skip
    tensors = [
        drawn("enc.weight", 4, 2, 3, 3, kind=kind), drawn("enc.bias", 4, kind=kind),
        drawn("bn.weight", 4, kind=kind, low=0.2), drawn("bn.bias", 4, kind=kind),
        drawn("bn.mean", 4, kind=kind), drawn("bn.var", 4, kind=kind, low=0.2),
        drawn("body.weight", 4, 2, 3, 3, kind=kind),
        drawn("head.weight", 3, 8, 1, 1, kind=kind), drawn("head.bias", 3, kind=kind),
    ]  # fmt: skip
    proto = model(nodes, tensors, version=version)
    proto.graph.value_info.append(helper.make_tensor_value_info("logits", to, ["n", 3, "y", "x"]))
    return bytes(proto.SerializeToString())


def tiny(*, nodes: list[Any] | None = None, tensors: list[Any] | None = None, **told: Any) -> bytes:
    """One convolution, or what is said instead."""
    plain = [node("Conv", ["input", "w"], ["output"])]
    body: bytes = model(nodes or plain, tensors or [drawn("w", 3, 2, 1, 1)], **told).SerializeToString()
    return body


def image(seed: int = 0, bands: int = 2, size: int = 11) -> torch.Tensor:
    coarse = torch.randn((2, bands, 4, 4), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size + 2), mode="bicubic", align_corners=True)


def ask(body: bytes, pixels: torch.Tensor) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels.numpy()})[0]


def compute(graph: Graph, pixels: torch.Tensor) -> Any:
    with torch.no_grad():
        return graph(pixels).numpy()


def stirred(graph: Graph) -> Graph:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in graph.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    return graph


def kinds(body: bytes) -> dict[str, int]:
    return {one.name: one.data_type for one in onnx.load_from_string(body).graph.initializer}


@pytest.mark.parametrize("version", [3, 8])
def test_the_module_computes_what_the_graph_says(version: int) -> None:
    graph = Graph(unet(version=version))
    assert dict(graph.named_parameters()).keys() == WEIGHTS
    np.testing.assert_allclose(compute(graph, image()), ask(unet(), image()), atol=1e-5)
    np.testing.assert_array_equal(compute(graph, image()), compute(graph, image()))
    np.testing.assert_array_equal(compute(graph.train(), image()), compute(graph.eval(), image()))


def test_half_precision_is_computed_in_single() -> None:
    graph = Graph(unet(np.float16))
    assert (
        {one.dtype for one in graph.parameters()} == {torch.float32} == {one.dtype for one in graph.buffers()}
    )
    assert graph(image()).dtype == torch.float32
    np.testing.assert_allclose(compute(graph, image()), ask(unet(np.float16), image()), atol=0.02)


def test_half_precision_that_depends_on_the_image_is_computed_in_single_too() -> None:
    nodes = [
        node("Shape", ["input"], ["s"]),
        node("ConstantOfShape", ["s"], ["k"], value=numpy_helper.from_array(np.array([0.5], np.float16))),
        node("Cast", ["input"], ["x"], to=TensorProto.FLOAT16),
        node("Mul", ["x", "k"], ["c"]),
        CONV,
    ]
    graph = Graph(tiny(nodes=nodes, tensors=[drawn("w", 3, 2, 1, 1, kind=np.float16)]))
    fill = next(step for step in graph.steps if step.operator == "ConstantOfShape")
    assert fill.settings["value"].dtype == torch.float32
    assert graph(image()).dtype == torch.float32


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("version", [3, 8])
def test_an_untouched_graph_comes_back_as_it_was(kind: Any, version: int) -> None:
    body = unet(kind, version)
    back = Graph(body).to_onnx()
    np.testing.assert_array_equal(ask(back, image()), ask(body, image()))
    before, after = onnx.load_from_string(body).graph, onnx.load_from_string(back).graph
    weights = {one.name: numpy_helper.to_array(one) for one in after.initializer}
    for one in before.initializer:
        np.testing.assert_array_equal(weights[one.name], numpy_helper.to_array(one), strict=True)


@pytest.mark.parametrize(("kind", "far"), [(np.float32, 1e-4), (np.float16, 0.03)])
def test_what_was_learnt_is_written(kind: Any, far: float) -> None:
    graph = Graph(unet(kind))
    before = compute(graph, image())
    back = stirred(graph).to_onnx()
    assert np.abs(compute(graph, image()) - before).max() > 0.1
    np.testing.assert_allclose(ask(back, image()), compute(graph, image()), atol=far)
    assert {name: kinds(back)[name] for name in kinds(unet(kind))} == kinds(unet(kind))
    np.testing.assert_allclose(compute(Graph(back), image()), compute(graph, image()), atol=far)


def test_a_weight_too_large_for_its_precision_is_not_written_as_infinity() -> None:
    graph = Graph(unet(np.float16))
    for value in (1e5, float("nan")):
        torch.nn.init.constant_(dict(graph.named_parameters())["enc.bias"], value)
        with pytest.raises(CloudMaskError, match=r"'enc.bias' has become .* learning rate"):
            graph.to_onnx()


def test_gradients_reach_every_weight() -> None:
    graph = Graph(unet())
    graph(image()).square().sum().backward()
    still = [
        name for name, one in graph.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0
    ]
    assert not still
    assert not any(one.requires_grad for one in graph.buffers())


def test_constants_are_computed_once_and_what_nobody_reads_not_at_all() -> None:
    graph = Graph(unet())
    operators = [step.operator for step in graph.steps]
    assert not {"Constant", "Sub", "Exp"} & set(operators)
    assert operators.count("Mul") == 1
    assert set(graph.constants) == {"bn.mean", "bn.var", "factor"}
    assert set(graph.whole) == {"space", "rest"}


def test_tensors_are_let_go_when_nobody_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"t{n}" for n in range(20)]
    chain = [node("Relu", [a], [b]) for a, b in pairwise(names)]
    ends = [
        node("Conv", ["input", "w"], ["t0"]),
        *chain,
        node("Split", ["t19"], ["output", "unread"], axis=2),
    ]
    graph = Graph(tiny(nodes=ends))
    alive: list[Any] = []
    most = []

    def relu(a: Any, x: torch.Tensor) -> torch.Tensor:
        most.append(sum(one() is not None for one in alive))
        made = torch.relu(x)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setitem(OPERATORS, "Relu", relu)  # type: ignore[arg-type]
    compute(graph, image(size=12))
    assert len(most) == 19
    assert max(most) == 1


def test_a_tensor_that_is_output_and_read_again_stays() -> None:
    body = tiny(nodes=[node("Conv", ["input", "w"], ["output"]), node("Relu", ["output"], ["more"])])
    assert Graph(body)(image()).shape[1] == 3
    twice = [node("Conv", ["input", "w"], ["a"]), node("Add", ["a", "a"], ["output"])]
    np.testing.assert_allclose(
        compute(Graph(tiny(nodes=twice)), image()), ask(tiny(nodes=twice), image()), atol=1e-6
    )


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("version", [3, 8])
def test_classes_of_the_same_name_keep_their_rows(kind: Any, version: int) -> None:
    graph = Graph(unet(kind, version))
    before, own = compute(graph, image()), deepcopy(graph.state_dict())
    assert graph.head() == ("head.weight", "head.bias")
    graph.replace_head(CLASSES, ("cloud", "thin_cloud", "clear", "snow"), seed=3)
    after = compute(graph, image())
    rows = graph.state_dict()  # the weights to the bit; a layer of another width may round its sums otherwise
    for name, values in own.items():
        kept, was = (rows[name][[0, 2]], values[[1, 0]]) if name.startswith("head") else (rows[name], values)
        assert torch.equal(kept, was), name
    np.testing.assert_allclose(after[:, [0, 2]], before[:, [1, 0]], atol=2e-6, rtol=0)
    assert np.abs(before[:, 0] - before[:, 1]).max() > 0.01
    assert np.abs(after[:, 1]).max() > 0.01
    assert not np.allclose(after[:, 1], after[:, 3])
    back = graph.to_onnx()
    onnx.checker.check_model(back, full_check=True)
    assert onnx.load_from_string(back).graph.output[0].type.tensor_type.shape.dim[1].dim_value == 4
    np.testing.assert_allclose(ask(back, image()), after, atol=0.02 if kind == np.float16 else 1e-5)
    assert kinds(back)["head.weight"] == kinds(unet(kind))["head.weight"]
    again, other = Graph(unet(kind)), Graph(unet(kind))
    again.replace_head(CLASSES, ("cloud", "thin_cloud", "clear", "snow"), seed=3)
    other.replace_head(CLASSES, ("cloud", "thin_cloud", "clear", "snow"), seed=4)
    np.testing.assert_array_equal(compute(again, image()), after)
    assert not np.array_equal(compute(other, image()), after)


@pytest.mark.parametrize(
    ("old", "new"),
    [(CLASSES[:2], CLASSES), (CLASSES, ()), (CLASSES, ("cloud", "cloud")), (("a",) * 3, CLASSES)],
)
def test_classes_that_do_not_fit_the_head_are_refused(old: Any, new: Any) -> None:
    with pytest.raises(CloudMaskError, match="gives 3 channels"):
        Graph(unet()).replace_head(old, new)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["input", "w"], ["a"]), node("Softmax", ["a"], ["output"], axis=1)],
        [
            node("Conv", ["input", "w"], ["a"]),
            node("Neg", ["w"], ["v"]),
            node("Conv", ["a", "v"], ["output"]),
        ],
        [
            node("Conv", ["input", "w"], ["a"]),
            node("Relu", ["w"], ["v"]),
            node("Mul", ["a", "a"], ["output"]),
        ],
        [node("Conv", ["input", "w"], ["a"]), node("Conv", ["a", "w"], ["output"])],
        [
            node("Conv", ["input", "w"], ["a"]),
            node("Identity", ["w"], ["v"]),
            node("Conv", ["a", "v"], ["output"]),
        ],
        [node("Conv", ["input", "w"], ["output"], group=2)],
    ],
)
def test_a_graph_without_a_head_of_its_own_says_so_and_is_written_all_the_same(nodes: list[Any]) -> None:
    body = tiny(nodes=nodes, tensors=[drawn("w", 2, 1 if "group" in str(nodes) else 2, 1, 1)], classes="c")
    graph = stirred(Graph(body))
    np.testing.assert_allclose(ask(graph.to_onnx(), image()), compute(graph, image()), atol=1e-5)
    with pytest.raises(CloudMaskError, match="only a convolution with weights of its own"):
        graph.replace_head(("a", "b"), ("c",))


def test_weights_in_constants_and_behind_other_names_learn_too() -> None:
    value = drawn("", 2, 2, 1, 1)
    nodes = [
        node("Constant", [], ["v"], value=value), node("Conv", ["input", "v"], ["a"]),
        node("Identity", ["w"], ["same"]), node("Conv", ["a", "same"], ["b"]),
        node("Cast", ["h"], ["single"], to=TensorProto.FLOAT), node("Conv", ["b", "single"], ["output"]),
    ]  # fmt: skip
    body = tiny(nodes=nodes, tensors=[drawn("w", 2, 2, 1, 1), drawn("h", 3, 2, 1, 1, kind=np.float16)])
    graph = Graph(body)
    assert dict(graph.named_parameters()).keys() == {"v", "w", "h"}
    np.testing.assert_array_equal(ask(graph.to_onnx(), image()), ask(body, image()))
    graph(image()).sum().backward()
    assert all(one.grad is not None and one.grad.any() for one in graph.parameters())
    np.testing.assert_allclose(ask(stirred(graph).to_onnx(), image()), compute(graph, image()), atol=2e-3)
    assert graph.head() == ("h",)
    graph.replace_head(CLASSES, ("cloud",))
    assert ask(graph.to_onnx(), image()).shape[1] == 1


def linear(kind: Any = np.float32) -> tuple[bytes, set[str]]:
    """Two linear layers as exporters leave them, on normalised input, and the names of their weights."""
    to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [
        node("Sub", ["input", "mean"], ["less"]), node("Div", ["less", "std"], ["normal"]),
        node("Cast", ["normal"], ["pixels"], to=to),
        node("Transpose", ["pixels"], ["last"], perm=[0, 2, 3, 1]),
        node("Identity", ["w"], ["same"]), node("Transpose", ["same"], ["turned"], perm=[1, 0]),
        node("MatMul", ["last", "turned"], ["p"]), node("Add", ["p", "b"], ["q"]),
        node("Relu", ["q"], ["r"]), node("Add", ["r", "rise"], ["risen"]),
        node("MatMul", ["risen", "v"], ["s"]), node("Identity", ["s"], ["s too"]),
        node("Constant", [], ["d"], value=drawn("", 1, 3, kind=kind)), node("Add", ["d", "s too"], ["u"]),
        node("MatMul", ["left", "u"], ["mixed"]), node("Add", ["mixed", "place"], ["placed"]),
        node("MatMul", ["placed", "back"], ["alike"]),
        node("Transpose", ["placed"], ["t"], perm=[0, 1, 3, 2]),
        node("MatMul", ["t", "placed"], ["attention"]), node("Add", ["attention", "hidden"], ["heard"]),
        node("MatMul", ["alike", "heard"], ["both"]),
        node("Cast", ["both"], ["single"], to=TensorProto.FLOAT),
        node("Transpose", ["single"], ["output"], perm=[0, 3, 1, 2]),
    ]  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "w": (4, 2), "b": (4,), "v": (4, 3), "left": (13, 13), "back": (3, 3),
        "place": (11, 1, 3), "hidden": (3,), "rise": (4,),
    }  # fmt: skip
    tensors = [drawn(name, *shape, kind=kind) for name, shape in shapes.items()]
    tensors += [drawn("mean", 1, 2, 1, 1), drawn("std", 1, 2, 1, 1, low=0.2)]
    return tiny(nodes=nodes, tensors=tensors), {"w", "b", "v", "d", "left", "back"}


def test_linear_layers_in_parts_learn_and_other_constants_stay() -> None:
    body, weights = linear()
    graph = Graph(body)
    assert set(graph.weights) == weights == dict(graph.named_parameters()).keys()
    assert set(graph.constants) == {"mean", "std", "rise", "place", "hidden"}
    np.testing.assert_allclose(compute(graph, image()), ask(body, image()), atol=1e-4)
    graph(image()).square().sum().backward()
    still = [name for name, one in graph.named_parameters() if one.grad is None or not one.grad.any()]
    assert not still
    before = compute(graph, image())
    back = stirred(graph).to_onnx()
    assert np.abs(compute(graph, image()) - before).max() > 0.1
    np.testing.assert_allclose(ask(back, image()), compute(graph, image()), atol=1e-4)
    told = [{one.name: one for one in onnx.load_from_string(each).graph.initializer} for each in (body, back)]
    for name, old in told[0].items():
        same = np.array_equal(numpy_helper.to_array(old), numpy_helper.to_array(told[1][name]))
        assert same == (name not in weights), name
    # a bias is one by what it is added to, not by its shape: as a factor it stays
    one = onnx.load_from_string(body)
    next(each for each in one.graph.node if each.output[0] == "q").op_type = "Mul"
    assert set(Graph(one.SerializeToString()).weights) == weights - {"b"}


def test_linear_layers_in_half_precision_are_written_in_it() -> None:
    body, weights = linear(np.float16)
    graph = Graph(body)
    assert set(graph.weights) == weights
    back = stirred(graph).to_onnx()
    assert {name: kinds(back)[name] for name in kinds(body)} == kinds(body)
    far = np.abs(compute(graph, image())).max() * 0.01
    np.testing.assert_allclose(ask(back, image()), compute(graph, image()), atol=far)


def test_a_large_weight_behind_a_transpose_is_no_constant_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcloudmask.train.steps.MOST", 4 * 5)
    turned = [node("Transpose", ["w"], ["v"], perm=[1, 0])]
    layer = [
        node("Transpose", ["input"], ["l"], perm=[0, 2, 3, 1]),
        node("MatMul", ["l", "v"], ["p"]),
        node("Transpose", ["p"], ["output"], perm=[0, 3, 1, 2]),
    ]
    assert Graph(tiny(nodes=turned + layer, tensors=[drawn("w", 3, 2)])).weights == ("w",)
    scaled = [node("Neg", ["w"], ["n"]), node("Transpose", ["n"], ["v"], perm=[1, 0])]
    with pytest.raises(CloudMaskError, match="grow beyond 5 numbers"):
        Graph(tiny(nodes=scaled + layer, tensors=[drawn("w", 3, 2)]))


def test_copies_and_states_hold_all_weights_and_no_more() -> None:
    graph = Graph(unet())
    copy = stirred(deepcopy(graph))
    assert not np.allclose(compute(copy, image()), compute(graph, image()))
    assert graph.state_dict().keys() == WEIGHTS
    graph.load_state_dict(copy.state_dict())
    np.testing.assert_array_equal(compute(copy, image()), compute(graph, image()))
    assert graph.to_onnx() == copy.to_onnx()


def test_the_module_moves_as_a_whole() -> None:
    """On the device "meta" everything fails that was left on the CPU; shapes are reckoned there."""
    assert Graph(unet()).to("meta")(image().to("meta")).shape == (2, 3, 11, 13)
    double = Graph(unet(np.float16)).double()(image().double())
    assert double.dtype == torch.float64
    np.testing.assert_allclose(double.detach().numpy(), compute(Graph(unet(np.float16)), image()), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_module_moves_to_a_gpu() -> None:
    graph = Graph(unet()).to("cuda")
    here = graph(image().to("cuda")).detach().cpu().numpy()
    np.testing.assert_allclose(here, ask(graph.to_onnx(), image()), atol=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        "forward",
        "a..b",
        "head.weight",
        "weights",
        "a.head",
        "steps",
        "constant_0",
        "a.",
        "_x",
        "a/b:0",
        "train",
    ],
)
def test_weights_of_any_name_keep_it(name: str) -> None:
    nodes = [
        node("Conv", ["input", name], ["c"]),
        node("Conv", ["c", "a"], ["d"]),
        fixed("k", 1.5, np.float32),
    ]
    body = tiny(
        nodes=[*nodes, node("Mul", ["d", "k"], ["output"])],
        tensors=[drawn(name, 2, 2, 1, 1), drawn("a", 3, 2, 1, 1)],
    )
    graph = stirred(Graph(body).train())
    assert dict(graph.named_parameters()).keys() == {name, "a"} == graph.state_dict().keys()
    np.testing.assert_allclose(ask(graph.to_onnx(), image()), compute(graph, image()), atol=1e-5)
    fresh = deepcopy(Graph(body).eval())
    fresh.load_state_dict(graph.state_dict())
    np.testing.assert_array_equal(compute(fresh, image()), compute(graph, image()))


def looped() -> bytes:
    inner = helper.make_graph([node("Relu", ["input"], ["o"])], "in", [], [onnx.ValueInfoProto(name="o")])
    then = [node("If", ["yes"], ["output"], then_branch=inner, else_branch=inner)]
    return tiny(nodes=[fixed("yes", True, bool), *then])


def grown() -> list[Any]:
    """Doubled 40 times."""
    names = [f"d{n}" for n in range(41)]
    more = [node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]
    return [fixed("d0", [1.0], np.float32), *more, node("Mul", ["input", "d40"], ["m"])]


def named(name: str) -> bytes:
    return tiny(nodes=[node("Conv", ["input", name], ["output"])], tensors=[drawn(name, 3, 2, 1, 1)])


def function() -> bytes:
    proto = onnx.load_from_string(tiny())
    relu = node("Relu", ["x"], ["y"])
    proto.functions.add().CopyFrom(
        helper.make_function("", "Conv", ["x", "w"], ["y"], [relu], [helper.make_opsetid("", 17)])
    )
    return bytes(proto.SerializeToString())


def external() -> bytes:
    proto = onnx.load_from_string(tiny())
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return bytes(proto.SerializeToString())


def two(what: str) -> bytes:
    proto = onnx.load_from_string(
        tiny(nodes=[node("Conv", ["input", "w"], ["output"]), node("Relu", ["w"], ["o"])])
    )
    getattr(proto.graph, what).append(
        helper.make_tensor_value_info("o" if what == "output" else "i", 1, ["n"])
    )
    return bytes(proto.SerializeToString())


HOSTILE = {
    "nothing": (b"", "no ONNX file"),
    "a pickle": (b"\x80\x04N.", "pickle"),
    "cut off": (unet()[:-20], "no ONNX file|no ONNX graph|contradicts itself"),
    "a cycle": (tiny(nodes=[node("Relu", ["d"], ["c"]), node("Relu", ["c"], ["d"]), CONV]), "contradicts"),
    "a cycle of names": (tiny(nodes=[node("Identity", ["c"], ["c"]), CONV]), "contradicts"),
    "weights in a cycle": (
        tiny(nodes=[node("Identity", ["v"], ["w"]), node("Identity", ["w"], ["v"]), CONV],
             tensors=[drawn("x", 1)]), "contradicts",
    ),
    "an input from nowhere": (tiny(nodes=[CONV]), "contradicts itself"),
    "an output from nowhere": (tiny(nodes=[node("Conv", ["input", "w"], ["c"])]), "depend|contradicts"),
    "an output that is the input": (tiny(nodes=[node("Identity", ["input"], ["output"])]), "without weights"),
    "an output that is constant": (
        tiny(nodes=[fixed("c", 1.0, np.float32), node("Neg", ["c"], ["output"])]), "without weights"
    ),
    "twice the same name": (tiny(nodes=[node("Conv", ["input", "w"], ["output"])] * 2), "contradicts itself"),
    "too few inputs": (tiny(nodes=[node("Conv", ["input"], ["output"])]), "contradicts itself"),
    "a subgraph": (looped(), "uses If .*known: .*teacher"),
    "its own operator": (tiny(nodes=[node("Conv", ["input", "w"], ["output"], domain="me")]), "uses Conv"),
    "its own meaning of Conv": (function(), "function Conv"),
    "an unknown operator": (tiny(nodes=[node("Einsum", ["input"], ["output"], equation="i")]), "uses Einsum"),
    "an unknown attribute": (tiny(nodes=[node("Conv", ["input", "w"], ["output"], k=1)]), "contradicts"),
    "external data": (external(), "other files"),
    "two outputs": (two("output"), "one input and one output; this one has 1 and 2.*extract_model"),
    "two inputs": (two("input"), "this one has 2 and 1"),
    "version 8": (tiny(opset=8), "version 8.*9 to 23.*convert_version"),
    "version 24": (tiny(opset=24, version=10), "version 24|contradicts itself"),
    "training": (named("training"), "'training'.*another name"),
    "inner training": (named("a.training"), "'a.training'.*another name"),
    "a dot ahead": (named(".b"), "'.b'.*another name"),
    "bfloat16": (
        tiny(tensors=[helper.make_tensor("w", TensorProto.BFLOAT16, [3, 2, 1, 1], [1] * 6)]), "tensor 'w'"
    ),
    "words": (tiny(tensors=[helper.make_tensor("w", TensorProto.STRING, [1], [b"w"])]), "cannot be trained"),
    "a huge constant": (
        tiny(nodes=[fixed("s", [2**20, 2**20]), node("ConstantOfShape", ["s"], ["h"]),
                    node("Mul", ["input", "h"], ["c"]), CONV]),
        "1048576 x 1048576",
    ),
    "a constant that grows": (tiny(nodes=[*grown(), node("Conv", ["m", "w"], ["output"])]), "grow beyond"),
    "a huge square": (
        tiny(nodes=[fixed("s", [2**16, 1]), node("ConstantOfShape", ["s"], ["h"]),
                    node("Transpose", ["h"], ["t"]), node("MatMul", ["h", "t"], ["q"]),
                    node("Mul", ["input", "q"], ["c"]), CONV]),
        "65536 x 65536",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_graphs_are_refused_with_a_remedy(what: str) -> None:
    body, words = HOSTILE[what]
    with pytest.raises(CloudMaskError, match=words):
        Graph(body)


def test_what_cannot_be_computed_names_the_place() -> None:
    graph = Graph(unet())
    with pytest.raises(
        CloudMaskError, match=r"Conv 'c1' of the graph cannot .* \[2, 5, 11, 13\], \[4, 2, 3, 3\]"
    ):
        graph(image(bands=5))
    big = [
        node("Shape", ["input"], ["s"]),
        node("ConstantOfShape", ["q"], ["h"]),
        node("Mul", ["c", "h"], ["output"]),
    ]
    squared = [node("Conv", ["input", "w"], ["c"]), *big[:1], node("Mul", ["s", "s"], ["q"]), *big[1:]]
    with pytest.raises(CloudMaskError, match="4 x 4 x 6400000000 x"):
        Graph(tiny(nodes=squared))(torch.zeros(2, 2, 1, 1).expand(2, 2, 80_000, 1))


def test_memory_that_ran_out_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever halves a batch then must be able to tell."""

    def full(*inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(OPERATORS, "Conv", full)  # type: ignore[arg-type]
    with pytest.raises(torch.OutOfMemoryError):
        Graph(unet())(image())


def test_without_the_package_onnx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CloudMaskError, match=r"xcloudmask\[train\]"):
        Graph(b"")


def test_onnx_is_imported_only_when_a_graph_is() -> None:
    code = "import sys, xcloudmask.train.graph; print('onnx' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def in_single(body: bytes) -> bytes:
    """Return a graph in half precision as one in single, so that nothing is rounded between layers."""
    proto = onnx.load_from_string(body)
    for one in proto.graph.initializer:
        if one.data_type == TensorProto.FLOAT16:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float32), one.name))
    for step in proto.graph.node:
        for attribute in step.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32))
                )
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("name", ["model_4b_l1c", "model_4b_l2a", "model_6b_l1c", "model_6b_l2a"])
def test_the_networks_of_ukis(name: str) -> None:
    found = find_spec("ukis_csmask")
    if found is None or found.origin is None:
        pytest.skip("the package ukis-csmask is not installed")
    body = (Path(found.origin).parent / f"{name}.onnx").read_bytes()
    graph = Graph(body)
    pixels = image(bands=int(name[6]), size=256)[:1, :, :, :256].contiguous()
    ours, half, full = compute(graph, pixels), ask(body, pixels), ask(in_single(body), pixels)
    np.testing.assert_allclose(ours, full, atol=1e-3)
    assert (ours.argmax(1) == full.argmax(1)).mean() > 0.999
    assert np.abs(ours - half).max() < 0.2  # what onnxruntime rounds between layers
    assert (ours.argmax(1) == half.argmax(1)).mean() > 0.99
    if name == "model_4b_l1c":
        graph.replace_head(CLASSES, ("clear", "cloud"), seed=1)
        back = graph.to_onnx()
        np.testing.assert_allclose(ask(back, pixels), half[:, :2], atol=0.01)
        graph(pixels[:, :, :64, :64]).square().sum().backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in graph.parameters())
