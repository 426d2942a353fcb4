"""OmniCloudMask 4 against the answers of its package: both networks, the scaling, chips and a scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from tests.models.published import golden
from xcloudmask import models
from xcloudmask.models import registry
from xcloudmask.models.arch import build
from xcloudmask.models.arch.unet import z_scores
from xcloudmask.models.published import Contents
from xcloudmask.models.published.omnicloudmask import FAMILY

pytestmark = [golden.needed, pytest.mark.usefixtures("one_thread")]

FOLDER = "omnicloudmask"
ENCODERS = {"tu-regnety_004": 6_732_716, "tu-edgenext_small": 7_668_428}


def published(encoder: str) -> Contents:
    return Contents(golden.weights(golden.facts(FOLDER)["networks"][encoder]["shapes"]))


def network(encoder: str, **changes: object) -> torch.nn.Module:
    contents = published(encoder)
    card = FAMILY.card(contents)
    module = build(card["architecture"], {**card["config"], **changes}).eval()
    module.load_state_dict(FAMILY.translate(contents))
    return module


@pytest.mark.parametrize("encoder", ENCODERS)
def test_each_network_gives_the_published_answers(encoder: str) -> None:
    assert FAMILY.recognises(published(encoder))
    module, answers = network(encoder, standardise=False), golden.answers(FOLDER)
    count = golden.facts(FOLDER)["networks"][encoder]["parameters"]
    assert sum(each.numel() for each in module.parameters()) == count == ENCODERS[encoder]
    for name, shape, what in (("", (3, 64, 64), "logits"), ("/odd", (3, 61, 75), "odd_logits")):
        with torch.inference_mode():
            logits = module(torch.from_numpy(golden.image(encoder + name, shape))[None])[0].numpy()
        assert np.abs(logits - answers[f"{encoder}/{what}"]).max() < 1e-4


def stored(name: str) -> np.ndarray:
    """The scene or the chips of the answers as numbers of Sentinel-2, zero where there is no data."""
    if name == "chips":
        chips = np.round(3000 * golden.image("chips", (3, 3, 48, 40)) + 200).astype(np.uint16)
        chips[0, :, :, :9] = 0
        chips[1, 2, 5, 5] = 0
        return chips
    image = np.round(3000 * golden.image("scene", (3, 230, 210)) + 200).astype(np.uint16)
    image[:, :, :35] = 0
    image[1, 100:110, 150:160] = 0
    return image


def gaps(counts: np.ndarray) -> torch.Tensor:
    """What networks are given: NaN for what is no data, in any units."""
    return torch.from_numpy(np.where(counts == 0, np.nan, counts * 1e-4).astype(np.float32))


def test_a_window_is_scaled_over_what_holds_data() -> None:
    scaled = z_scores(gaps(stored("scene")[:, :128, 35:163])[None])[0].numpy()
    assert np.abs(scaled - golden.answers(FOLDER)["scene/normalised_window"]).max() < 1e-5
    nothing = z_scores(torch.full((1, 3, 4, 4), float("nan")))
    assert (nothing == 0).all()
    for side in (4, 500):
        assert z_scores(torch.full((1, 3, side, side), 0.3)).abs().max() < 1e-6


def odds(logits: np.ndarray) -> np.ndarray:
    """The confidence that the package makes of logits (class, y, x)."""
    return np.clip(torch.softmax(torch.from_numpy(logits), 0).numpy() + 0.001, 0.001, 0.999)


@pytest.fixture(scope="module")
def pair() -> list[torch.nn.Module]:
    return [network(encoder) for encoder in ENCODERS]


def both(pair: list[torch.nn.Module], window: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return ((pair[0](window[None]) + pair[1](window[None])) / 2)[0].numpy()


def test_chips_are_windows_of_their_own(pair: list[torch.nn.Module]) -> None:
    answers = golden.answers(FOLDER)
    for chip, logits, confidence in zip(
        stored("chips"), answers["chips/logits"], answers["chips/confidence"], strict=True
    ):
        found = both(pair, gaps(chip))
        known = (chip != 0).any(0)
        assert np.abs(found - logits)[:, known].max() < 1e-4
        assert np.abs(odds(found) - confidence)[:, known].max() < 1e-5


def test_a_scene_joined_as_the_package_joins_windows(pair: list[torch.nn.Module]) -> None:
    """Its windows (moved inward where their edge holds no data) and its ramps, written from the facts."""
    answers, image = golden.answers(FOLDER), stored("scene")
    ramp = np.minimum(np.minimum(np.arange(1, 129), np.arange(128, 0, -1)), 64) / 64
    sums, weights = np.zeros((4, 230, 210)), np.zeros((230, 210))
    for top in (0, 64, 102):
        for left in (35, 64, 82):
            box = slice(top, top + 128), slice(left, left + 128)
            sums[:, *box] += both(pair, gaps(image[:, *box])) * np.outer(ramp, ramp)
            weights[box] += np.outer(ramp, ramp)
    known = weights > 0
    logits = (sums / np.where(known, weights, 1)).astype(np.float32)
    assert np.array_equal(np.isnan(answers["scene/logits"]).any(0), ~known)
    assert np.abs(logits - answers["scene/logits"])[:, known].max() < 1e-4
    assert np.abs(odds(logits) - answers["scene/confidence"])[:, known].max() < 1e-5
    assert (logits.argmax(0)[known] == answers["scene/classes"][0][known]).all()


def test_both_files_are_one_model_whose_logits_are_averaged(
    tmp_path: Path, pair: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder; as the engine runs it on a window of the scene in which one band misses nothing."""
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    for encoder in ENCODERS:
        save_file(dict(published(encoder).tensors), tmp_path / f"PM_model_{encoder}_PT_state.safetensors")
    spec = models.load(tmp_path, name="omnicloudmask-4")
    assert (spec.reduce, spec.gaps, spec.patch, spec.overlap) == ("mean-logits", "nan", 1000, 300)
    assert {member.family for member in spec.members} == {"omnicloudmask"}
    counts = stored("scene")[:, :64, 20:84]
    image = xr.DataArray(counts, dims=("band", "y", "x"))
    image = image.cloudmask.describe(bands=list(spec.bands), scale=1e-4, offset=0.0)
    how = {"scheme": "native", "working_resolution": "native", "patch_size": 64, "overlap": 0, "nodata": 0}
    found = image.cloudmask.predict_proba(spec, **how).values
    expected = torch.softmax(torch.from_numpy(both(pair, gaps(counts))), 0).numpy()
    assert np.isnan(found[:, :, :15]).all()
    assert np.abs(found - expected)[:, :, 15:].max() < 1e-5
