"""Training on imitations: the share of cloud is learnt, and a training that was stopped goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.conftest import write_patch
from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import QUESTIONS
from xcloudmask.train import imitate
from xcloudmask.train.augment import flip_rotate, mirrored
from xcloudmask.train.config_tables import Recipe
from xcloudmask.train.evaluate import probabilities, share_of
from xcloudmask.train.files import find
from xcloudmask.train.networks import Begun, begin, model_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.samples import Sample
from xcloudmask.train.split import entries_of, seen_by
from xcloudmask.train.stream import VARIANTS, Stream

CLASSES = ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"]


def assert_bright_where_shares_are(sample: Sample) -> None:
    """Nothing was turned or mirrored without the rest: the patches' clouds are bright, at any share."""
    assert sample.soft_labels is not None
    assert sample.image.shape[1:] == sample.soft_labels.shape[1:] == sample.possible.shape
    red, share = sample.image[[b.common_name for b in sample.bands].index("red")], sample.soft_labels[1]
    told = np.isfinite(share) & sample.valid
    assert told.any()
    if np.ptp(share[told]) > 0.5:
        assert np.corrcoef(red[told], share[told])[0, 1] > 0.8
    truth = QUESTIONS["cloud"].truth(sample.possible)
    assert (share[told & (truth == 1)] > 0.6).all()
    assert (share[told & (truth == 0)] < 0.4).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_patch(tmp_path / "data" / "train" / "l8" / f"t{number}.npz", number, size=160)
    return tmp_path / "data"


@pytest.fixture
def config() -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"batch": 4, "length": 4, "dev_scenes": ["l8/t2"]},
        "recipe": {"size": 12, "pixels": 64, "imitate": 1.0, "whole": 1.0, "simulate": 0.3},
        "network": {"architecture": "spectral", "classes": CLASSES},
        "loss": {"terms": {"ambiguous-ce": 0.0}, "cover": 1.0},
        "loop": {"epochs": 2, "rate": 1e-2, "save_every": 3},
        "validation": {"instrument": "proba-v"},
    }


def test_samples_are_of_coarse_pixels_and_know_their_shares(folder: Path) -> None:
    recipe = Recipe(size=12, imitate=1.0, whole=1.0)
    stream = Stream(tuple(find(folder / "train")), recipe, batch=8, length=2)
    samples = [stream.sample(0, index) for index in range(24)]
    assert {sample.image.shape[1:] for sample in samples} == {(12, 12)}
    assert all(100 <= sample.gsd <= 1000 for sample in samples)
    assert {len(sample.bands) for sample in samples} == {4, 6}  # Proba-V's, and their own
    for sample in samples:
        assert_bright_where_shares_are(sample)
    np.testing.assert_array_equal(stream.sample(1, 5).image, stream.sample(1, 5).image)
    assert len({stream.sample(0, index).gsd for index in range(99)}) <= 3 * VARIANTS


def test_turns_and_mirrors_keep_shares_with_pixels(folder: Path) -> None:
    one = imitate("proba-v", noise=0.0)(find(folder / "train")[0].read())
    assert one is not None
    for made in (mirrored(one, 40), mirrored(one, 5), flip_rotate(one, np.random.default_rng(3))):
        assert_bright_where_shares_are(made)
    assert mirrored(one, 40).possible.shape == (40, 40)
    assert mirrored(one, 5).possible.shape == (5, 5)


def test_the_share_of_a_pixel_is_learnt(folder: Path, config: dict[str, Any], tmp_path: Path) -> None:
    config["loop"]["epochs"], config["data"]["length"], config["recipe"]["simulate"] = 6, 40, 0.0
    train(Plan.of(config), data=folder, out=tmp_path / "out")
    begun: Begun = begin({"start": str(tmp_path / "out" / "tiny.json"), "classes": CLASSES})
    [held] = seen_by("proba-v", [e for e in find(folder / "train") if e.scene == "l8/t2"])
    sample = held.read()
    assert sample.soft_labels is not None
    off = share_of(probabilities(begun.called, sample), CLASSES, "cloud") - sample.soft_labels[1]
    assert np.sqrt(np.nanmean(off**2)) < 0.12
    assert model_of(tmp_path / "out" / "tiny.json").any_bands


def test_a_stopped_training_ends_in_the_same_bytes(
    folder: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    whole = train(Plan.of(config), data=folder, out=tmp_path / "whole")
    first = True

    def stop(*_: object) -> None:
        nonlocal first
        if first:
            first = False
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Plan.of(config), data=folder, out=tmp_path / "cut", loggers=[stop])
    assert not (tmp_path / "cut" / "tiny.safetensors").exists()
    assert train(Plan.of(config), data=folder, out=tmp_path / "cut")["sha256"] == whole["sha256"]
    config["recipe"]["seed"] = 2
    assert train(Plan.of(config), data=folder, out=tmp_path / "other")["sha256"] != whole["sha256"]


def test_what_is_chosen_by_is_seen_by_the_instrument(folder: Path, config: dict[str, Any]) -> None:
    _, dev, _ = entries_of(Plan.of(config), folder, folder)
    assert [entry.read().gsd for entry in dev] == [pytest.approx(331.3, abs=0.1)]
    np.testing.assert_array_equal(dev[0].read().image, dev[0].read().image)


def test_cover_without_imitations_is_refused(folder: Path, config: dict[str, Any], tmp_path: Path) -> None:
    config["recipe"]["imitate"] = 0.0
    with pytest.raises(CloudMaskError, match=r"cover needs imitate in \[recipe\]"):
        train(Plan.of(config), data=folder, out=tmp_path / "out")
