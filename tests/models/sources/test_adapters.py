"""Networks of other packages, run by our engine; with the packages' own files where they are installed."""

import hashlib
import sys
import types
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.smp_networks import NETWORKS, filled, renamed
from tests.scenes import noise, scene
from xcloudmask import sensors
from xcloudmask.errors import WeightsError
from xcloudmask.models import arch, network
from xcloudmask.models.keymaps import smp
from xcloudmask.models.network import load_network
from xcloudmask.models.sources import adapters
from xcloudmask.models.sources.adapters import CLOUDSEN12, OMNICLOUDMASK, S2CLOUDLESS

LIGHTGBM = pytest.mark.skipif(find_spec("lightgbm") is None, reason="lightgbm is not installed")


def installed(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package with one file in it, and return a card with its hash."""

    def make(spec, data):
        path = tmp_path / spec.weights
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        name = spec.weights.split("/")[0]
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('code of the package was run')")
        monkeypatch.syspath_prepend(tmp_path)
        return replace(spec, sha256=hashlib.sha256(data).hexdigest())

    return make


def sentinel2(spec, pixels, **how):
    """Pixels of a model's inputs, under Sentinel-2's own names."""
    bands = [sensors.get("sentinel-2").band(name).name for name in spec.bands]
    how = {"step": 10.0, "level": "L2A" if spec.level == "boa" else "L1C", **how}
    return scene(pixels, bands, **how).cloudmask.describe(sensor="sentinel-2", bands=bands)


def chunked(spec, da, **more):
    """The same from NumPy and from odd chunks."""
    whole = da.cloudmask.predict_proba(spec, scheme="native", working_resolution="native", **more).values
    lazy = da.chunk(y=37, x=41).cloudmask.predict_proba(
        spec, scheme="native", working_resolution="native", **more
    )
    np.testing.assert_allclose(lazy.values, whole, atol=1e-5)
    return whole


@LIGHTGBM
def test_trees_see_each_pixel(package):
    import lightgbm

    rng = np.random.default_rng(0)
    table = rng.random((500, 10))
    trees = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(table, label=table[:, 7] > 0.5),
        num_boost_round=5,
    )
    spec = package(S2CLOUDLESS, trees.model_to_string().encode())
    pixels = noise(10, 60, 50)
    found = chunked(spec, sentinel2(spec, pixels))
    expected = trees.predict(pixels.reshape(10, -1).T.astype(float)).reshape(60, 50)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    assert sentinel2(spec, pixels).cloudmask.predict(spec).attrs["threshold"] == 0.4


def script(module, tmp_path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = tmp_path / "script.pt"
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 12, 64, 64)), path)
    return path.read_bytes()


def test_a_script_is_given_multiples_of_32(package, tmp_path):
    net = nn.Sequential(nn.Conv2d(12, 4, 32, stride=32), nn.Upsample(scale_factor=32)).eval()
    spec = package(CLOUDSEN12, script(net, tmp_path))
    pixels = noise(12, 80, 70)
    found = chunked(spec, sentinel2(spec, pixels), patch_size=50, overlap=10)
    assert found.shape == (4, 80, 70)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    one = sentinel2(spec, pixels[:, :50, :50]).cloudmask.predict_proba(
        spec, scheme="native", working_resolution="native", patch_size=50, overlap=10
    )
    padded = np.pad(pixels[:, :50, :50], ((0, 0), (0, 14), (0, 14)), mode="edge")
    with torch.inference_mode():
        expected = torch.softmax(net(torch.from_numpy(padded[None])), dim=1)[0, :, :50, :50].numpy()
    np.testing.assert_allclose(one.values, expected, atol=1e-5)


def test_another_file_than_the_cards_is_refused(package, tmp_path):
    package(CLOUDSEN12, b"not the script")
    with pytest.raises(WeightsError, match="expected 3bd7e691"):
        adapters.cloudsen12(CLOUDSEN12)


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """A stand-in for the package omnicloudmask, with files of random weights; and what it was asked for."""
    asked, nets = [], []
    for name in ("Unet, tu-regnety_004", "Unet, tu-edgenext_small"):
        known = NETWORKS[name]
        theirs = filled(renamed(arch.build("unet", known.config).state_dict(), known.names))
        save_file(theirs, tmp_path / f"PM_model_{name[6:]}_PT_state.safetensors")
        nets.append(arch.build("unet", known.config).eval())
        nets[-1].load_state_dict(smp(theirs))

    def get_models(model_version):
        asked.append(model_version)
        return [{"Path": path, "timm_model_name": path.stem} for path in sorted(tmp_path.glob("PM_*"))[::-1]]

    download = types.SimpleNamespace(get_models=get_models, get_model_data_dir=lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "omnicloudmask", types.ModuleType("omnicloudmask"))
    monkeypatch.setitem(sys.modules, "omnicloudmask.download_models", download)
    return asked, nets


def test_omnicloudmask_scales_each_window_over_what_holds_data(fetched, one_thread):
    asked, nets = fetched
    pixels = noise(3, 64, 64)
    pixels[:, :9] = np.nan
    spec = replace(OMNICLOUDMASK, patch=64, overlap=0)
    found = chunked(spec, sentinel2(spec, pixels))
    known = pixels[:, 9:]
    middle, spread = (take(known, axis=(1, 2), keepdims=True) for take in (np.mean, np.std))
    x = torch.from_numpy(
        np.concatenate([np.zeros((3, 9, 64), np.float32), (known - middle) / spread], axis=1)
    )
    with torch.inference_mode():
        expected = torch.softmax((nets[0](x[None]) + nets[1](x[None])) / 2, dim=1)[0].numpy()
    assert np.isnan(found[:, :9]).all()
    np.testing.assert_allclose(found[:, 9:], expected[:, 9:], atol=1e-5)
    assert set(asked) == {4.0}
    doubled = chunked(spec, sentinel2(spec, pixels * 2 + 0.1))
    np.testing.assert_allclose(doubled[:, 9:], found[:, 9:], atol=1e-4)


def test_a_file_of_another_network_is_named(fetched, tmp_path):
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "PM_model_newer_PT_state.safetensors")
    with pytest.raises(WeightsError, match=r"newer_PT_state.safetensors is none of the two networks"):
        load_network(OMNICLOUDMASK)


@pytest.mark.parametrize("spec", [S2CLOUDLESS, CLOUDSEN12, OMNICLOUDMASK], ids=lambda spec: spec.name)
def test_a_missing_package_is_named(monkeypatch, spec):
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "omnicloudmask", None)
    with pytest.raises(WeightsError, match="pip install"):
        getattr(adapters, spec.name)(spec)


@pytest.mark.parametrize(
    "error", ["operator torchvision::nms does not exist", "No module named 'torchvision'"]
)
def test_a_torchvision_that_does_not_fit_is_named(monkeypatch, error):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "omnicloudmask":
                raise (
                    ModuleNotFoundError(error, name="torchvision")
                    if "named" in error
                    else RuntimeError(error)
                )

    monkeypatch.delitem(sys.modules, "omnicloudmask", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(WeightsError, match=rf"{error}.*install the torchvision that") as caught:
        load_network(OMNICLOUDMASK)
    assert "ModelSpec(loader=" not in str(caught.value)
    assert "pip install omnicloudmask" not in str(caught.value)  # it is there


@LIGHTGBM
@installed("s2cloudless")
def test_the_real_s2cloudless():
    land = np.array([0.12, 0.10, 0.08, 0.12, 0.30, 0.30, 0.10, 0.001, 0.20, 0.12], np.float32)
    cloud = np.array([0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.4, 0.05, 0.5, 0.4], np.float32)
    pixels = np.stack(
        [np.broadcast_to(kind[:, None, None], (10, 32, 4)) for kind in (land, cloud)] * 4, axis=2
    )
    pixels = pixels.reshape(10, 32, -1, 4).reshape(10, 32, 32)
    mask = sentinel2(S2CLOUDLESS, pixels).cloudmask.predict(S2CLOUDLESS)
    assert mask.values[:, :4].mean() < 0.1
    assert mask.values[:, 4:8].mean() > 0.9


@installed("sentle")
def test_the_real_cloudsen12():
    pixels = np.full((12, 128, 128), 0.08, np.float32)
    pixels[:, 32:96, 32:96] = 0.9
    da = sentinel2(CLOUDSEN12, pixels)
    mask = da.cloudmask.predict(CLOUDSEN12).values
    assert (mask[40:88, 40:88] == 1).mean() > 0.5
