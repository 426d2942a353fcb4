"""Hostile files are refused, each with its message, and nothing in them runs."""

import gzip
import io
import json
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import safety
from xcloudmask.models.weights.safety_pt2 import pt2


class Canary:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_the_canary_sings(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("form", ["plain", "torch", "legacy torch", "protocol 0 in a zip"])
@pytest.mark.parametrize("check", [safety.safetensors, safety.onnx])
def test_a_pickle_under_another_name_is_refused(canary, form, check):
    out = io.BytesIO()
    if form == "plain":
        pickle.dump(Canary(canary), out)
    elif form == "protocol 0 in a zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("data.pkl", pickle.dumps(Canary(canary), 0))
    else:
        torch.save(Canary(canary), out, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(WeightsError, match=r"name it FILE\.pt and load that"):
        check(out.getvalue(), "net.safetensors")


def test_safetensors_headers_must_be_possible():
    from safetensors.numpy import load, save

    good = save({"a": np.ones(3, np.float32)})
    assert load(safety.safetensors(good, "x"))["a"].tolist() == [1, 1, 1]
    with pytest.raises(WeightsError, match="100,000,000,000 bytes"):
        safety.safetensors(struct.pack("<Q", 10**11) + b"{" + bytes(100), "x")
    with pytest.raises(WeightsError, match="cut off"):
        safety.safetensors(good[:40], "x")
    with pytest.raises(WeightsError, match="did not arrive whole"):
        safety.safetensors(good[:5], "x")
    with pytest.raises(WeightsError, match="no safetensors"):
        safety.safetensors(b"<!DOCTYPE html><html>" + bytes(50), "x")


def test_a_header_of_any_length_is_read():
    """The first byte of a file is the low byte of that length, so it may be a pickle's or an archive's."""
    from safetensors.torch import load, save

    first = set()
    for length in range(1, 3000, 7):
        data = save({"a" * length: torch.zeros(3)})
        first.add(data[0])
        assert load(safety.safetensors(data, "x"))["a" * length].tolist() == [0, 0, 0]
    assert 0x80 in first
    length = struct.unpack("<Q", b"PK" + bytes(6))[0]  # 19,280 bytes of header
    bare = len(save({"": torch.zeros(3)})) - 12 - 8
    data = save({"a" * (length - bare): torch.zeros(3)})
    assert data[:2] == b"PK"
    assert safety.safetensors(data, "x") is data


def test_a_pickle_that_looks_like_a_header_is_no_header():
    data = b"\x80\x02N0N0NK{."
    assert pickle.loads(data) == ord("{")
    assert data[8:9] == b"{"
    with pytest.raises(WeightsError, match="no safetensors file: its first bytes announce"):
        safety.safetensors(data, "net.safetensors")


@pytest.mark.parametrize("check", [safety.safetensors, safety.onnx])
def test_what_was_packed_is_refused(check):
    with pytest.raises(WeightsError, match="an archive that may hold one"):
        check(gzip.compress(pickle.dumps({"a": 1})), "net.safetensors")


def an_onnx(external, where):
    import onnx
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    if external:
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
        weights.data_location = TensorProto.EXTERNAL
        entry = weights.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    inner = []
    if where == "initializer":
        nodes, initializers = [helper.make_node("Add", ["x", "w"], ["y"])], [weights]
    elif where == "attribute":
        nodes = [
            helper.make_node("Constant", [], ["w"], value=weights),
            helper.make_node("Add", ["x", "w"], ["y"]),
        ]
        initializers = []
    else:
        branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"])], "b", [], [y], [weights])
        condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        nodes, initializers = (
            [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
            [condition],
        )
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    model = helper.make_model(graph, functions=inner, opset_imports=[helper.make_opsetid("", 17)])
    return onnx.ModelProto.SerializeToString(model)


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
def test_onnx_with_files_beside_it_is_refused(where):
    good = an_onnx(False, where)
    assert safety.onnx(good, "net.onnx") == good
    with pytest.raises(WeightsError, match="external data"):
        safety.onnx(an_onnx(True, where), "net.onnx")
    with pytest.raises(WeightsError, match="did not arrive whole"):
        safety.onnx(good[:-7], "net.onnx")
    with pytest.raises(WeightsError, match="no ONNX file"):
        safety.onnx(b"<html>not found</html>", "net.onnx")
    with pytest.raises(WeightsError, match="no graph"):
        safety.onnx(b"", "net.onnx")


def test_the_real_networks_pass():
    from pathlib import Path

    import ukis_csmask

    for path in Path(ukis_csmask.__file__).parent.glob("*.onnx"):
        data = path.read_bytes()
        assert safety.onnx(data, path.name) is data


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Conv2d(4, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 3, 1),
        )

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)))
        small = nn.functional.avg_pool2d(y, 2)
        return self.last(nn.functional.interpolate(small, size=x.shape[-2:], mode="bilinear"))


@pytest.fixture(scope="module")
def archive():
    """A module and what torch.export.save makes of it."""
    torch.manual_seed(0)
    net = Net().eval()
    dims = {0: torch.export.Dim("n"), 2: 2 * torch.export.Dim("h"), 3: 2 * torch.export.Dim("w")}
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (torch.zeros(2, 4, 64, 64),), dynamic_shapes=(dims,)), out)
    return net, out.getvalue()


def load(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(io.BytesIO(data)).module()


def test_an_exported_program_survives_unchanged(archive):
    net, data = archive
    x = torch.rand(3, 4, 32, 96)
    with torch.inference_mode():
        torch.testing.assert_close(load(pt2(data, "net.pt2"))(x), net(x))


def altered(data, change=None, **entries):
    """Write the archive anew with the graph changed and entries replaced or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            body = old.read(name)
            short = name.partition("/")[2]
            if short == "models/model.json" and change is not None:
                graph = json.loads(body)
                change(graph)
                body = json.dumps(graph).encode()
            new.writestr(name, entries.pop(short, body))
        for short, body in entries.items():
            new.writestr(f"{folder}/{short}", body)
    return out.getvalue()


def test_sample_inputs_are_never_unpickled(archive, canary):
    _, data = archive
    hostile = altered(data, **{"data/sample_inputs/model.pt": pickle.dumps(Canary(canary))})
    load(pt2(hostile, "net.pt2"))


def a_node(graph, **changes):
    graph["graph_module"]["graph"]["nodes"][0].update(changes)


def first_expression(value):
    if isinstance(value, dict):
        if "expr_str" in value:
            return value
        value = list(value.values())
    if isinstance(value, list):
        return next((found for part in value if (found := first_expression(part))), None)
    return None


def set_expression(graph, text):
    first_expression(graph)["expr_str"] = text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: a_node(g, target="torch.os.system"), "calls 'torch.os.system'"),
        (lambda g: a_node(g, target="torch.ops.aten.from_file.default"), "calls"),
        (lambda g: a_node(g, target="torch.ops.higher_order.cond"), "calls"),
        (lambda g: set_expression(g, "__import__('os').system('touch {canary}')"), "computes a shape by"),
        (lambda g: set_expression(g, "9**9**9"), "computes a shape by"),
        (lambda g: set_expression(g, "Pow(Integer(9), Integer(999999999))"), "computes a shape by"),
        (lambda g: set_expression(g, "((((9**4)**4)**4)**4)**4"), "computes a shape by"),
        (lambda g: set_expression(g, "2 +"), "computes a shape by"),
        (lambda g: a_node(g, outputs=[{"as_tensor": {"name": "x):\n  import os #"}}]), "holds"),
        (
            lambda g: a_node(g, inputs=[{"name": "f", "arg": {"as_operator": "torch.os.system"}}]),
            "as_operator",
        ),
        (lambda g: a_node(g, inputs=[{"name": "f", "arg": {"as_graph": {"name": "g"}}}]), "as_graph"),
    ],
)
def test_a_graph_that_could_run_code_is_refused(archive, canary, change, words):
    with pytest.raises(WeightsError, match=words):
        pt2(altered(archive[1], change), "net.pt2")


@pytest.mark.parametrize("text", ["9**9**9", "Pow(Integer(9), Integer(999999999))", "2 +"])
def test_a_shape_that_is_a_key_is_held_to_the_same(archive, text):
    """torch gives the ranges of shapes by their expressions, and sympy reads those, too."""
    with pytest.raises(WeightsError, match="computes a shape by"):
        pt2(altered(archive[1], lambda graph: graph.update(range_constraints={text: {}})), "net.pt2")


def test_honest_shapes_pass(archive):
    for text in ("s77", "2*s77**2", "(s77 - 1)//2 + 1", "Pow(Add(Symbol('s0'), Integer(1)), Integer(2))"):
        pt2(altered(archive[1], lambda graph, text=text: set_expression(graph, text)), "net.pt2")
        pt2(altered(archive[1], lambda graph, text=text: graph.update(ranges={text: {}})), "net.pt2")


def test_guards_and_notes_do_not_survive(archive):
    def change(graph):
        graph["guards_code"] = ["__import__('os').system('false')"]
        a_node(graph, metadata={"stack_trace": "anything {'`"})

    with zipfile.ZipFile(io.BytesIO(pt2(altered(archive[1], change), "net.pt2"))) as clean:
        graph = json.loads(clean.read("model/models/model.json"))
    assert graph["guards_code"] == []
    assert graph["graph_module"]["graph"]["nodes"][0]["metadata"] == {}


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("data/aotinductor/model/x.so", b"\x7fELF", "aotinductor"),
        ("../../../escaped", b"x", "escaped"),
        ("data/constants/custom_obj_0", pickle.dumps(0), "custom_obj"),
        ("data/weights/model.pt", pickle.dumps(0), "model.pt"),
        ("extra/run.py", b"print()", "run.py"),
    ],
)
def test_an_archive_with_anything_else_in_it_is_refused(archive, name, body, words):
    with pytest.raises(WeightsError, match=f"{words}.*refused|{words}"):
        pt2(altered(archive[1], **{name: body}), "net.pt2")


def test_pickled_tensors_and_bombs_are_refused(archive):
    config = "data/weights/model_weights_config.json"
    with zipfile.ZipFile(io.BytesIO(archive[1])) as old:
        entries = json.loads(old.read(f"{old.namelist()[0].split('/')[0]}/{config}"))
    next(iter(entries["config"].values()))["use_pickle"] = True
    with pytest.raises(WeightsError, match="kept as a pickle"):
        pt2(altered(archive[1], **{config: json.dumps(entries).encode()}), "net.pt2")
    meta = next(iter(entries["config"].values()))["tensor_meta"]
    next(iter(entries["config"].values()))["use_pickle"] = False
    for change, words in (
        ({"sizes": [{"as_int": 2**20}, *meta["sizes"][1:]]}, "claims [0-9,]+ bytes, and its file"),
        ({"storage_offset": {"as_int": 1}}, "claims [0-9,]+ bytes, and its file"),
        ({"strides": [{"as_int": 2**40}, *meta["strides"][1:]]}, "claims [0-9,]+ bytes, and its file"),
        ({"sizes": meta["sizes"][1:]}, "claims sizes that cannot be"),
        ({"sizes": [{"as_int": -1}, *meta["sizes"][1:]]}, "claims sizes that cannot be"),
    ):
        next(iter(entries["config"].values()))["tensor_meta"] = {**meta, **change}
        with pytest.raises(WeightsError, match=words):
            pt2(altered(archive[1], **{config: json.dumps(entries).encode()}), "net.pt2")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("m/models/model.json", bytes(200 * 2**20))
    with pytest.raises(WeightsError, match="zip bomb"):
        pt2(out.getvalue(), "net.pt2")
    with pytest.raises(WeightsError, match="did not arrive whole"):
        pt2(archive[1][:5000], "net.pt2")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    with pytest.raises(WeightsError, match=r"models/model\.json"):
        pt2(empty.getvalue(), "net.pt2")
