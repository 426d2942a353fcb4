"""Several models as one."""

import dataclasses
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.helpers import BANDS, CLASSES, CONFIG, as_onnx, mlp
from tests.scenes import NAMES, noise, scene
from xcloudmask import models
from xcloudmask.engine.ensemble import _mean_of_logits
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import registry
from xcloudmask.models.arch import build
from xcloudmask.models.network import load_network


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
    weighted = models.ensemble(three, name="weighted", weights=[1, 1, 2])
    found = DA.cloudmask.predict_proba(weighted).values
    np.testing.assert_allclose(found, np.average(each, axis=0, weights=[1, 1, 2]), atol=1e-5)
    for reduce in ("max", "min", "median"):
        expected = getattr(np, reduce)(each, axis=0)
        models.ensemble(three, name=reduce, reduce=reduce)
        joined = DA.cloudmask.predict_proba(reduce).values
        np.testing.assert_allclose(joined, expected / expected.sum(axis=0), atol=1e-5)


def test_the_mean_of_logits_is_that_of_the_networks_own(three):
    networks = [load_network(models.get(name)).body for name in three]
    pixels = (torch.from_numpy(DA.values)[None] - 0.2) / 0.1
    with torch.inference_mode():
        logits = [net(pixels)[0] for net in networks]
    expected = torch.softmax(torch.stack(logits).mean(0), dim=0).numpy()
    models.ensemble(three, name="logits", reduce="mean-logits")
    np.testing.assert_allclose(DA.cloudmask.predict_proba("logits").values, expected, atol=1e-6)


def test_an_ensemble_is_joined_as_its_first_members_authors_do(three):
    for reduce in ("max", "mean-logits"):
        first = dataclasses.replace(models.get(three[0]), reduce=reduce)
        assert models.ensemble([first, three[1]], name="both", overwrite=True).reduce == reduce
        assert models.ensemble([three[1], first], name="both", overwrite=True).reduce == "mean"
    with pytest.raises(CloudMaskError, match="with reduce='mean'"):
        models.ensemble([first, three[1]], name="both", weights=[1, 2], overwrite=True)


def test_logits_that_exclude_one_another_are_averaged_too():
    sure = [np.array([[[[1 - 1e-30]], [[1e-30]], [[0.0]]]], np.float32)]
    sure.append(sure[0][:, [1, 0, 2]])
    joined = _mean_of_logits(np.stack(sure), axis=0)
    np.testing.assert_allclose(joined[0, :, 0, 0], [1, 1, 0], atol=1e-6)


def test_members_of_any_kind_each_with_its_own_scaling(three, tmp_path):
    """An ONNX graph, a module of the user's, tensors: each is given the windows, scaled as it wants them."""
    (tmp_path / "graph.onnx").write_bytes(as_onnx(mlp(5)))
    how = {"bands": BANDS, "classes": CLASSES, "patch": 32, "overlap": 8}
    models.load(tmp_path / "graph.onnx", activation="softmax", mean=[0.3], **how)
    models.register(mlp(6), name="own", std=[0.5, 0.4], **how)
    names = [three[0], "graph", "own"]
    each = [DA.cloudmask.predict_proba(name).values for name in names]
    spec = models.ensemble(names, name="kinds", uncertainty=True)
    assert spec.runtime == "onnx"
    found = DA.chunk(y=33).cloudmask.predict_proba("kinds").values
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-5)
    hash(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_of_one_score_of_cloud_that_score_is_joined():
    pixels = noise(1, 32, 32)
    cloud = []
    for shift in (-1, 0, 2):
        name = f"shifted{shift + 1}"
        shifted = partial(torch.add, other=shift)
        models.register(
            shifted, name=name, bands=["red"], classes=["clear", "cloud"], activation="sigmoid", patch=32
        )
        cloud.append(1 / (1 + np.exp(-(pixels[0] + shift))))
    for reduce in ("mean", "max", "min", "median"):
        models.ensemble(["shifted0", "shifted1", "shifted3"], name=reduce, reduce=reduce)
        found = scene(pixels, ["red"]).cloudmask.predict_proba(reduce, working_resolution="native").values
        expected = getattr(np, reduce)(cloud, axis=0)
        np.testing.assert_allclose(found, [1 - expected, expected], atol=1e-5)


def test_thin_or_thick_is_no_disagreement_about_cloud():
    classes, pixels = ["clear", "thick_cloud", "thin_cloud"], noise(1, 32, 32)
    for name, odds in (("thick", [0.2, 0.7, 0.1]), ("thin", [0.2, 0.1, 0.7]), ("clear", [0.8, 0.1, 0.1])):
        models.register(partial(constant, odds=odds), name=name, bands=["red"], classes=classes, patch=32)
    for other, expected in (("thin", 0), ("clear", 0.3)):
        models.ensemble(["thick", other], name="two", uncertainty=True, overwrite=True)
        found = scene(pixels, ["red"]).cloudmask.predict_proba("two", uncertainty=True, scheme="native")
        np.testing.assert_allclose(found.values[-1], expected, atol=1e-6)


def constant(pixels, odds):
    return torch.log(torch.tensor(odds)).reshape(1, -1, 1, 1).expand(len(pixels), -1, *pixels.shape[2:])


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


@pytest.mark.parametrize(("largest", "expected"), [((96, 64), 64), ((96, None), None), ((96, 32), 32)])
def test_windows_are_as_large_as_every_member_takes_them(largest, expected, three):
    members = [
        dataclasses.replace(models.get(name), largest_patch=side)
        for name, side in zip(three[:2], largest, strict=True)
    ]
    assert models.ensemble(members, name="joined").largest_patch == expected


def test_what_cannot_be_joined_is_refused(three):
    with pytest.raises(CloudMaskError, match="two members or more, got 1"):
        models.ensemble(three[:1], name="alone")
    other = dataclasses.replace(models.get(three[1]), bands=("red", "blue"))
    with pytest.raises(CloudMaskError, match=r"must agree in bands: 'net0' has \('red', 'nir'\), 'net1' has"):
        models.ensemble([three[0], other], name="mixed")
    zeros = dataclasses.replace(models.get(three[1]), gaps="zero")
    with pytest.raises(CloudMaskError, match="must agree in gaps: 'net0' has nearest, 'net1' has zero"):
        models.ensemble([three[0], zeros], name="mixed")
    fixed = dataclasses.replace(models.get(three[1]), patch=64, patch_fixed=True)
    with pytest.raises(CloudMaskError, match="'net1' takes those of 64 pixels alone, 'net0' those of 32"):
        models.ensemble([three[0], fixed], name="mixed")
    for wrong in ([1.0], [1, -1, 1]):
        with pytest.raises(CloudMaskError, match="pass 3 numbers above 0"):
            models.ensemble(three, name="mixed", weights=wrong)
    with pytest.raises(CloudMaskError, match="with reduce='mean'"):
        models.ensemble(three, name="mixed", weights=[1, 2, 3], reduce="max")
    nothing = [dataclasses.replace(models.get(each), classes=("land", "water", "snow")) for each in three]
    with pytest.raises(CloudMaskError, match="none of land, water, snow is"):
        models.ensemble(nothing, name="mixed", uncertainty=True)
    models.ensemble(three, name="all-three")
    with pytest.raises(CloudMaskError, match="'all-three' is an ensemble already"):
        models.ensemble([three[0], "all-three"], name="nested")
    with pytest.raises(CloudMaskError, match=r"a list of models: members=\['net0', \.\.\.\]"):
        models.ensemble(three[0], name="letters")
    with pytest.raises(CloudMaskError, match=r"name='': pass a name for the ensemble"):
        models.ensemble(three, name="")
    with pytest.raises(
        OptionError, match=r"unknown reduce 'mode'.*Allowed: mean, mean-logits, max, min, median\."
    ):
        models.ensemble(three, name="mixed", reduce="mode")
    with pytest.raises(ValueError, match="exists already"):
        models.ensemble(three[:2], name="all-three")
