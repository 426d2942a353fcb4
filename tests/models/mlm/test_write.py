"""A model that is exported and loaded again says the same; its item keeps the extension's rules."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.helpers import BANDS, CLASSES, CONFIG, as_onnx, as_safetensors, mlp, sha, wide
from tests.models.items import check_core, check_mlm
from tests.scenes import NAMES, noise, scene
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models import arch, registry
from xcloudmask.models.convert import convert


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture
def spec(tmp_path):
    return models.load(
        as_safetensors(mlp(), tmp_path),
        architecture="pixel-mlp",
        config=CONFIG,
        bands=BANDS,
        classes=CLASSES,
        mean=[0.2],
        std=[0.1, 0.3],
        level="L2A",
        gsd=(20, 40),
        patch=32,
        overlap=10,
        threshold=0.4,
        licence="CC0-1.0",
    )


def test_an_exported_model_comes_back(tmp_path, spec):
    written = models.export(spec.name, tmp_path / "out")
    assert [path.name for path in written] == ["net.safetensors", "net.onnx", "net.json"]
    item = json.loads(written[-1].read_text())
    check_mlm(item, tmp_path / "out")
    check_core(item)
    again = models.load(written[-1], name="again")
    pixels = noise(2, 70, 50)
    da = scene(pixels, BANDS, level="L2A")
    for field in (
        "bands",
        "classes",
        "level",
        "gsd",
        "patch",
        "overlap",
        "threshold",
        "licence",
        "activation",
    ):
        assert getattr(again, field) == getattr(spec, field)
    expected = da.cloudmask.predict_proba("net").values
    np.testing.assert_array_equal(da.cloudmask.predict_proba("again").values, expected)
    np.testing.assert_array_equal(da.cloudmask.predict("again").values, da.cloudmask.predict("net").values)
    graph = models.load(
        written[1], name="graph", bands=BANDS, classes=CLASSES, activation="softmax", gsd=(20, 40),
        overlap=10, mean=spec.mean, std=spec.std,
    )  # fmt: skip
    np.testing.assert_allclose(da.cloudmask.predict_proba(graph).values, expected, atol=1e-4)
    alone = models.load(written[0], name="alone", bands=BANDS, classes=CLASSES)
    assert json.loads(alone.config) == CONFIG


def test_exports_are_the_same_bytes_every_time(tmp_path, spec):
    first, second = models.export(spec, tmp_path / "a"), models.export(spec, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_set_network_is_exported_without_a_graph(tmp_path):
    config = {"classes": 3, "width": 8, "heads": 2, "rounds": 1, "hidden": 8}
    path = as_safetensors(arch.build("spectral", config), tmp_path)
    models.load(path, name="any-exported", architecture="spectral", config=config, classes=CLASSES, patch=32)
    written = models.export("any-exported", tmp_path / "out")
    assert [path.name for path in written] == ["any-exported.safetensors", "any-exported.json"]
    check_mlm(json.loads(written[-1].read_text()), tmp_path / "out")
    again = models.load(written[-1], name="again")
    assert again.any_bands
    assert again.sha256 == sha(written[0].read_bytes())


def test_every_shipped_model_comes_back_with_its_card(tmp_path):
    from dataclasses import fields

    from xcloudmask.models.sources import shipped

    for name in shipped.names():
        spec = models.get(name)
        written = models.export(name, tmp_path)
        check_mlm(json.loads(written[-1].read_text()), tmp_path)
        again = models.load(written[-1], name="again", overwrite=True)
        moved = ("name", "version", "loader", "weights", "sha256")  # the note on the architecture is ours
        for field in fields(spec):
            if field.name not in moved and field.name != "config":
                assert getattr(again, field.name) == getattr(spec, field.name), field.name
        assert json.loads(again.config) == json.loads(spec.config)


def test_thresholds_and_what_is_said_of_missing_bands_come_back(tmp_path):
    (tmp_path / "net.onnx").write_bytes(as_onnx(wide()))
    plain = models.load(
        tmp_path / "net.onnx", bands=BANDS, classes=CLASSES, activation="softmax", threshold=0.65,
        shadow_threshold=0.7, patch=32, overlap=8,
    )  # fmt: skip
    three = as_onnx(torch.nn.Conv2d(3, 3, 1), bands=3)
    (tmp_path / "three.onnx").write_bytes(three)
    of_three = models.load(
        tmp_path / "three.onnx", bands=["green", *BANDS], classes=CLASSES, activation="softmax", patch=32
    )
    told = {"fills": True, "min_bands": 2, "spare": ("green",), "shadow_threshold": 0.35}
    for spec in (plain, replace(of_three, **told), replace(plain, name="one", fills=True, spare=("nir",))):
        written = models.export(spec, tmp_path / spec.name)
        check_mlm(json.loads(written[-1].read_text()), tmp_path / spec.name)
        again = models.load(written[-1], name="again", overwrite=True)
        for field in ("threshold", "shadow_threshold", "fills", "min_bands", "spare"):
            assert getattr(again, field) == getattr(spec, field), field
    few = scene(noise(1, 40, 40), BANDS[:1])  # nir is estimated
    expected = few.cloudmask.predict(replace(plain, fills=True))
    np.testing.assert_array_equal(few.cloudmask.predict(again), expected)
    assert again.needs == "1 or more of red, nir"


@pytest.mark.network
def test_the_default_model_comes_back(tmp_path):
    written = models.export("ukis-4band-l1c", tmp_path)
    check_mlm(json.loads(written[-1].read_text()), tmp_path)
    again = models.load(written[-1], name="again")
    # not that of the file in the package: its graph is let take windows of any side as it is loaded
    assert again.sha256 == sha(written[0].read_bytes())
    da = scene(noise(4, 256, 256), NAMES[:4])
    for call in ("predict", "predict_proba"):
        expected = getattr(da.cloudmask, call)("ukis-4band-l1c").values
        np.testing.assert_allclose(getattr(da.cloudmask, call)("again").values, expected, atol=1e-6)


def test_a_module_of_ones_own_is_exported_as_a_graph(tmp_path):
    module = torch.nn.Conv2d(2, 1, 3, padding=1)
    spec = models.register(
        module, name="mine", bands=BANDS, classes=["clear", "cloud"], activation="sigmoid", patch=32
    )
    written = models.export(spec, tmp_path)
    assert [path.name for path in written] == ["mine.onnx", "mine.json"]
    again = models.load(written[-1], name="again")
    da = scene(noise(2, 40, 40), BANDS)
    expected = da.cloudmask.predict_proba("mine").values
    np.testing.assert_allclose(da.cloudmask.predict_proba(again).values, expected, atol=1e-4)


def test_without_onnx_the_extra_is_named(tmp_path, spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CloudMaskError, match=r"needs the package onnx.*pip install 'xcloudmask\[train\]'"):
        models.export(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_how_a_network_is_joined_with_others_is_kept(tmp_path, spec):
    written = models.export(replace(spec, reduce="mean-logits"), tmp_path / "out")
    assert models.load(written[-1], name="again").reduce == "mean-logits"


def test_convert_takes_tensors_and_runs_nothing(tmp_path):
    from tests.models.weights.test_safety import Canary

    state = {f"module.{name}": value for name, value in mlp().state_dict().items()}
    torch.save({"epoch": 3, "model": {"state_dict": state}}, tmp_path / "net.pt")
    convert(tmp_path / "net.pt", tmp_path / "net.safetensors", prefix="module.")
    spec = models.load(
        tmp_path / "net.safetensors", architecture="pixel-mlp", config=CONFIG, bands=BANDS, classes=CLASSES
    )
    da = scene(noise(2, 32, 32), BANDS)
    with torch.inference_mode():
        expected = torch.softmax(mlp()(torch.from_numpy(da.values[None])), dim=1)[0].numpy()
    found = da.cloudmask.predict_proba(spec, scheme="native", working_resolution="native").values
    np.testing.assert_allclose(found, expected, atol=1e-5)

    canary = tmp_path / "canary"
    torch.save({"state_dict": state, "extra": Canary(canary)}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"posix\.system, which no network needs"):
        convert(tmp_path / "evil.pt", tmp_path / "evil.safetensors")
    assert not canary.exists()
    torch.save(mlp(), tmp_path / "module.pt")  # of a whole module the tensors are taken
    convert(tmp_path / "module.pt", tmp_path / "whole.safetensors")
    assert load_file(tmp_path / "whole.safetensors").keys() == mlp().state_dict().keys()
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match="no state dict"):
        convert(tmp_path / "empty.pt", tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        convert(tmp_path / "none.pt", tmp_path / "m.safetensors")
    with pytest.raises(CloudMaskError, match="must end with"):
        convert(tmp_path / "net.pt", tmp_path / "m.bin")
    assert not (tmp_path / "m.safetensors").exists()


def test_shared_tensors_are_converted(tmp_path):
    weight = torch.arange(4.0)
    torch.save({"a": weight, "b": weight, "c": weight[::2]}, tmp_path / "net.pt")
    assert convert(tmp_path / "net.pt", tmp_path / "net.safetensors") == ["a", "b", "c"]


def test_the_command_line(tmp_path, capsys, spec):
    from xcloudmask.cli import main

    torch.save(mlp().state_dict(), tmp_path / "net.pt")
    assert main(["models", "convert", str(tmp_path / "net.pt"), str(tmp_path / "out.safetensors")]) == 0
    assert "tensors" in capsys.readouterr().out
    assert main(["models", "export", "net", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "net.json") in capsys.readouterr().out
    assert main(["models", "fetch", "net"]) == 0
    assert main(["models", "show", "net"]) == 0
    told = capsys.readouterr().out
    assert "probability of 0.4" in told
    assert "CC0-1.0" in told
    assert main(["models"]) == 0
    assert re.search(r"net +L2A +20-40 m +red, nir\n +CC0-1.0", capsys.readouterr().out)
    assert main(["models", "convert", str(tmp_path / "net.pt")]) == 2
    assert "convert PATH OUT.safetensors" in capsys.readouterr().err
