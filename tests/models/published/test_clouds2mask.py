"""CloudS2Mask against the answers of its authors' libraries: the network, the file, and what is around it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.models.published import golden
from xcloudmask.models.arch import build
from xcloudmask.models.published.clouds2mask import FAMILY
from xcloudmask.models.published.family import Contents
from xcloudmask.models.weights.whole_module import tensors

pytestmark = [golden.needed, pytest.mark.usefixtures("one_thread")]

FOLDER = "clouds2mask"
CLASSES = {
    "relu": frozenset({"torch.nn.modules.activation.ReLU", "timm.layers.activations.Sigmoid"}),
    "mish": frozenset({"torch.nn.modules.activation.ReLU", "torch.nn.modules.activation.Mish"}),
}


def published(act: str) -> Contents:
    shapes = golden.facts(FOLDER)["shapes"]
    return Contents(golden.weights(shapes), {"classes": CLASSES[act], "file": "v3.44_regnety_006_10m.pkl"})


def network(contents: Contents) -> torch.nn.Module:
    card = FAMILY.card(contents)
    module = build(card["architecture"], json.loads(card["config"])).eval()
    module.load_state_dict(FAMILY.translate(contents))
    return module


@pytest.mark.parametrize("act", ["relu", "mish"])
def test_the_network_gives_the_published_answers(act: str) -> None:
    module, facts, answers = network(published(act)), golden.facts(FOLDER), golden.answers(FOLDER)
    assert sum(each.numel() for each in module.parameters()) == facts["parameters"] == 30_372_813
    for case, shape in facts["cases"].items():
        with torch.inference_mode():
            logits = module(torch.from_numpy(golden.image(case, shape))[None])[0]
        assert np.abs(logits.numpy() - answers[f"{case}/{act}/logits"]).max() < 1e-4
        odds = torch.softmax(logits, dim=0).numpy()
        assert np.abs(odds - answers[f"{case}/{act}/probabilities"]).max() < 1e-5


def test_the_sample_of_the_published_container() -> None:
    path = golden.PUBLISHED / FOLDER / "sample_whole_module.pkl"
    wanted = golden.facts(FOLDER, "sample_whole_module.json")
    found, notes = tensors(path.read_bytes(), path.name)
    assert {name: list(tensor.shape) for name, tensor in found.items()} == wanted["tensors"]
    assert sorted(notes["classes"]) == wanted["classes_named_in_the_pickle"]
    for name, tensor in golden.weights(wanted["tensors"]).items():
        assert torch.equal(found[name], tensor), name
    contents = Contents(found, {**notes, "file": path.name})
    assert FAMILY.recognises(contents)
    with torch.inference_mode():
        logits = network(contents)(torch.from_numpy(golden.image("sample", (13, 64, 64)))[None])[0].numpy()
    assert np.abs(logits - golden.answers(FOLDER, "sample_whole_module.npz")["logits"]).max() < 1e-4
