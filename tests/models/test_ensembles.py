"""Several models as one."""

import dataclasses

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.models.helpers import BANDS, CLASSES, CONFIG, mlp
from tests.scenes import NAMES, noise, scene
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import registry
from xcloudmask.models.arch import build


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture
def three(tmp_path):
    names = []
    for seed in range(3):
        path = tmp_path / f"net{seed}.safetensors"
        save_file(mlp(seed).state_dict(), path)
        spec = models.load(
            path, architecture="pixel-mlp", config=CONFIG, bands=BANDS, classes=CLASSES, mean=[0.2],
            std=[0.1], patch=32, overlap=8, licence=("MIT", "CC0-1.0")[seed % 2],
        )  # fmt: skip
        names.append(spec.name)
    return names


DA = scene(noise(2, 70, 50), BANDS)


def test_an_ensemble_is_the_mean_of_its_members(three):
    spec = models.ensemble(three, name="all-three")
    each = [DA.cloudmask.predict_proba(name).values for name in three]
    assert np.abs(each[0] - each[1]).max() > 0.01
    found = DA.cloudmask.predict_proba("all-three")
    np.testing.assert_allclose(found.values, np.mean(each, axis=0), atol=1e-5)
    np.testing.assert_array_equal(DA.chunk(y=33).cloudmask.predict_proba(spec).values, found.values)
    assert spec.licence == "MIT; CC0-1.0"
    assert spec.description == "mean of net0, net1, net2"
    largest = np.max(each, axis=0)
    models.ensemble(three, name="largest", reduce="max")
    joined = DA.cloudmask.predict_proba("largest").values
    np.testing.assert_allclose(joined, largest / largest.sum(axis=0), atol=1e-5)


def test_an_ensemble_tells_how_far_its_members_disagree_on_cloud(three):
    models.ensemble(three, name="spread", uncertainty=True)
    da = DA.isel(y=slice(0, 32), x=slice(0, 32))
    each = [da.cloudmask.predict_proba(name).values for name in three]
    found = da.cloudmask.predict_proba("spread", uncertainty=True)
    np.testing.assert_allclose(found.values[-1], np.std(each, axis=0)[CLASSES.index("cloud")], atol=1e-5)
    np.testing.assert_allclose(found.values[:-1], np.mean(each, axis=0), atol=1e-5)


def test_an_ensemble_is_written_and_comes_back(three, tmp_path):
    models.ensemble(three, name="all-three")
    written = models.export("all-three", tmp_path / "out")
    again = models.load(written[-1], name="again")
    np.testing.assert_array_equal(
        DA.cloudmask.predict_proba(again).values, DA.cloudmask.predict_proba("all-three").values
    )


def test_sets_and_single_logits_can_be_joined(tmp_path):
    for seed in range(2):
        save_file(
            build("spectral", {"classes": 3}, seed=seed).state_dict(), tmp_path / f"set{seed}.safetensors"
        )
        models.load(
            tmp_path / f"set{seed}.safetensors", architecture="spectral", config={"classes": 3},
            classes=CLASSES, patch=32,
        )  # fmt: skip
        config = {"bands": 2, "classes": 1}
        save_file(build("pixel-mlp", config, seed=seed).state_dict(), tmp_path / f"one{seed}.safetensors")
        models.load(
            tmp_path / f"one{seed}.safetensors", architecture="pixel-mlp", config=config, bands=BANDS,
            classes=["clear", "cloud"], activation="sigmoid", patch=32,
        )  # fmt: skip
    for kind, da in (("set", scene(noise(4, 40, 40), NAMES[:4])), ("one", DA)):
        names = [f"{kind}0", f"{kind}1"]
        models.ensemble(names, name="both", overwrite=True)
        each = [da.cloudmask.predict_proba(name).values for name in names]
        both = da.cloudmask.predict_proba("both").values
        np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-5, err_msg=kind)
        again = models.load(models.export("both", tmp_path / kind)[-1], name=f"{kind}-again")
        assert again.any_bands == (kind == "set")
        np.testing.assert_allclose(da.cloudmask.predict_proba(again).values, both, atol=1e-6)


def test_what_cannot_be_joined_is_refused(three):
    with pytest.raises(CloudMaskError, match="two members or more, got 1"):
        models.ensemble(three[:1], name="alone")
    with pytest.raises(CloudMaskError, match="'ukis-4band-l1c' cannot be a member"):
        models.ensemble([three[0], "ukis-4band-l1c"], name="mixed")
    other = dataclasses.replace(models.get(three[1]), std=(0.3,))
    with pytest.raises(CloudMaskError, match=r"must agree in std: 'net0' has \(0.1,\), 'net1' has \(0.3,\)"):
        models.ensemble([three[0], other], name="mixed")
    models.ensemble(three, name="all-three")
    with pytest.raises(CloudMaskError, match="'all-three' cannot be a member"):
        models.ensemble([three[0], "all-three"], name="nested")
    with pytest.raises(CloudMaskError, match=r"a list of models: members=\['net0', \.\.\.\]"):
        models.ensemble(three[0], name="letters")
    with pytest.raises(CloudMaskError, match=r"name='': say how the ensemble is to be called"):
        models.ensemble(three, name="")
    with pytest.raises(OptionError, match=r"unknown reduce 'median'.*Allowed: mean, max, min\."):
        models.ensemble(three, name="mixed", reduce="median")
    odds = [dataclasses.replace(models.get(each), activation=None) for each in three]
    with pytest.raises(CloudMaskError, match="not with probabilities: those of 'net0' cannot be joined"):
        models.ensemble(odds, name="mixed")
    with pytest.raises(ValueError, match="exists already"):
        models.ensemble(three[:2], name="all-three")
