"""Files become models: each form gives what the module gives, and says what it lacks."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.helpers import (
    BANDS,
    CLASSES,
    CONFIG,
    as_onnx,
    as_pt2,
    as_safetensors,
    mlp,
    sha,
    wide,
)
from tests.scenes import noise, scene
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError, UnitError, WeightsError
from xcloudmask.models import registry
from xcloudmask.models.arch import build
from xcloudmask.models.card import from_json, text, to_json
from xcloudmask.models.network import load_network
from xcloudmask.models.sources import shipped
from xcloudmask.types import AuxInput


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture
def pixels():
    return noise(2, 50, 40)


def of(module, pixels, mean=0.0, std=1.0):
    with torch.inference_mode():
        return torch.softmax(module((torch.from_numpy(pixels[None]) - mean) / std), dim=1)[0].numpy()


def proba(spec, pixels, **more):
    da = scene(pixels, BANDS)
    return da.cloudmask.predict_proba(spec.name, scheme="native", working_resolution="native", **more).values


def test_safetensors_and_a_named_architecture(tmp_path, pixels):
    path = as_safetensors(mlp(), tmp_path)
    spec = models.load(
        path, architecture="pixel-mlp", config=CONFIG, bands=BANDS, classes=CLASSES, mean=[0.2],
        std=[0.1, 0.3],
        level="L1C", gsd=(20, 40), patch=32, threshold=0.4,
    )  # fmt: skip
    assert spec.sha256 == sha(path.read_bytes())
    assert (spec.name, spec.level, spec.patch, spec.overlap, spec.runtime) == ("net", "toa", 32, 8, "torch")
    assert models.get("net") is spec
    hash(spec)
    std = torch.tensor([0.1, 0.3])[:, None, None]
    np.testing.assert_allclose(proba(spec, pixels), of(mlp(), pixels, 0.2, std), atol=1e-5)


def test_a_weights_file_that_changes_later_is_noticed(tmp_path):
    path = as_safetensors(mlp(), tmp_path)
    spec = models.load(path, architecture="pixel-mlp", config=CONFIG, bands=BANDS, classes=CLASSES)
    as_safetensors(mlp(1), tmp_path)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_network(spec)


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_graphs(tmp_path, pixels, form):
    path = tmp_path / f"net.{form}"
    path.write_bytes(as_onnx(wide()) if form == "onnx" else as_pt2(wide()))
    spec = models.load(path, bands=BANDS, classes=CLASSES, activation="softmax", patch=32, overlap=8)
    assert spec.runtime == ("onnx" if form == "onnx" else "torch")
    assert spec.patch_fixed == (form == "pt2")
    found = proba(spec, pixels[:, :32, :32])
    np.testing.assert_allclose(found, of(wide(), pixels[:, :32, :32]), atol=1e-5)
    lazy = scene(pixels, BANDS).chunk(y=17, x=23)
    there = lazy.cloudmask.predict_proba(spec.name, scheme="native", working_resolution="native").values
    np.testing.assert_allclose(there, proba(spec, pixels), atol=1e-5)


def test_one_channel_tells_cloud(tmp_path):
    pixels = noise(1, 32, 32)
    for activation, body in (("sigmoid", torch.nn.Identity()), ("complement", torch.nn.Sigmoid())):
        path = tmp_path / f"{activation}.onnx"
        path.write_bytes(as_onnx(body, bands=1))
        spec = models.load(path, bands=["red"], classes=["clear", "cloud"], activation=activation, patch=32)
        found = scene(pixels, ["red"]).cloudmask.predict_proba(spec.name, working_resolution="native").values
        np.testing.assert_allclose(found[1], 1 / (1 + np.exp(-pixels[0])), atol=1e-5)
    path = tmp_path / "complement.pt2"
    out = torch.nn.Conv2d(2, 1, 1).eval()
    path.write_bytes(as_pt2(torch.nn.Sequential(out, torch.nn.Sigmoid())))
    spec = models.load(path, name="c", bands=BANDS, classes=["clear", "cloud"], activation="complement")
    pixels = noise(2, 32, 32)
    found = scene(pixels, BANDS).cloudmask.predict_proba("c", working_resolution="native").values
    with torch.inference_mode():
        expected = torch.sigmoid(out(torch.from_numpy(pixels[None])))[0, 0].numpy()
    np.testing.assert_allclose(found[1], expected, atol=1e-5)


def test_units_are_folded_into_the_normalisation(tmp_path, pixels):
    path = as_safetensors(mlp(), tmp_path)
    how = {"architecture": "pixel-mlp", "config": CONFIG, "bands": BANDS, "classes": CLASSES}
    spec = models.load(path, **how, units="reflectance*10000", mean=[2000], std=[1000])
    assert spec.mean == (0.2,)
    assert spec.std == (0.1,)
    with pytest.raises(UnitError, match="units='reflectance"):
        models.load(path, **how, mean=[2000], std=[1000], overwrite=True)
    with pytest.raises(OptionError, match="unknown units 'DN'"):
        models.load(path, **how, units="DN", overwrite=True)
    scaled = models.load(path, **how, units="reflectance*100", name="scaled")
    assert scaled.std == (0.01,)
    np.testing.assert_allclose(proba(scaled, pixels), of(mlp(), pixels * 100), atol=1e-5)


def test_a_cards_threshold_is_used_unless_another_is_named(tmp_path, pixels):
    path = as_safetensors(mlp(), tmp_path)
    how = {"architecture": "pixel-mlp", "config": CONFIG, "bands": BANDS, "classes": CLASSES}
    spec = models.load(path, **how, threshold=0.05, patch=32)
    da = scene(pixels, BANDS)
    cloud = da.cloudmask.predict_proba("net").values[1]
    mask = da.cloudmask.predict(spec.name)
    np.testing.assert_array_equal(mask.values == 1, cloud >= 0.05)
    assert mask.attrs["threshold"] == 0.05
    stricter = da.cloudmask.predict(spec.name, threshold=0.6)
    np.testing.assert_array_equal(stricter.values == 1, cloud >= 0.6)
    assert "threshold" not in da.cloudmask.predict_proba("net").attrs


def test_a_threshold_of_shadow_may_be_said_as_that_of_cloud(tmp_path):
    path, how = as_safetensors(mlp(), tmp_path), {"architecture": "pixel-mlp", "config": CONFIG}
    how |= {"bands": BANDS, "classes": CLASSES, "patch": 32}
    spec = models.load(path, **how, shadow_threshold=0.6)
    assert (spec.threshold, spec.shadow_threshold) == (None, 0.6)
    mask = scene(noise(2, 40, 40), BANDS).cloudmask.predict(spec)
    assert mask.attrs["shadow_threshold"] == 0.6
    assert models.load(path, **how, overwrite=True).shadow_threshold is None
    with pytest.raises(ValueError, match="shadow_threshold must lie between 0 and 1, got 1"):
        models.load(path, **how, shadow_threshold=1, overwrite=True)


def test_a_set_network_takes_any_bands(tmp_path):
    config = {"classes": 3, "width": 8, "heads": 2, "rounds": 1, "hidden": 8}
    path = as_safetensors(build("spectral", config), tmp_path)
    spec = models.load(path, architecture="spectral", config=config, classes=CLASSES, patch=32)
    assert spec.any_bands
    assert spec.bands == ()
    with pytest.raises(CloudMaskError, match="leave bands= out"):
        models.load(path, architecture="spectral", classes=CLASSES, bands=BANDS, name="x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "pixel-mlq"}, "did you mean 'pixel-mlp'"),
        ({"architecture": None}, "pass architecture="),
        ({"config": {"bands": 2}}, r"config=\{'bands': 2\}, has 2 output classes but 3 were given"),
        ({"config": {"bands": 2, "classes": 3, "hidden": 8}}, r"weight \(4 x 2.*, not 8 x 2.*another shape"),
        ({"config": {"band": 2}}, "did you mean 'bands'"),
        ({"classes": None}, r"output channels mean: classes=\[\.\.\.\]"),
        ({"bands": None}, r"input channels are, in order: bands=\[\.\.\.\]"),
        ({"activation": "softmx"}, "did you mean 'softmax'"),
        ({"level": "L9"}, "unknown level"),
        ({"sha256": "0" * 64}, "expected 0000"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, words):
    path = as_safetensors(mlp(), tmp_path)
    how = {"architecture": "pixel-mlp", "config": CONFIG, "bands": BANDS, "classes": CLASSES, **change}
    with pytest.raises(CloudMaskError, match=words):
        load_network(models.load(path, **how))


def test_settings_are_compared_with_what_is_told(tmp_path):
    config = {"bands": 4, "classes": 3, "encoder": "mobilenet-v2"}
    path = as_safetensors(build("unet", config), tmp_path)
    how = {"architecture": "unet", "config": config, "classes": CLASSES, "patch": 64, "overwrite": True}
    spec = models.load(path, bands=[*BANDS, "blue"], aux=["elevation"], **how)
    assert len(spec.bands) + len(spec.aux) == 4
    with pytest.raises(
        WeightsError, match=r"unet with config=.*has 4 input bands but 3 were given.*aux=\[\.\.\.\] together"
    ):
        models.load(path, bands=[*BANDS, "blue"], **how)
    with pytest.raises(
        WeightsError, match=r"has 3 output classes but 2 were given; if the last .*uncertainty=True"
    ):
        models.load(path, bands=[*BANDS, "blue", "green"], **{**how, "classes": CLASSES[:2]})
    with pytest.raises(
        WeightsError, match=r"dynamic-unet with config=\{\}, has 13 input bands but 2 were given"
    ):
        models.load(path, bands=BANDS, **{**how, "architecture": "dynamic-unet", "config": None})
    height = {"bands": 2, "width": 8, "levels": 2, "dem": True}  # which may be left out
    for aux in ([], ["elevation"]):
        models.load(
            as_safetensors(build("cloud-unet", height), tmp_path), bands=BANDS, aux=aux, name="with-height",
            **{**how, "architecture": "cloud-unet", "config": height, "classes": CLASSES[:2]},
            activation="sigmoid",
        )  # fmt: skip


def test_graphs_are_compared_with_what_is_told(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(as_onnx(wide()))
    with pytest.raises(CloudMaskError, match="activation= is required for ONNX"):
        models.load(path, bands=BANDS, classes=CLASSES)
    with pytest.raises(WeightsError, match="2 input bands but 3 were given"):
        models.load(path, bands=["red", "nir", "blue"], classes=CLASSES, activation="softmax")
    with pytest.raises(WeightsError, match="3 output classes but 2 were given"):
        models.load(path, bands=BANDS, classes=CLASSES[:2], activation="softmax")
    path.write_bytes(as_onnx(wide(), y={0: "n"}))
    with pytest.raises(WeightsError, match="exactly 2 windows"):
        models.load(path, bands=BANDS, classes=CLASSES, activation="softmax")
    path.write_bytes(as_onnx(wide(), x={0: "n"}, y={0: "n"}))
    assert models.load(path, bands=BANDS, classes=CLASSES, activation="softmax").patch_fixed
    with pytest.raises(CloudMaskError, match="windows of 32 alone"):
        models.load(path, bands=BANDS, classes=CLASSES, activation="softmax", patch=64)
    with pytest.raises(CloudMaskError, match=r"patch=64.*windows of 32 alone"):
        models.load(path, bands=BANDS, classes=CLASSES, activation="softmax", largest_patch=64)


def test_other_forms_are_refused_by_name(tmp_path):
    for name in ("net.pt", "net.pth", "net.pkl", "net.ckpt"):
        (tmp_path / name).write_bytes(b"anything")
        with pytest.raises(WeightsError, match=name):
            models.load(tmp_path / name)
    torch.save({"a": torch.ones(2)}, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"holds 1 tensors.*xcloudmask models convert"):
        models.load(tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="may hold pickles"):
        models.load(tmp_path / "net.joblib")
    with pytest.raises(OptionError, match="form of weights"):
        models.load("https://example.com/load.py", sha256="0" * 64)


def test_names_are_not_taken_by_accident(tmp_path):
    path = as_safetensors(mlp(), tmp_path)
    how = {"architecture": "pixel-mlp", "config": CONFIG, "bands": BANDS, "classes": CLASSES}
    models.load(path, **how)
    models.load(path, **how)
    with pytest.raises(ValueError, match="exists already"):
        models.load(path, **how, threshold=0.3)
    models.load(path, **how, threshold=0.3, overwrite=True)
    with pytest.raises(ValueError, match="'auto'"):
        models.load(path, **how, name="auto")


def test_a_remote_file_needs_its_hash(web, tmp_path):
    data = as_safetensors(mlp(), tmp_path).read_bytes()
    web.files["/net.safetensors"] = data
    how = {"architecture": "pixel-mlp", "config": CONFIG, "bands": BANDS, "classes": CLASSES}
    with pytest.raises(WeightsError, match="Pass sha256="):
        models.load(f"{web.url}/net.safetensors", **how)
    assert web.asked == []
    spec = models.load(f"{web.url}/net.safetensors", sha256=sha(data).upper(), **how)
    load_network(spec)
    assert len(web.asked) == 1


def test_cards_survive_json_and_read_well(tmp_path):
    path = as_safetensors(mlp(), tmp_path)
    spec = models.load(
        path,
        architecture="pixel-mlp",
        config=CONFIG,
        bands=BANDS,
        classes=CLASSES,
        mean=[0.1, 0.2],
        threshold=0.3,
    )
    assert from_json(to_json(spec), "x") == spec
    for name in ("ukis-6band-l1c", "ukis-4band-l2a", "spectral", "omnicloudmask", "net"):
        assert from_json(to_json(models.get(name)), "x") == models.get(name)
        lines = text(models.get(name)).splitlines()
        assert max(len(line) for line in lines if "  weights " not in line) <= 100  # a path is not broken
    told = models.show("net")
    for words in (
        "red, nir",
        "(x - 0.1, 0.2) / 1",
        "probability of 0.3",
        spec.sha256,
        "pixel-mlp",
        "unknown",
    ):
        assert words in told
    assert json.loads(to_json(spec))["config"] == CONFIG
    beside = dataclasses.replace(spec, weights="net.safetensors", loader="os:system")
    (tmp_path / "card.json").write_text(to_json(beside))
    assert models.load(tmp_path / "card.json") == spec
    with pytest.raises(CloudMaskError, match="leave threshold out"):
        models.load(tmp_path / "card.json", threshold=0.5)
    (tmp_path / "card.json").write_text(to_json(dataclasses.replace(beside, weights="../net.safetensors")))
    with pytest.raises(WeightsError, match="leads out"):
        models.load(tmp_path / "card.json")
    for change in ({"weights": "net.pt"}, {"weights": "net.h5"}, {"family": "omnicloudmask"}):
        (tmp_path / "card.json").write_text(to_json(dataclasses.replace(beside, **change)))
        with pytest.raises(WeightsError, match="load the weights themselves"):
            models.load(tmp_path / "card.json")
    named = json.loads(to_json(beside))
    for name in ("../evil", ".evil", "a/b", "a\\b", "a b", "a\n", ""):  # files are called after it
        (tmp_path / "card.json").write_text(json.dumps(named | {"name": name}))
        with pytest.raises(CloudMaskError, match="a name is of letters"):
            models.load(tmp_path / "card.json")
    (tmp_path / "card.json").write_text(to_json(dataclasses.replace(beside, sha256="")))
    with pytest.raises(WeightsError, match="no hash"):
        models.load(tmp_path / "card.json")
    with pytest.raises(WeightsError, match="format 1"):
        from_json("{}", "x.json")
    with pytest.raises(OptionError, match="did you mean 'bands'"):
        from_json('{"format": 1, "bandz": []}', "x.json")
    with pytest.raises(WeightsError, match="missing"):
        from_json('{"format": 1, "bands": ["red"]}', "x.json")


def test_a_cards_channels_must_be_those_of_its_weights(tmp_path):
    how = {"architecture": "pixel-mlp", "config": CONFIG, "bands": BANDS, "classes": CLASSES}
    tensors = models.load(as_safetensors(mlp(), tmp_path), **how)
    (tmp_path / "graph.onnx").write_bytes(as_onnx(wide(), x={0: "n"}, y={0: "n"}))
    graph = models.load(tmp_path / "graph.onnx", bands=BANDS, classes=CLASSES, activation="softmax")
    for spec in (tensors, graph):
        beside = dataclasses.replace(spec, name=f"{spec.name}-card", weights=Path(spec.weights).name)
        for change, says in (
            (
                {"bands": ("red", "nir", "blue")},
                r"of which .*card\.json is the card, has 2 input bands but 3 were given",
            ),
            ({"aux": (AuxInput("elevation"),)}, "has 2 input bands but 3 were given"),
            ({"classes": CLASSES[:2]}, "has 3 output classes but 2 were given"),
            ({"bands": (), "any_bands": True}, "says any_bands, and .* takes fixed ones"),
        ):
            wrong = dataclasses.replace(beside, mean=None, std=None, **change)
            (tmp_path / "card.json").write_text(to_json(wrong))
            with pytest.raises(WeightsError, match=says):
                models.load(tmp_path / "card.json")
        (tmp_path / "card.json").write_text(to_json(beside))
        assert models.load(tmp_path / "card.json").bands == tuple(BANDS)


def test_weights_that_lie_in_the_package_are_found_without_torch(tmp_path, monkeypatch):
    path = as_safetensors(mlp(), tmp_path, "tiny.safetensors")
    spec = models.load(path, architecture="pixel-mlp", config=CONFIG, bands=BANDS, classes=CLASSES)
    (tmp_path / "tiny.json").write_text(to_json(spec))
    (tmp_path / "lonely.json").write_text("{}")
    assert shipped.names(tmp_path) == ["tiny"]
    found = shipped.read("tiny", tmp_path)
    assert found.weights == "package:tiny.safetensors"
    assert found.sha256 == spec.sha256
    code = (
        "import sys; from pathlib import Path; from xcloudmask.models.sources import shipped; "
        f"print(shipped.read('tiny', Path({str(tmp_path)!r})).bands, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('red', 'nir') False"
