"""Published systems load in one call: a file, a folder, several files, a name that is known.

The networks are OmniCloudMask's two with random weights under the names of its files, so that any clone can
run this; what they answer is held by the tests of each system.
"""

import hashlib

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import xcloudmask
from tests.models.smp_networks import NETWORKS, filled, renamed
from xcloudmask import models
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import registry
from xcloudmask.models.arch import build
from xcloudmask.models.convert import convert
from xcloudmask.models.network import load_network
from xcloudmask.models.published import known
from xcloudmask.models.weights import fetch

NATIVE = {"patch_size": 64, "overlap": 16, "working_resolution": "native"}


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    """Names that these tests take stay theirs."""
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture
def folder(tmp_path):
    """Two files as they are published, in a folder of their own."""
    folder = tmp_path / "ocm"
    folder.mkdir()
    for name in ("Unet, tu-regnety_004", "Unet, tu-edgenext_small"):
        network = NETWORKS[name]
        tensors = filled(renamed(build("unet", network.config).state_dict(), network.names))
        tensors["segmentation_head.0.weight"] = torch.randn(4, 16, 3, 3, generator=torch.manual_seed(0))
        tensors["segmentation_head.0.bias"] = torch.zeros(4)
        save_file(tensors, folder / f"{name[9:]}.safetensors")
    return folder


@pytest.fixture
def scene():
    values = np.random.default_rng(0).random((3, 96, 80), dtype=np.float32) * 0.5
    return xr.DataArray(
        values,
        dims=("band", "y", "x"),
        coords={"band": ["red", "green", "nir"], "y": np.arange(96) * -10.0, "x": np.arange(80) * 10.0},
        attrs={"crs": "EPSG:32632"},
    )


def test_a_file_needs_no_further_argument(folder, scene):
    spec = models.load(folder / "regnety_004.safetensors")
    assert (spec.family, spec.bands) == ("omnicloudmask", ("red", "green", "nir"))
    proba = scene.cloudmask.predict_proba(spec.name, **NATIVE)
    body = load_network(spec).body
    assert isinstance(body, torch.nn.Module)
    assert not np.allclose(proba.values[0], proba.values[0, 0, 0])


@pytest.mark.parametrize("how", ["folder", "files"])
def test_several_files_are_the_ensemble_of_their_authors(folder, how):
    files = sorted(folder.iterdir())
    spec = models.load(folder if how == "folder" else files, name="pair", overwrite=True)
    assert [member.family for member in spec.members] == ["omnicloudmask"] * 2
    assert (spec.name, spec.reduce, spec.patch, spec.overlap) == ("pair", "mean-logits", 1000, 300)
    assert models.load(files, name="widest", reduce="max", overwrite=True).reduce == "max"
    with pytest.raises(CloudMaskError, match="of one file"):
        models.load(files, sha256="0" * 64)


def test_one_rule_names_a_model_after_its_folder(folder):
    folder = folder.rename(folder.with_name("ocm 1.5 (new)"))
    assert models.get(str(folder)).name == "ocm-1.5-new"
    (folder / "edgenext_small.safetensors").unlink()
    assert models.get(str(folder)).name == "ocm-1.5-new"


def test_predict_takes_the_path_itself(folder, scene):
    spec = models.load(folder, name="both")
    by_name = scene.cloudmask.predict(spec.name, **NATIVE)
    by_path = scene.cloudmask.predict(str(folder), **NATIVE)
    xr.testing.assert_equal(by_name, by_path)


def test_a_path_is_read_again_only_when_its_files_changed(folder, monkeypatch):
    """Planning asks for the card each time."""
    read, asked = fetch.read, []
    monkeypatch.setattr(fetch, "read", lambda href, sha256: asked.append(href) or read(href, sha256))
    first = models.get(str(folder))
    assert len(asked) == 2
    assert models.get(str(folder)) is models.get(f"{folder}/../ocm") is first
    assert len(asked) == 2
    path = folder / "edgenext_small.safetensors"
    tensors = load_file(path)
    tensors["segmentation_head.0.bias"] += 1
    save_file(tensors, path)  # of the same size
    assert models.get(str(folder)).sha256 != first.sha256
    path.unlink()
    assert models.get(str(folder)).members == ()


def test_a_known_name_is_fetched_and_its_hash_compared(folder, web, monkeypatch):
    path = folder / "regnety_004.safetensors"
    web.files["/a.safetensors"] = path.read_bytes()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def at(digest):
        files = ({"href": f"{web.url}/a.safetensors", "sha256": digest},)
        model = known.KnownModel("Known-1", "OmniCloudMask", files, "MIT", "https://example.com")
        monkeypatch.setattr(known, "models", lambda: {"Known-1": model})

    at(sha256)
    assert models.names(published=True) == ["Known-1"]
    with pytest.raises(OptionError, match=r"models\.load\('Known-1'\) fetches it"):
        models.get("Known-1")
    monkeypatch.setenv("XCLOUDMASK_OFFLINE", "1")
    with pytest.raises(WeightsError, match="XCLOUDMASK_OFFLINE"):
        models.load("Known-1")
    assert not web.asked
    monkeypatch.delenv("XCLOUDMASK_OFFLINE")
    assert (models.load("Known-1").name, models.load("Known-1").licence) == ("Known-1", "MIT")
    assert len(web.asked) == 1
    at("0" * 64)
    with pytest.raises(WeightsError, match="expected 0000"):
        models.load("Known-1")


def test_known_names_have_a_source_and_hashes_where_those_are_known():
    for name, model in known.models().items():
        assert name == model.name
        assert model.source.startswith("https://")
        assert model.licence
        for file in model.files:
            assert file.keys() <= {"href", "sha256"}
            assert file["href"].startswith("https://")
            assert len(file.get("sha256", "0" * 64)) == 64


def test_convert_writes_our_names_and_a_card(folder, tmp_path):
    source, target = folder / "edgenext_small.safetensors", tmp_path / "ours" / "net.safetensors"
    target.parent.mkdir()
    names = convert(source, target)
    assert set(names) == set(build("unet", {"encoder": "edgenext-small"}).state_dict())
    assert load_file(target).keys() == set(names)
    ours, theirs = models.load(target.with_suffix(".json"), name="ours"), models.load(source)
    assert (ours.family, ours.bands, ours.patch) == ("", theirs.bands, theirs.patch)
    first, second = (load_network(spec).body.state_dict() for spec in (ours, theirs))
    assert all(torch.equal(first[name], second[name]) for name in names)


def test_files_that_are_no_known_system_are_named(tmp_path):
    save_file({"a.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="architecture="):
        models.load(tmp_path / "a.safetensors")
    (tmp_path / "readme.txt").write_text("nothing")
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds readme\.txt"):
        models.load(tmp_path)
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(WeightsError, match="one card or item"):
        models.load(tmp_path)
    with pytest.raises(WeightsError, match="no file of weights"):
        models.load([])


def test_the_command_line_loads_and_lists(folder, capsys):
    assert main(["models", "load", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "mean-logits" in out
    assert f"--model {folder}" in out.replace("\n", " ").replace("  ", " ")
    assert main(["models", "list", "--published"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in xcloudmask.models.names(published=True))
    assert max(map(len, out.splitlines())) <= 80
