"""CloudS2Mask against the answers of its authors' libraries: the network, the file, and what is around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tests.models.published import golden
from tests.scenes import same_odds, weather
from xcloudmask import models, sensors
from xcloudmask.errors import WeightsError
from xcloudmask.models import registry
from xcloudmask.models.arch import build
from xcloudmask.models.loading import LOADER, read
from xcloudmask.models.members import joined
from xcloudmask.models.network import load_network
from xcloudmask.models.published import Contents
from xcloudmask.models.published.clouds2mask import FAMILY
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.torch_save import tensors
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
        # closer than aimed at: with Mish, a middle without its norm or ReLU would differ by 3e-6 alone
        assert np.abs(logits.numpy() - answers[f"{case}/{act}/logits"]).max() < 2.5e-6
        odds = torch.softmax(logits, dim=0).numpy()
        assert np.abs(odds - answers[f"{case}/{act}/probabilities"]).max() < 1e-5


def test_the_sample_of_the_published_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    path = golden.PUBLISHED / FOLDER / "sample_whole_module.pkl"
    wanted = golden.facts(FOLDER, "sample_whole_module.json")
    found, notes = tensors(path.read_bytes(), path.name)
    assert {name: list(tensor.shape) for name, tensor in found.items()} == wanted["tensors"]
    assert sorted(notes["classes"]) == wanted["classes_named_in_the_pickle"]
    for name, tensor in golden.weights(wanted["tensors"]).items():
        assert torch.equal(found[name], tensor), name
    spec = models.load(path)
    with torch.inference_mode():
        logits = (
            load_network(spec).body(torch.from_numpy(golden.image("sample", (13, 64, 64)))[None])[0].numpy()
        )
    assert np.abs(logits - golden.answers(FOLDER, "sample_whole_module.npz")["logits"]).max() < 1e-4


def test_pixel_sizes_and_activation_come_from_the_file() -> None:
    contents = published("relu")
    for file, gsd in (
        ("v3.44_regnety_006_4C_Dice_1_10m.pkl", (10, 10)), ("v3.45_regnety_006_4C_Dice_2_20m.pkl", (20, 20)),
        ("mine.pkl", (10, 20)),
    ):  # fmt: skip
        assert FAMILY.card(Contents(contents.tensors, {**contents.notes, "file": file}))["gsd"] == gsd
    other = CLASSES["relu"] | {"torch.nn.modules.activation.SiLU"}
    with pytest.raises(WeightsError, match="names the activation silu; dynamic-unet has relu and mish"):
        FAMILY.card(Contents(contents.tensors, {"classes": other}))
    assert not FAMILY.recognises(Contents(contents.tensors, {}))  # nothing tells its activation
    stem = {**contents.tensors, "layers.0.0.conv.weight": torch.zeros(32, 3, 3, 3)}
    assert not FAMILY.recognises(Contents(stem, contents.notes))


@settings(max_examples=3, deadline=None)
@given(rows=st.integers(1, 70), cols=st.integers(20, 70), overlap=st.sampled_from([0, 8, 15]))
def test_chunks_do_not_matter(rows: int, cols: int, overlap: int) -> None:
    """The narrow network of the sample, with its own views."""
    path = golden.PUBLISHED / FOLDER / "sample_whole_module.pkl"
    spec = read(str(path), {})
    how = {"scheme": "native", "working_resolution": "native", "patch_size": 32, "overlap": overlap, "tta": 2}
    image = patches().isel(time=0, y=slice(0, 50), x=slice(0, 41))
    whole = image.cloudmask.predict_proba(spec, **how).values
    same_odds(image.chunk(y=rows, x=cols).cloudmask.predict_proba(spec, **how).values, whole)


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


def published_windows(shape: tuple[int, int], window: int, overlap: int) -> list[tuple[int, int]]:
    """Where the published tool's windows lie: every other row of them is moved by half a step."""
    step = window - overlap
    tops = dict.fromkeys(min(top, shape[0] - window) for top in range(0, shape[0], step))
    boxes = []
    for row, top in enumerate(tops):
        lefts = [max(left - row % 2 * step // 2, 0) for left in range(0, shape[1], step)]
        boxes += [(top, min(left, shape[1] - window)) for left in [*lefts, shape[1] - window]]
    return list(dict.fromkeys(boxes))


@pytest.mark.slow
def test_the_published_joining_differs_in_few_pixels() -> None:
    """Its windows (held to its own lists), its ramps and 8-bit sums, beside the windows and blend of ours."""
    facts = golden.facts(FOLDER, "golden_pipeline.json")["windows_500_128"]
    for size, metres in ((10_980, "10"), (5490, "20")):
        boxes = published_windows((size, size), 500, 128)
        assert len(boxes) == facts[metres]["count"]
        for top, row in ((0, "first_row"), (372, "second_row")):
            assert [left for each, left in boxes if each == top] == facts[metres][row]

    spec = read(str(golden.PUBLISHED / FOLDER / "sample_whole_module.pkl"), {})
    body = load_network(spec).body
    pixels = weather(200, 170)[[0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 0, 4, 5]]
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (spec.mean, spec.std))
    ramp = np.minimum(np.minimum(np.arange(1, 65), np.arange(64, 0, -1)), 16) / 16
    weight = np.outer(ramp, ramp)
    np.testing.assert_allclose(
        weight, golden.answers(FOLDER, "golden_pipeline.npz")["gradient_64_16"], atol=1e-7
    )
    sums = np.zeros((4, 200, 170), np.uint16)
    for top, left in published_windows((200, 170), 64, 16):
        box = slice(None), slice(top, top + 64), slice(left, left + 64)
        with torch.inference_mode():
            odds = torch.softmax(body(torch.from_numpy((pixels[box] - mean) / std)[None]), 1)[0].numpy()
        sums[box] += ((odds * 255).astype(np.uint8) * weight).astype(np.uint8)
    image = xr.DataArray(pixels, dims=("band", "y", "x"))
    image = image.cloudmask.describe("sentinel-2", bands=list(patches().band.values), level="L1C")
    how = {"scheme": "native", "working_resolution": "native", "patch_size": 64, "overlap": 16}
    ours = image.cloudmask.predict_proba(spec, **how).values.argmax(0)
    differs = ours != sums.argmax(0)
    assert 0 < differs.mean() < 0.06
