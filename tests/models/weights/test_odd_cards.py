"""Cards and items with a number where a list belongs, and the like: a named error, nothing raw."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from tests.models.published import golden
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models import card
from xcloudmask.models.arch import build
from xcloudmask.models.weights import inspect, instantiate

ITEM = golden.PUBLISHED / "fdr4vgt" / "single_new.json"


@pytest.mark.parametrize(("entry", "value"), [
    ("patch", 0), ("patch", 10**9), ("overlap", -1), ("config", "{"), ("config", "[]"),
    ("family", "none-such"),
])  # fmt: skip
def test_a_card_that_cannot_be_is_refused(tmp_path, entry, value):
    save_file(build("pixel-mlp", {"bands": 2}).state_dict(), tmp_path / "net.safetensors")
    spec = models.load(
        tmp_path / "net.safetensors", architecture="pixel-mlp", config={"bands": 2}, bands=["red", "nir"],
        classes=["clear", "cloud"], name="odd-card", overwrite=True,
    )  # fmt: skip
    body = json.loads(card.to_json(spec)) | {"weights": "net.safetensors"}
    (tmp_path / "card.json").write_text(json.dumps(body))
    assert models.load(tmp_path / "card.json", overwrite=True).name == "odd-card"
    (tmp_path / "card.json").write_text(json.dumps(body | {entry: value}))
    with pytest.raises(CloudMaskError, match=entry):
        models.load(tmp_path / "card.json", overwrite=True)


@golden.needed
@pytest.mark.parametrize(("side", "entry", "value"), [
    ("input", "bands", 5), ("output", "classification:classes", 5), ("output", "tasks", 5),
    ("output", "classification:classes", [{"value": "a", "name": "b"}, {"value": 1, "name": "c"}]),
])  # fmt: skip
def test_an_item_with_other_kinds_of_values_is_refused(tmp_path, side, entry, value):
    item = json.loads(ITEM.read_text())
    item["properties"][f"mlm:{side}"][0][entry] = value
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(WeightsError, match=r"item\.json is damaged, or no item of MLM"):
        models.load(tmp_path / "item.json")


@pytest.mark.parametrize("body", [[1], {}, {"graph_module": {"signature": {"input_specs": None}}}])
def test_a_graph_that_is_none_is_refused(tmp_path, body):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("model/models/model.json", json.dumps(body))
    with pytest.raises(WeightsError, match="the graph of the exported program is damaged"):
        inspect.pt2((tmp_path / "net.pt2").read_bytes())


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64, torch.bool])
def test_weights_of_another_kind_than_the_networks_are_refused(kind):
    config = {"bands": 2, "classes": 2}
    tensors = build("pixel-mlp", config).state_dict()
    given = {name: tensor.to(kind) for name, tensor in tensors.items()}
    with pytest.raises(WeightsError, match=r"net: .* holds (int8|complex64|bool), and the network float32"):
        instantiate.built("pixel-mlp", config, given, "net")
    instantiate.built("pixel-mlp", config, {name: t.half() for name, t in tensors.items()}, "net")
