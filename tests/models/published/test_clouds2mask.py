"""CloudS2Mask against the answers of its authors' libraries: the network, the file, and what is around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save

from tests.models.published import golden
from xcloudmask import sensors
from xcloudmask.models.arch import build
from xcloudmask.models.loading import LOADER
from xcloudmask.models.members import joined
from xcloudmask.models.published.clouds2mask import FAMILY
from xcloudmask.models.published.family import Contents
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.whole_module import tensors
from xcloudmask.types import ModelSpec

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
    module = build(card["architecture"], card["config"]).eval()
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


@pytest.fixture(scope="module")
def specs() -> dict[str, ModelSpec]:
    """The cards of the two members of the pipeline's answers, and of both together."""
    made = {}
    for act in ("mish", "relu"):
        contents = published(act)
        sha256 = fetch.hold(save(FAMILY.translate(contents)))
        card = {**FAMILY.card(contents), "name": act, "version": "test", "loader": LOADER}
        made[act] = ModelSpec(**card, sha256=sha256, weights=f"{fetch.HELD}{sha256}")
    return {"single": made["mish"], "ensemble": joined([made["mish"], made["relu"]], "both")}


def patches() -> xr.DataArray:
    """Two windows as Sentinel-2 stores them before processing baseline 04.00."""
    counts = np.round(4000 * golden.image("patches", (2, 13, 64, 64)) + 500).astype(np.uint16)
    bands = golden.facts(FOLDER, "golden_pipeline.json")["bands"]
    image = xr.DataArray(counts, dims=("time", "band", "y", "x"), coords={"band": bands})
    return image.cloudmask.describe("sentinel-2", level="L1C", scale=1e-4, offset=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["single", "ensemble"])
@pytest.mark.parametrize("depth", [0, 2, 7])
def test_every_depth_gives_the_published_views(specs: dict[str, ModelSpec], depth: int, who: str) -> None:
    answer = golden.answers(FOLDER, "golden_pipeline.npz")[f"depth{depth}/{who}"]
    how = {"scheme": "native", "working_resolution": "native", "patch_size": 64, "overlap": 0}
    odds = patches().cloudmask.predict_proba(specs[who], tta=depth + 1, **how).values
    assert np.abs((odds * 255).astype(np.uint8).astype(int) - answer).max() <= 1


def test_the_card_scales_as_the_published_tool(specs: dict[str, ModelSpec]) -> None:
    mean, std = (np.array(each)[:, None, None] for each in (specs["single"].mean, specs["single"].std))
    scaled = (patches().values * 1e-4 - mean) / std
    answer = golden.answers(FOLDER, "golden_pipeline.npz")["normalised"]
    np.testing.assert_allclose(scaled[..., ::4, ::4], answer, atol=2e-5)
    bands = golden.facts(FOLDER, "golden_pipeline.json")["bands"]
    assert tuple(sensors.get("sentinel-2").band(name).common_name for name in bands) == specs["single"].bands
