"""Networks for fixed bands, trained on: with all their bands, and with some of them estimated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xcloudmask import models, sensors
from xcloudmask.errors import BandError, CloudMaskError, ModelWarning, OptionError
from xcloudmask.models import arch
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.imputation import BandImputer, imputer_for
from xcloudmask.models.network import load_network
from xcloudmask.models.weights.fetch import digest
from xcloudmask.scene.bands import choose_bands, lacking, missing_bands
from xcloudmask.train import fine_tune
from xcloudmask.train.augment import among
from xcloudmask.train.checkpoint import read_weights
from xcloudmask.train.config_tables import Distil, Loss
from xcloudmask.train.evaluate import logits
from xcloudmask.train.extras import with_extras
from xcloudmask.train.files import read_patch
from xcloudmask.train.fixed import Estimated, Fixed
from xcloudmask.train.loop import Trainer
from xcloudmask.train.networks import begin, model_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.samples import Sample, to_xarray
from xcloudmask.types import ModelSpec

BANDS = ("blue", "green", "red", "nir")
CLASSES = ("clear", "cloud", "cloud_shadow")
SETTINGS = {"bands": 4, "classes": 3, "width": 8, "levels": 1}
LEARNING = {"epochs": 2, "length": 12, "rate": 1e-2, "batch": 8}


def network(seed: int = 0) -> nn.Module:
    """Return a few convolutions that look at neighbours."""
    return arch.build("cloud-unet", SETTINGS, seed=seed).eval()


def written(path: Path, seed: int = 0) -> Path:
    save_file(network(seed).state_dict(), path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> ModelSpec:
    """Return a model that takes windows of 32 only and is given normalised bands."""
    spec = models.load(
        written(tmp_path / "begun.safetensors"), architecture="cloud-unet", config=SETTINGS, bands=BANDS,
        classes=CLASSES, activation="softmax", mean=[0.2], std=[0.1, 0.1, 0.1, 0.2],
        patch=32, overlap=8, level="toa", overwrite=True,
    )  # fmt: skip
    return replace(spec, patch_fixed=True)


def tune(spec: ModelSpec | Path, data: Path, out: Path, **more: Any) -> ModelSpec:
    return fine_tune(spec, data / "train", out, **{**LEARNING, **more})


def test_it_is_fine_tuned_and_masks(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    mine = tune(tiny, data, tmp_path / "mine")
    assert (mine.architecture, mine.bands, mine.classes, mine.mean) == (
        "cloud-unet",
        BANDS,
        CLASSES,
        tiny.mean,
    )
    assert (mine.patch, mine.patch_fixed, mine.level, mine.mean) == (32, True, "toa", tiny.mean)
    sample = read_patch(data / "val" / "l8" / "v0.npz")
    right = {
        spec.name: ((to_xarray(sample).cloudmask.predict(model=spec).values == 1) == (sample.possible == 6))
        for spec in (tiny, mine)
    }
    assert right["mine"][:, :-1].mean() > max(0.95, right["begun"][:, :-1].mean())
    # and what was learnt is read again from the file alone
    again = models.load(tmp_path / "mine" / "mine.json", name="begun-again", overwrite=True)
    assert again.sha256 == mine.sha256 != tiny.sha256
    assert tune(mine, data, tmp_path / "more", epochs=1, length=1).architecture == "cloud-unet"


@pytest.mark.parametrize("taught", [False, True])
def test_the_scores_of_training_are_of_what_users_get(tiny: ModelSpec, data: Path, taught: bool) -> None:
    """Logits in windows, as training validates, lead to the classes that `predict` gives."""
    sample = read_patch(data / "val" / "l8" / "v0.npz")
    begun = begin({"start": tiny, "classes": CLASSES})
    if taught:
        begun, _ = with_extras(begun, Loss(distil=Distil(model=tiny)), CLASSES)
    four = sample.select([0, 1, 2, 3])
    mine = logits(begun.called, four).argmax(axis=0)
    theirs = to_xarray(sample).cloudmask.predict(model=tiny).values
    inside = np.s_[:, :-2]  # a neighbour without data is zero in training, and a mean in the engine
    assert (np.array([0, 1, 3])[mine][inside] == theirs[inside]).mean() > 0.999


def test_other_classes_get_a_head_of_their_own(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    mine = tune(tiny, data, tmp_path / "two", classes=["clear", "cloud"], only="head", epochs=1)
    assert mine.classes == ("clear", "cloud")
    before, after = (load_network(spec).body.state_dict() for spec in (tiny, mine))
    assert after["logits.weight"].shape == (2, 8, 1, 1)
    assert torch.equal(before["down.0.0.0.weight"], after["down.0.0.0.weight"])
    assert not torch.equal(before["logits.weight"][:2], after["logits.weight"])
    mask = to_xarray(read_patch(data / "val" / "l8" / "v0.npz")).cloudmask.predict(model=mine)
    assert mask.attrs["flag_meanings"] == "clear cloud no_data"


def test_other_bands_get_a_first_layer_of_their_own(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    bands = ("swir16", "nir", "red")
    begun = begin({"start": tiny, "classes": CLASSES, "bands": list(bands)})
    before, after = network().state_dict(), begun.kept.state_dict()
    first = "down.0.0.0.weight"
    assert torch.equal(after[first][:, 1], before[first][:, 3])
    assert torch.equal(after[first][:, 2], before[first][:, 2])
    assert not after[first][:, 0].any()
    assert all(torch.equal(before[name], after[name]) for name in before if name != first)
    (mean, *more), std = begun.entries["mean"], begun.entries["std"]
    assert (more, std[1:]) == ([0.2, 0.2], (0.2, 0.1))
    known = imputer_for(["swir16"])
    assert (mean, std[0]) == (known.mean[0], known.covariance[0][0] ** 0.5)
    mine = tune(tiny, data, tmp_path / "mine", bands=bands, recipe={"mosaic": True})
    assert (mine.bands, json.loads(mine.config)["bands"]) == (bands, 3)
    sample = read_patch(data / "val" / "l8" / "v0.npz")
    mask = to_xarray(sample).isel(band=[2, 3, 4]).cloudmask.predict(model=mine)
    assert ((mask.values == 1) == (sample.possible == 6))[:, :-1].mean() > 0.95
    with pytest.raises(CloudMaskError, match="takes any bands"):
        begin({"start": "spectral", "classes": models.get("spectral").classes, "bands": ["red"]})
    with pytest.raises(BandError, match="cannot be estimated"):
        begin({"start": tiny, "classes": CLASSES, "bands": ["red", "purple"]})


def test_only_what_is_named_is_trained(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    mine = tune(tiny, data, tmp_path / "some", only=["down.", "up."], epochs=1, length=2)
    before, after = (load_network(spec).body.state_dict() for spec in (tiny, mine))
    same = {name: torch.equal(before[name], after[name]) for name in before}
    assert same == {name: name.startswith("logits.") for name in before}
    with pytest.raises(OptionError, match=r"down\.0"):
        tune(tiny, data, tmp_path / "none", only=["decoder"])


def test_bands_that_are_lacking_are_estimated_in_training_and_ever_after(
    tiny: ModelSpec, data: Path, tmp_path: Path
) -> None:
    mine = tune(tiny, data, tmp_path / "any", estimate=True, recipe={"least_bands": 2, "mosaic": True})
    assert (mine.fills, mine.min_bands, mine.bands) == (True, 2, BANDS)
    sample = read_patch(data / "val" / "l8" / "v0.npz")
    scene = to_xarray(sample)
    few = scene.isel(band=[0, 3])
    mask = few.cloudmask.predict(model=mine)
    assert ((mask.values == 1) == (sample.possible == 6))[:, :-1].mean() > 0.9
    with pytest.raises(BandError, match="1 more of"):
        few.isel(band=[0]).cloudmask.predict(model=mine)
    # one that fills goes on filling when it is trained on, however that is asked for
    assert type(begin({"start": mine, "classes": CLASSES}).called) is Estimated
    assert tune(mine, data, tmp_path / "more", epochs=1, length=1, recipe={"mosaic": True}).fills


def test_estimated_is_what_the_engine_does(tiny: ModelSpec) -> None:
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 0.6, (2, 32, 32)).astype(np.float32)
    body, how = network(), imputer_for(BANDS)
    called = Estimated(body, how, tiny.mean, tiny.std)
    red, blue = BandInput("optical", 640, 670), BandInput("optical", 455, 520)
    told = torch.from_numpy(called.describe([red, blue]))
    whole = how.given_only(["red", "blue"])(image)
    with torch.no_grad():
        got = called(torch.from_numpy(image)[None], told)
        wanted = Fixed(body, BANDS, tiny.mean, tiny.std)(torch.from_numpy(whole)[None], told)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_of_samples_with_different_bands(tiny: ModelSpec) -> None:
    """What is padded, and what the network has no place for, plays no part."""
    rng = np.random.default_rng(2)
    called = Estimated(network(), imputer_for(BANDS), tiny.mean, tiny.std)
    edges = {"blue": (455, 520), "red": (640, 670), "nir": (840, 870), "cirrus": (1360, 1390)}
    pixels = torch.from_numpy(rng.uniform(0, 0.6, (2, 3, 8, 8)).astype(np.float32))
    sets = (("red", "cirrus", "blue"), ("nir", "red"))
    told = np.zeros((2, 3, 1), np.float32)
    present = np.ones((2, 3), bool)
    for row, names in enumerate(sets):
        inputs = [BandInput("optical", *edges[name]) for name in names]
        told[row, : len(names)] = called.describe(inputs)
        present[row, len(names) :] = False
    with torch.no_grad():
        both = called(pixels, torch.from_numpy(told), torch.from_numpy(present))
        kept = ([0, 2], [0, 1])
        for row, at in enumerate(kept):
            one = called(pixels[row : row + 1, at], torch.from_numpy(told[row, at]))
            torch.testing.assert_close(both[row : row + 1], one)


def test_validation_looks_at_the_bands_that_prediction_does() -> None:
    """Of every sensor, whose names say more than its wavelengths: Sentinel-2 has two in the near infrared."""
    six = models.get("ukis-any-l1c")
    called = Estimated(nn.Identity(), imputer_for(six.bands))
    tried = 0
    for name in sensors.names():
        bands = [band for band in sensors.get(name).bands if band.kind == "reflectance" and band.min_nm]
        if len(missing_bands(bands, six)):
            continue
        at, _ = choose_bands(bands, six)
        sample = Sample(np.zeros((len(bands), 1, 1), "f4"), tuple(bands), np.ones((1, 1), "u1"), 30.0)
        kept = among(sample, called.takes)
        places = called.describe([BandInput.from_band(band) for band in kept.bands]).ravel().astype(int)
        needs = [need for need in six.bands if need not in lacking(bands, six)]
        mine = {six.bands[place]: band.name for place, band in zip(places, kept.bands, strict=True)}
        assert mine == {need: bands[i].name for need, i in zip(needs, at, strict=True)}, name
        tried += 1
    assert tried >= 10


def test_of_two_bands_that_would_do_the_nearer_is_taken() -> None:
    called = Estimated(nn.Identity(), imputer_for(BANDS))
    edge, nir = BandInput("optical", 773, 793), BandInput("optical", 855, 875)
    assert called.describe([edge, nir]).ravel().tolist() == [-1, 3]
    assert called.describe([edge]).ravel().tolist() == [3]
    assert called.describe([BandInput("elevation")]).ravel().tolist() == [-1]


def test_another_training_does_not_go_on_in_the_same_folder(
    tiny: ModelSpec, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "used"
    first = tune(tiny, data, out, epochs=1, length=1)
    assert tune(tiny, data, out, epochs=1, length=1).sha256 == first.sha256  # the same goes on
    weights = written(tmp_path / "other.safetensors", seed=5)
    other = replace(tiny, weights=str(weights), sha256=digest(weights.read_bytes()))
    for spec, more, named in (
        (tiny, {"estimate": True}, "network"), (tiny, {"only": ["logits."]}, "network"),
        (other, {}, "network"),
        (tiny, {"recipe": {"flip": 0.0}}, "recipe"), (tiny, {"batch": 4}, "data"),
        (tiny, {"recipe": {"seed": 3}}, "recipe"),
    ):  # fmt: skip
        with pytest.raises(CloudMaskError, match=rf"a training with other settings \(.*{named}"):
            tune(spec, data, out, **{"epochs": 1, "length": 1, **more})


def test_layers_of_which_nothing_is_trained_keep_their_statistics(data: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    config = {
        "name": "start", "data": {"sources": ["l8"], "batch": 2, "length": 1}, "recipe": {"size": 32},
        "network": {"architecture": "cloud-unet", "bands": list(BANDS), "classes": ["clear", "cloud"],
                    "settings": {"bands": 4, "classes": 2}},
        "loop": {"epochs": 1},
    }  # fmt: skip
    train(Plan.of(config), data=data, out=start)
    before = read_weights(start / "start.safetensors")
    head = [name for name in before if name.startswith("logits")]
    tuned = tune(start / "start.json", data, tmp_path / "t", only=["logits"], recipe={"size": 32})
    after = read_weights(tmp_path / "t" / "t.safetensors")
    assert tuned.architecture == "cloud-unet"
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(head)


def test_what_a_model_owes_stays_on_its_card(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    told = replace(tiny, citation="somebody (2019)", limits="knows no snow", licence="CC-BY-4.0")
    mine = tune(told, data, tmp_path / "mine", epochs=1, length=1, dev=0)
    assert (mine.citation, mine.licence) == ("somebody (2019)", "CC-BY-4.0")
    assert mine.limits == "Of begun: knows no snow"
    assert mine.threshold is None  # none was chosen


def test_only_the_head_and_what_is_named_are_trained(tiny: ModelSpec) -> None:
    network = begin({"start": tiny, "classes": CLASSES, "only": ["head", "up."]}).kept
    trained = {name.split(".")[0] for name, each in network.named_parameters() if each.requires_grad}
    assert trained == {"logits", "up"}


def test_what_cannot_be_is_refused(tiny: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match="takes any"):
        begin({"start": "spectral", "classes": models.get("spectral").classes, "estimate": True})
    with pytest.raises(CloudMaskError, match="several networks"):
        begin({"start": "ukis-any-l1c", "classes": CLASSES})
    with pytest.raises(CloudMaskError, match=r"is an ONNX graph.*label_folder"):
        begin({"start": replace(tiny, runtime="onnx", architecture=""), "classes": CLASSES})
    with pytest.raises(CloudMaskError, match="green, red, nir, elevation: other bands"):
        begin({"start": replace(tiny, aux=("elevation",)), "classes": CLASSES, "bands": ["red"]})
    with pytest.raises(CloudMaskError, match="gives probabilities"):
        begin({"start": replace(tiny, activation=None), "classes": CLASSES})
    with pytest.raises(BandError, match="coastal"):
        imputer_for(["coastal", "red"])
    with pytest.raises(BandError, match="cannot be estimated from"):
        BandImputer(("a", "b"), (0, 0), ((1, 0), (0, 1))).given_only([])


def test_training_is_reproducible_and_goes_on_where_it_stopped(
    tiny: ModelSpec, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = {
        "name": "t",
        "data": {"train": "train", "sources": ["l8"], "batch": 2, "length": 4},
        "recipe": {"size": 32, "least_bands": 2},
        "network": {"start": tiny, "classes": CLASSES, "estimate": True},
        "loss": {"distil": {"model": tiny, "weight": 0.5}},
        "loop": {"epochs": 2, "ema": 0.9},
    }
    hashes = [
        train(Plan.of(config), data=data, out=tmp_path / name)["sha256"] for name in ("first", "second")
    ]
    assert hashes[0] == hashes[1]
    record = json.loads((tmp_path / "first" / "record.json").read_text())
    assert record["sha256"] == model_of(tmp_path / "first" / "t.safetensors").sha256
    stopped = {**config, "loop": {**config["loop"], "save_every": 1}}
    saved = Trainer._save

    def stop(self: Trainer) -> None:
        saved(self)
        if self.progress.total == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(Plan.of(stopped), data=data, out=tmp_path / "stopped")
    monkeypatch.undo()
    assert train(Plan.of(stopped), data=data, out=tmp_path / "stopped")["sha256"] == hashes[0]
    other = train(Plan.of({**config, "loss": {}}), data=data, out=tmp_path / "third")  # the teacher is heard
    assert other["sha256"] != hashes[0]


def test_auto_does_not_know_it(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    """What a user trained is taken by name only, without a warning on its evidence."""
    import warnings

    mine = tune(tiny, data, tmp_path / "mine", epochs=1, length=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        to_xarray(read_patch(data / "val" / "l8" / "v0.npz")).cloudmask.predict(model=mine)
    assert mine.name not in [spec.name for spec in models.automatic()]


def test_a_thermal_band_is_a_band_and_no_aux_input(tiny: ModelSpec, data: Path, tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match="lwir11") as refused:
        tune(tiny, data, tmp_path / "thermal", bands=[*BANDS, "lwir11"])
    assert "aux" not in str(refused.value)
