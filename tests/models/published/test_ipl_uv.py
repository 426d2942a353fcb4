"""DL-L8S2-UV and pvl8dagans from their published files: answers, sizes, cards, and the adapter in front."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.published import golden
from tests.scenes import chunks, same_answer, scene, weather
from xcloudmask.errors import WeightsError
from xcloudmask.models import loading
from xcloudmask.models.convert import convert
from xcloudmask.models.network import load_network
from xcloudmask.models.published import Contents
from xcloudmask.models.published.ipl_uv import FAMILY
from xcloudmask.models.weights import keras
from xcloudmask.types import ModelSpec

pytestmark = [golden.needed, pytest.mark.usefixtures("one_thread")]
pytest.importorskip("h5py", reason="Keras files need h5py: pip install 'xcloudmask[local]'")

FOLDER = golden.PUBLISHED / "ipl_uv"
CLOUD, ADAPTER = FOLDER / "cloud_detection_l8.hdf5", FOLDER / "full.hdf5"
CASES = [
    f"{net}_{image}" for net in ("rgbi", "rgbiswir", "probav", "adapter") for image in ("noise", "blocks")
]


def image_of(case: str, bands: int) -> torch.Tensor:
    if case.endswith("noise"):
        return torch.from_numpy(golden.image(case, (bands, 64, 64)))[None]
    return torch.from_numpy(golden.image(case, (bands, 8, 8)).repeat(8, axis=1).repeat(8, axis=2))[None]


def numbers(module: torch.nn.Module) -> int:
    """How many numbers are published: those of the state, but for torch's counters."""
    return sum(t.numel() for name, t in module.state_dict().items() if not name.endswith("tracked"))


@pytest.mark.parametrize("case", CASES[:-2])
def test_each_network_loads_in_one_call_and_gives_the_published_answers(case):
    facts, answers = golden.facts("ipl_uv")["cases"][case], golden.answers("ipl_uv")
    spec = loading.read(str(FOLDER / facts["file"]), {})
    module = load_network(spec).body
    assert numbers(module) == facts["parameters"]
    with torch.inference_mode():
        logits = module(image_of(case, facts["bands"]))[0, 0]
    np.testing.assert_allclose(logits, answers[f"{case}/logits"], atol=4e-3)  # 1e-4 of logits up to 40
    np.testing.assert_allclose(torch.sigmoid(logits), answers[f"{case}/probability"], atol=1e-5)


@pytest.fixture
def adapted(tmp_path) -> ModelSpec:
    convert([ADAPTER, CLOUD], tmp_path / "adapted.safetensors")
    return loading.read(str(tmp_path / "adapted.json"), {})


@pytest.mark.parametrize("case", CASES[-2:])
def test_the_adapter_gives_the_published_answers_and_stands_in_front(case, adapted):
    assert json.loads(adapted.config) == {"bands": 4, "adapter": True}
    facts, answers = golden.facts("ipl_uv")["cases"][case], golden.answers("ipl_uv")
    whole, alone = load_network(adapted).body, load_network(loading.read(str(CLOUD), {})).body
    assert numbers(whole.adapter) == facts["parameters"]
    image = image_of(case, 4)
    with torch.inference_mode():
        like_landsat = whole.adapter(image)
        np.testing.assert_allclose(like_landsat[0], answers[f"{case}/adapted"], atol=1e-5)
        torch.testing.assert_close(whole(image), alone(torch.clamp(like_landsat, 0, 2)))
        assert (whole(image) - alone(like_landsat)).abs().max() > 1e-3  # it does leave 0 to 2


def test_cards_name_bands_class_level_and_licence(adapted):
    told = {
        name: loading.read(str(FOLDER / name), {})
        for name in ("landsatbiomeRGBI6.hdf5", "landsatbiomeRGBISWIR7.hdf5", CLOUD.name)
    }
    four, six, proba_v = told.values()
    assert four.bands == ("blue", "green", "red", "nir")
    assert six.bands == (*four.bands, "swir16", "swir22")
    assert proba_v.bands == adapted.bands == ("blue", "red", "nir", "swir16")
    for spec in (four, six, proba_v, adapted):
        assert (spec.architecture, spec.classes, spec.activation) == ("ipl-uv", ("clear", "cloud"), "sigmoid")
        assert (spec.level, spec.threshold, spec.patch % 8, spec.mean) == ("toa", 0.5, 0, None)
        assert spec.gaps == "zero"
    assert (four.licence, six.licence) == ("MIT", "MIT")
    assert "none stated" in proba_v.licence
    assert "adapter" in adapted.description
    assert "adapter" in proba_v.limits


def test_the_adapter_alone_is_no_model_and_the_remedy_is_a_command():
    with pytest.raises(WeightsError, match=r"full\.hdf5 is the adapter.*convert full\.hdf5 cloud_detection"):
        loading.read(str(ADAPTER), {})


def test_only_these_tensors_are_recognised():
    tensors, _ = keras.tensors(CLOUD.read_bytes(), "net")
    assert FAMILY.recognises(Contents(tensors))
    more = {**tensors, "pool9_conv_1/x/bias": torch.zeros(1)}
    other = {**tensors, "normalization/normalization/kernel": torch.zeros(1, 1, 3, 3)}
    for others in (more, other, {}):
        assert not FAMILY.recognises(Contents(others))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (30, 33), (64, 7)])
def test_any_size_of_window_is_answered(shape, adapted):
    module = load_network(adapted).body
    with torch.inference_mode():
        assert module(torch.rand(1, 4, *shape)).shape == (1, 1, *shape)


@settings(max_examples=3, deadline=None)
@given(rows=chunks(40), columns=chunks(50), network=st.sampled_from(["four", "six", "adapted"]))
def test_the_answer_is_the_same_whatever_the_chunks(rows, columns, network, tmp_path_factory):
    if network == "adapted":
        path = tmp_path_factory.mktemp("adapted") / "adapted.json"
        convert([ADAPTER, CLOUD], path.with_suffix(".safetensors"))
    else:
        path = FOLDER / f"landsatbiome{'RGBI6' if network == 'four' else 'RGBISWIR7'}.hdf5"
    spec = replace(loading.read(str(path), {}), patch=32, overlap=8)
    pixels = scene(weather(40, 50, len(spec.bands)), list(spec.bands))
    call = {"model": spec, "working_resolution": "native"}
    whole = pixels.cloudmask.predict_proba(**call)
    assert whole.std() > 0.01
    same_answer(pixels.chunk(y=rows, x=columns).cloudmask.predict_proba(**call), whole)
