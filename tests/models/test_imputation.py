"""`ukis-any`: bands that are not there are estimated from those that are, and two networks are averaged."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scenes import noise, scene
from xcloudmask import models
from xcloudmask.engine import onnx as backend
from xcloudmask.engine import predictor
from xcloudmask.errors import BandError, CloudMaskError, ContractError, ModelWarning, WeightsError
from xcloudmask.models import card, registry
from xcloudmask.models import imputation as module
from xcloudmask.models.imputation import BandImputer, imputer_for
from xcloudmask.models.network import Network, load_network
from xcloudmask.streaming import stream
from xcloudmask.streaming.worker_plugin import _warm
from xcloudmask.types import ModelSpec

SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
VGT = ["blue", "red", "nir", "swir16"]


@given(seed=st.integers(0, 2**32 - 1), given_bands=st.permutations(SIX), count=st.integers(1, 6))
def test_the_estimate_is_that_of_least_squares(seed, given_bands, count):
    draw = np.random.default_rng(seed)
    pixels = draw.normal(size=(400, 6)) @ draw.normal(size=(6, 6)) + draw.normal(size=6)
    names = given_bands[:count]
    at = [SIX.index(name) for name in names]
    covariance = np.cov(pixels.T, bias=True)
    fill = BandImputer(SIX, tuple(pixels.mean(axis=0)), tuple(map(tuple, covariance))).given_only(names)
    design = np.column_stack([pixels[:, at], np.ones(len(pixels))])
    solved = np.linalg.lstsq(design, pixels, rcond=None)[0]
    image = pixels[:, at].T.reshape(count, 20, 20).astype(np.float32)
    expected = (design @ solved).T.reshape(6, 20, 20)
    np.testing.assert_allclose(fill(image), expected, atol=2e-4, rtol=2e-4)


@given(names=st.lists(st.sampled_from(SIX), min_size=1, max_size=6, unique=True))
def test_what_is_given_stays_to_the_last_bit(names):
    pixels = noise(len(names), 16, 24, seed=len(names))
    found = imputer_for(SIX).given_only(names)(pixels)
    np.testing.assert_array_equal(found[[SIX.index(name) for name in names]], pixels)


def test_shipped_statistics_give_a_sensible_green():
    weights, added = imputer_for(SIX).given_only(VGT).coefficients()
    green = weights[1]
    assert green[:2].sum() == pytest.approx(0.9, abs=0.1), "green lies between blue and red"
    assert np.abs(green[2:]).max() < 0.1
    assert abs(added[1]) < 0.02


def by_hand(stem, names, pixels):
    """One window through one network, its missing bands from the statistics by normal equations in double."""
    folder = Path(find_spec("ukis_csmask").origin).parent
    told = json.loads(Path(module.__file__).with_name("data").joinpath("bands.json").read_text())
    mean, covariance = np.array(told["mean"]), np.array(told["covariance"])
    have = [told["bands"].index(name) for name in names]
    lacking = [i for i in range(6) if i not in have]
    full = np.empty((6, *pixels.shape[1:]))
    full[have] = pixels
    for i in lacking:
        factors = np.linalg.inv(covariance[np.ix_(have, have)]) @ covariance[have, i]
        full[i] = mean[i] + np.tensordot(factors, pixels - mean[have][:, None, None], axes=1)
    middle, spread = json.loads((folder / f"{stem}.json").read_text())["data"]["dataset_statistics"]["img"]
    some = full[: len(middle)]
    some = (some - np.array(middle)[:, None, None]) / np.array(spread)[:, None, None]
    session = ort.InferenceSession(folder / f"{stem}.onnx", providers=["CPUExecutionProvider"])
    said = session.run(None, {session.get_inputs()[0].name: some[None].astype(np.float32)})[0][0]
    said = np.exp(said - said.max(axis=0))
    return said / said.sum(axis=0)


@pytest.mark.network
@pytest.mark.parametrize("product", ["l1c", "l2a"])
def test_it_is_the_weighted_mean_of_both_networks_by_hand(product):
    pixels = noise(4, 256, 256, seed=3) * 0.6
    six, four = (by_hand(f"model_{count}_{product}", VGT, pixels) for count in ("6b", "4b"))
    expected = 0.2 * six + 0.8 * four
    order = [3, 0, 2, 1]  # the order of bands must not matter
    da = scene(pixels[order], [VGT[i] for i in order], level=product.upper())
    found = da.cloudmask.predict_proba(f"ukis-any-{product}", working_resolution="native", scheme="native")
    np.testing.assert_allclose(found.transpose("class", "y", "x").values, expected, atol=1e-5)


@pytest.mark.network
def test_with_all_bands_nothing_is_estimated():
    da = scene(noise(6, 256, 256, seed=4) * 0.6, SIX)
    how = {"working_resolution": "native", "scheme": "native"}
    both = [da.cloudmask.predict_proba(f"ukis-{count}band-l1c", **how).values for count in (6, 4)]
    found = da.cloudmask.predict_proba("ukis-any-l1c", **how).values
    np.testing.assert_allclose(found, 0.2 * both[0] + 0.8 * both[1], atol=1e-6)


def test_auto_takes_it_for_bands_without_green_and_says_so():
    da = scene(noise(4, 40, 40) * 0.6, VGT)
    with pytest.warns(UserWarning, match=r"'ukis-any-l1c' answers, which estimates green, swir22 from"):
        mask = da.chunk().cloudmask.predict()
    assert mask.attrs["model"] == "ukis-any-l1c"
    assert (mask.attrs["bands"], mask.attrs["bands_estimated"]) == ("blue red nir swir16", "green swir22")


def test_it_answers_for_six_bands_and_one_network_for_four_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        for names, expected in ((SIX, "ukis-any-l1c"), (SIX[:4], "ukis-4band-l1c")):
            da = scene(noise(len(names), 40, 40) * 0.6, names).chunk()
            assert da.cloudmask.predict().attrs["model"] == expected


def test_at_the_surface_one_network_made_for_the_bands_goes_first():
    for names, expected in ((SIX, "ukis-6band-l2a"), (SIX[:4], "ukis-4band-l2a")):
        da = scene(noise(len(names), 40, 40) * 0.6, names, level="L2A").chunk()
        assert da.cloudmask.predict().attrs["model"] == expected


def test_too_few_bands_are_named():
    da = scene(noise(2, 40, 40), ["red", "nir"])
    with pytest.raises(BandError, match=r"needs 3 or more of blue.*missing: 1 more of blue, green, swir16"):
        da.cloudmask.predict("ukis-any-l1c")


def test_a_band_without_statistics_is_refused():
    with pytest.raises(BandError, match="cirrus"):
        imputer_for(SIX).given_only(["cirrus"])


def test_altered_statistics_are_refused(monkeypatch):
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    module.statistics.cache_clear()
    with pytest.raises(WeightsError, match=r"bands\.json has SHA-256"):
        imputer_for(SIX)


def without_imputer(spec):
    return Network(body=b"")


def test_a_card_that_fills_needs_statistics():
    spec = ModelSpec(
        "bare", "1", ("red", "nir"), ("clear", "cloud"), f"{__name__}:without_imputer", fills=True
    )
    with pytest.raises(CloudMaskError, match="Network without `imputer`"):
        load_network(spec)


def halves(spec):
    """A torch module that fills in, too: the mean of its three bands is the probability of cloud."""
    import torch

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=1, keepdim=True)

    covariance = ((0.04, 0.02, 0.02), (0.02, 0.04, 0.02), (0.02, 0.02, 0.04))
    return Network(
        Mean(), activation="complement", imputer=BandImputer(spec.bands, (0.2, 0.3, 0.4), covariance)
    )


HALVES = ModelSpec(
    "halves", "1", ("red", "nir", "swir16"), ("clear", "cloud"), f"{__name__}:halves", patch=32, overlap=8,
    activation="complement", fills=True,
)  # fmt: skip


def test_a_module_may_fill_in_too():
    pixels = noise(1, 40, 40)
    found = scene(pixels, ["nir"]).cloudmask.predict_proba(
        HALVES, working_resolution="native", scheme="native"
    )
    nir = pixels[0]
    both = (0.2 + 0.5 * (nir - 0.3)) + nir + (0.4 + 0.5 * (nir - 0.3))
    np.testing.assert_allclose(found.sel({"class": "cloud"}), both / 3, atol=1e-5)


def test_what_cannot_be_together_is_refused():
    for wrong in ({"min_bands": 5}, {"min_bands": 0}, {"aux": ("elevation",)}):
        with pytest.raises(ValueError, match="with fills=True it takes no aux, and min_bands is 1 to 2"):
            ModelSpec("x", "1", ("red", "nir"), ("clear", "cloud"), "a:b", fills=True, **wrong)


@pytest.mark.network
def test_it_is_exported_with_both_networks_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    written = models.export("ukis-any-l1c", tmp_path / "out")
    assert [path.name for path in written] == [
        "ukis-6band-l1c.onnx", "ukis-4band-l1c.onnx", "ukis-any-l1c.json",
    ]  # fmt: skip
    again = models.load(written[-1], name="again", overwrite=True)
    da = scene(noise(4, 64, 64) * 0.6, VGT)
    expected = da.cloudmask.predict_proba("ukis-any-l1c", working_resolution="native")
    found = da.cloudmask.predict_proba(again, working_resolution="native")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


def test_a_card_whose_members_weights_are_not_beside_it_is_refused(tmp_path):
    (tmp_path / "x.json").write_text(card.to_json(models.get("ukis-any-l1c")))
    with pytest.raises(CloudMaskError, match=r"model_6b_l1c\.onnx cannot be read"):
        models.load(tmp_path / "x.json")


@pytest.mark.network
def test_other_bands_need_no_other_sessions_and_warming_serves_all(monkeypatch):
    opened = []
    ask = backend.OnnxBackend.open
    monkeypatch.setattr(
        backend.OnnxBackend, "open", lambda self, body: (opened.append(len(body)), ask(self, body))[1]
    )
    predictor.unload()
    _warm(models.get("ukis-any-l1c"), "cpu", "auto")
    for names in (VGT, ["green", "red", "nir"], SIX):
        scene(noise(len(names), 40, 40) * 0.5, names).cloudmask.predict("ukis-any-l1c", device="cpu")
    assert len(opened) == 2
    predictor.unload()


def test_a_store_is_not_continued_with_other_bands(tmp_path):
    names = (["red", "nir"], ["nir"], ["red", "nir", "swir16"])
    times = [scene(noise(1, len(n), 40, 40), n).assign_coords(time=[at]) for at, n in enumerate(names)]
    how = {"model": HALVES, "working_resolution": "native"}
    stream(times[0], tmp_path / "m.zarr", predict=how, progress=False)
    for other in times[1:]:
        with pytest.raises(ContractError, match="bands: 'red nir' in the store"):
            stream(other, tmp_path / "m.zarr", predict=how, progress=False)
    assert times[0].cloudmask.predict(HALVES, working_resolution="native").attrs["bands"] == "red nir"
    assert "bands" not in times[2].cloudmask.predict(HALVES, working_resolution="native").attrs


def test_a_model_for_any_bands_fills_in_none():
    with pytest.raises(ValueError, match="none that could be filled in"):
        ModelSpec("x", "1", (), ("clear", "cloud"), "a:b", any_bands=True, fills=True)


@pytest.mark.network
def test_one_card_serves_other_bands_in_one_process():
    spec = models.get("ukis-any-l1c")
    names = (VGT, ["green", "red", "nir"])
    pixels = [noise(len(each), 64, 64, seed=9) * 0.5 for each in names]
    how = {"working_resolution": "native"}

    def answer(at):
        return scene(pixels[at], names[at]).cloudmask.predict_proba(spec, **how).values

    first = answer(0), answer(1)
    predictor.unload()
    again = answer(1), answer(0)
    for at in (0, 1):
        np.testing.assert_array_equal(first[at], again[1 - at])
    assert np.abs(first[0] - first[1]).max() > 1e-3
