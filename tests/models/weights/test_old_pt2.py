"""The container of torch 2.5: what it may hold, what is refused; its answers: tests/models/published."""

import io
import json
import zipfile

import pytest
import torch

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import old_pt2
from xcloudmask.models.weights.safety_pt2 import pt2

SIGNATURE = {
    "input_specs": [{"parameter": {"parameter_name": "shared"}}, {"buffer": {"buffer_name": "view"}}]
}
MODULE = {"value": {"device": {"type": "cuda", "index": 0}, "dtype": 7}, "signature": SIGNATURE}


def saved(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def an_archive(graph=None, state=None, constants=None, **more):
    """A container with a graph that is no program, which is no matter to what is vetted."""
    graph = {"schema_version": {"major": 7, "minor": 3}, "graph_module": MODULE} | (graph or {})
    entries = {
        old_pt2.GRAPH: json.dumps(graph).encode(),
        old_pt2.STATE: saved({"a": torch.nn.Parameter(torch.ones(3))}) if state is None else state,
        old_pt2.CONSTANTS: saved({}) if constants is None else constants,
        **more,
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in entries.items():
            if body:
                archive.writestr(name, body)
    return out.getvalue()


def converted(data):
    with zipfile.ZipFile(io.BytesIO(pt2(data, "net.pt2"))) as archive:
        entries = {name.removeprefix("model/"): archive.read(name) for name in archive.namelist()}
    return {name: json.loads(body) if name.endswith(".json") else body for name, body in entries.items()}


def test_tensors_become_raw_ones_wherever_they_lay():
    base = torch.arange(12, dtype=torch.float32)
    state = {
        "view": base[2:8].reshape(2, 3).T, "shared": base, "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.tensor(5), "nothing": torch.zeros(0),
    }  # fmt: skip
    entries = converted(an_archive(state=saved(state), constants=saved({"c": torch.ones(2, 2).double()})))
    config = entries["data/weights/model_weights_config.json"]["config"]
    assert config["view"]["path_name"] == config["shared"]["path_name"]  # one storage, kept once
    assert [name for name, entry in config.items() if entry["is_param"]] == ["shared"]
    for name, tensor in {**state, "c": torch.ones(2, 2).double()}.items():
        kind = "constants" if name == "c" else "weights"
        entry = entries[f"data/{kind}/model_{kind}_config.json"]["config"][name]
        meta = entry["tensor_meta"]
        sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
        raw = bytearray(entries[f"data/{kind}/{entry['path_name']}"])
        flat = torch.frombuffer(raw, dtype=tensor.dtype) if raw else torch.zeros(0, dtype=tensor.dtype)
        found = flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
        assert torch.equal(found, tensor), name
    assert entries["models/model.json"]["graph_module"]["value"]["device"] == {"type": "cpu", "index": None}
    assert entries["data/sample_inputs/model.pt"] == b""


def test_none_is_written_as_today():
    node = {"as_none": []}
    entries = converted(an_archive({"graph_module": {**MODULE, "arg": [node, {"as_ints": []}]}}))
    assert entries["models/model.json"]["graph_module"]["arg"] == [{"as_none": True}, {"as_ints": []}]


def lying(**changes):
    """A state dict one of whose tensors says more than its storage holds."""
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(3)}))) as old, zipfile.ZipFile(data, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            for find, instead in changes.get(name.rpartition("/")[2].replace(".", "_"), ()):
                assert body.count(find) == 1
                body = body.replace(find, instead)
            new.writestr(name, body)
    return data.getvalue()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"graph": {"schema_version": {"major": 9}}}, "follows schema 9"),
        ({"graph": {"schema_version": None}}, "follows schema None"),
        ({"graph": {"graph_module": {"signature": {}}}}, "signature of its graph is damaged"),
        ({"constants": b""}, r"lacks serialized_constants\.pt"),
        ({"extra_files/../../x": b"x"}, r"holds 'extra_files/\.\./\.\./x'"),
        ({"serialized_more.pt": b"x"}, "holds 'serialized_more"),
        ({"state": saved([torch.ones(3)])}, "no dictionary of tensors"),
        ({"state": saved({"a": {"b": torch.ones(3)}})}, "no dictionary of tensors"),
        ({"state": saved({"a": torch.ones(3)})[:-60]}, "no dictionary of tensors"),
        # (3,) elements become (200,): shapes lie in the pickle as K, a byte and a tuple of one
        ({"state": lying(data_pkl=[(b"K\x00K\x03\x85", b"K\x00K\xc8\x85")])}, "'a' claims 800 bytes"),
        ({"state": lying(data_pkl=[(b"K\x00K\x03\x85", b"K\x02K\x03\x85")])}, "'a' claims 20 bytes"),
        ({"state": lying(data_pkl=[(b"FloatStorage", b"QIntStorage ")])}, "no dictionary of tensors"),
    ],
)
def test_what_is_not_so_is_refused(parts, words):
    with pytest.raises(WeightsError, match=words):
        pt2(an_archive(**parts), "net.pt2")


def test_storages_that_share_bytes_are_refused():
    """One entry's numbers reach over the next entry, header and all: such files grow with their square."""
    data = bytearray(saved({"a": torch.zeros(1000), "b": torch.zeros(1000)}))
    name = b"archive/data/0"
    entry = data.rindex(name) - 46  # in the directory at the end of the archive
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 20 : entry + 28] = 2 * (8000).to_bytes(4, "little")
    with pytest.raises(WeightsError, match=r"zip bomb|Overlapped entries"):
        pt2(an_archive(state=bytes(data)), "net.pt2")


def test_an_archive_within_that_unpacks_to_more_is_refused():
    packed = io.BytesIO()
    old = zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(2**20)})))
    with old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(WeightsError, match="zip bomb"):
        pt2(an_archive(state=packed.getvalue()), "net.pt2")
