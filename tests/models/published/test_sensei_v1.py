"""SEnSeI v1 from its published file: every step of the encoder, and what is said of a file without a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tests.models.published import golden
from tests.scenes import NAMES, chunks, same_answer, scene, weather
from xcloudmask import models
from xcloudmask.errors import WeightsError
from xcloudmask.models import arch, loading
from xcloudmask.models.arch.descriptors import BandInput, describe_v1
from xcloudmask.models.published import Contents
from xcloudmask.models.published.sensei_v1 import FAMILY
from xcloudmask.models.weights import fetch, keras
from xcloudmask.types import ModelSpec

pytestmark = [
    golden.needed,
    pytest.mark.usefixtures("one_thread"),
]
pytest.importorskip("h5py", reason="Keras files need h5py: pip install 'xcloudmask[local]'")

FILE = golden.PUBLISHED / "sensei_v1" / "sensei-epoch043-loss0.198.hdf5"


@pytest.fixture(scope="module")
def contents() -> Contents:
    tensors, notes = keras.tensors(FILE.read_bytes(), FILE.name)
    return Contents(tensors, {"file": FILE.name, "config": None, **notes})


@pytest.fixture(scope="module")
def encoder(contents) -> torch.nn.Module:
    network = arch.build("sensei-v1").eval()
    unset = network.load_state_dict(FAMILY.translate(contents), strict=False)
    assert not unset.unexpected_keys
    assert all(name.startswith("head.") for name in unset.missing_keys)
    return network.encoder


@pytest.mark.parametrize("case", ["s2_all", "s2_rgb"])
def test_every_step_of_the_encoder_is_as_published(encoder, case):
    facts, answers = golden.facts("sensei_v1")["cases"][case], golden.answers("sensei_v1")
    bands = [BandInput("optical", low, high, center) for low, center, high in facts["nm"]]
    image = golden.image(facts["image_name"], facts["image_shape"])
    described = describe_v1(bands)
    np.testing.assert_array_equal(described, answers[f"{case}/descriptors"])
    share = torch.full((1, len(bands)), 1 / len(bands))
    with torch.inference_mode():
        own = encoder.descriptor_block(torch.from_numpy(described)[None], share)
        joined = encoder.with_pairs(own, share)
        steps = {
            "after_descriptor_block": own,
            "after_pairs_and_concatenation": joined,
            "embedding": encoder.combined_descriptor_block(joined, share),
            "features": encoder(torch.from_numpy(image)[None], torch.from_numpy(described)),
        }
    for step, found in steps.items():
        np.testing.assert_allclose(found[0].numpy(), answers[f"{case}/{step}"], atol=1e-5, err_msg=step)


def test_the_file_is_recognised_by_its_tensors_and_has_the_parameters_of_the_paper(contents):
    assert FAMILY.recognises(contents)
    ours = FAMILY.translate(contents)
    assert sum(tensor.numel() for tensor in ours.values()) == golden.facts("sensei_v1")["encoder_parameters"]
    without = {name: t for name, t in contents.tensors.items() if "COMBINED" not in name}
    wider = {name: torch.cat([t, t], dim=-1) for name, t in contents.tensors.items()}
    for others in (without, wider, {}):
        assert not FAMILY.recognises(Contents(others))


def test_without_a_segmenter_it_is_no_model_and_the_remedy_is_a_training():
    with pytest.raises(WeightsError, match=f"is the encoder of SEnSeI v1 alone.*encoder = '{FILE.name}'"):
        models.load(FILE)


@settings(max_examples=2, deadline=None)
@given(rows=chunks(40), columns=chunks(50), head=st.sampled_from(["pixel", "deeplabv3"]))
def test_a_network_on_the_published_encoder_is_the_same_whatever_the_chunks(contents, rows, columns, head):
    network = arch.build("sensei-v1", {"head": head})
    network.load_state_dict({**network.state_dict(), **FAMILY.translate(contents)})
    sha256 = fetch.hold(save(network.state_dict()))
    spec = ModelSpec(
        "sensei-v1-test", "test", (), ("clear", "cloud"), loading.LOADER, any_bands=True, patch=33, overlap=8,
        architecture="sensei-v1", config={"head": head}, sha256=sha256, weights=f"{fetch.HELD}{sha256}",
    )  # fmt: skip
    pixels = scene(weather(40, 50, 4), NAMES[:4])
    whole = pixels.cloudmask.predict_proba(spec)
    assert whole.std() > 1e-4
    same_answer(pixels.chunk(y=rows, x=columns).cloudmask.predict_proba(spec), whole)
