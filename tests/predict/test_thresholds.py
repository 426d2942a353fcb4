"""Thresholds of a model's card: of cloud, and of cloud shadow among what is no cloud."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from tests.scenes import noise, same_odds, scene
from xcloudmask import models
from xcloudmask.classes import scheme
from xcloudmask.cli import main
from xcloudmask.cli.written import find_mask
from xcloudmask.engine.classify import decide_classes
from xcloudmask.errors import CloudMaskError
from xcloudmask.models import card, registry
from xcloudmask.streaming import stream
from xcloudmask.testing import TOY
from xcloudmask.train.evaluate import classify
from xcloudmask.types import Calibration, Options

CLASSES = ("clear", "cloud", "cloud_shadow")
STRICT = replace(TOY, name="thresholds", threshold=0.35, shadow_threshold=0.4)


def options(**more):
    return Options(TOY, scheme("default", CLASSES), Calibration(), 256, 0, (1, 1), **more)


def decide(p, chosen):
    return decide_classes(p, chosen.scheme, chosen.threshold, chosen.shadow_threshold)


def chosen(p, **more):
    return decide(np.array(p, np.float32).reshape(3, 1, 1), options(**more)).item()


def test_shadow_must_reach_its_threshold():
    p = [0.3, 0.1, 0.6]  # clear, cloud, shadow
    assert chosen(p) == 2
    assert chosen(p, shadow_threshold=0.6) == 2
    assert chosen(p, shadow_threshold=0.61) == 0
    assert chosen(p, shadow_threshold=0.61, threshold=0.5) == 0
    assert chosen(p, shadow_threshold=0.61, threshold=0.1) == 1  # cloud has its own
    assert chosen([0.1, 0.3, 0.6], shadow_threshold=0.7) == 1  # the likeliest of the rest
    assert chosen([0.1, 0.3, 0.6], shadow_threshold=0.7, threshold=0.5) == 0  # which is no cloud here


@given(
    seed=st.integers(0, 2**32 - 1),
    cloud=st.none() | st.floats(0.05, 0.95),
    shadow=st.none() | st.floats(0.05, 0.95),
)
def test_scoring_decides_as_predict_does(seed, cloud, shadow):
    p = np.random.default_rng(seed).dirichlet([1, 1, 1], (5, 4)).transpose(2, 0, 1).astype(np.float32)
    told = options(threshold=cloud, shadow_threshold=shadow)
    mine = np.asarray(told.scheme.codes, np.uint8)[decide(p, told)]
    np.testing.assert_array_equal(classify(p, CLASSES, cloud, shadow), mine)


def test_probabilities_stay_as_they_are_and_chunks_do_not_matter():
    da = scene(noise(len(TOY.bands), 70, 50), TOY.bands)
    p = da.cloudmask.predict_proba(STRICT)
    assert p.attrs["shadow_threshold"] == 0.4  # for who decides classes later
    same_odds(p, da.cloudmask.predict_proba(TOY))
    mask = da.cloudmask.predict(STRICT)
    assert (mask.attrs["threshold"], mask.attrs["shadow_threshold"]) == (0.35, 0.4)
    named = {str(word): p.sel({"class": word}).values for word in p["class"].values}
    expected = np.where(
        named["cloud"] >= 0.35,
        1,
        np.where((named["cloud_shadow"] >= 0.4) & (named["cloud_shadow"] > named["clear"]), 3, 0),
    )
    np.testing.assert_array_equal(mask, expected)
    assert (mask == 3).sum() < (da.cloudmask.predict(replace(STRICT, shadow_threshold=None)) == 3).sum()
    np.testing.assert_array_equal(da.chunk(x=13, y=29).cloudmask.predict(STRICT), mask)


def test_a_scheme_without_shadow_knows_none():
    da = scene(noise(len(TOY.bands), 20, 20), TOY.bands)
    mask = da.cloudmask.predict(STRICT, scheme="binary")
    assert "shadow_threshold" not in mask.attrs
    np.testing.assert_array_equal(mask == 1, da.cloudmask.predict(STRICT) == 1)


def test_what_a_caller_asks_of_cloud_leaves_shadow_alone():
    da = scene(noise(len(TOY.bands), 20, 20), TOY.bands)
    mask = da.cloudmask.predict(STRICT, threshold=0.6)
    assert (mask.attrs["threshold"], mask.attrs["shadow_threshold"]) == (0.6, 0.4)


def test_a_store_is_not_continued_with_another_one(tmp_path):
    da = scene(noise(len(TOY.bands), 40, 40), TOY.bands)
    stream(da, tmp_path / "m.zarr", predict={"model": STRICT})
    with pytest.raises(CloudMaskError, match=r"shadow_threshold: 0\.4 in the store, 0\.45 in this call"):
        stream(da, tmp_path / "m.zarr", predict={"model": replace(STRICT, shadow_threshold=0.45)})


def test_a_store_made_from_blocks_is_not_continued_with_another_one(tmp_path):
    da = scene(noise(len(TOY.bands), 60, 40), TOY.bands).chunk(y=30)
    part = {"y": slice(5, 55)}  # so that it is no longer predict's own, and its attributes must tell
    mask = da.cloudmask.predict(STRICT).isel(part)
    mask.cloudmask.to_zarr(tmp_path / "m.zarr", progress=False)
    other = da.cloudmask.predict(replace(STRICT, shadow_threshold=0.45)).isel(part)
    with pytest.raises(CloudMaskError, match=r"shadow_threshold: 0\.4 in the store, 0\.45 in this call"):
        other.cloudmask.to_zarr(tmp_path / "m.zarr", progress=False)
    assert mask.cloudmask.to_zarr(tmp_path / "m.zarr", progress=False).written == 0  # the same goes on


def test_a_geotiff_of_the_command_line_tells_both(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    models.register(STRICT, overwrite=True)
    source, out = tmp_path / "scene.tif", tmp_path / "mask.tif"
    pixels = noise(len(TOY.bands), 70, 50)
    place = rasterio.Affine(30, 0, 6e5, 0, -30, 5e6)
    with rasterio.open(
        source, "w", driver="GTiff", width=50, height=70, count=2, dtype="float32", crs=32632, transform=place
    ) as file:
        file.write(pixels)
    words = ["--bands", ",".join(TOY.bands), "--level", "L1C", "--model", STRICT.name]
    assert main(["predict", str(source), str(out), *words, "--quiet"]) == 0
    found = find_mask(out)
    assert found is not None
    assert (found.attrs["threshold"], found.attrs["shadow_threshold"]) == (0.35, 0.4)  # numbers, no text
    np.testing.assert_array_equal(found, scene(pixels, TOY.bands).cloudmask.predict(STRICT))
    assert main(["info", str(out)]) == 0
    assert "cloud from 0.35, shadow from 0.4" in " ".join(capsys.readouterr().out.split())


def test_a_function_may_be_registered_with_it(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    spec = models.register(
        lambda pixels: pixels, name="mine", bands=TOY.bands, classes=CLASSES[1:], shadow_threshold=0.6
    )
    assert (spec.threshold, spec.shadow_threshold) == (None, 0.6)


def test_it_is_in_the_card_and_survives_its_file():
    assert "cloud shadow at a probability of 0.4 or more" in card.text(STRICT)
    assert card.from_json(card.to_json(STRICT), "card.json") == STRICT
    for wrong in (0.0, 1.0, -1):
        with pytest.raises(ValueError, match="shadow_threshold must lie between 0 and 1"):
            replace(TOY, shadow_threshold=wrong)


def test_the_default_has_both_at_the_top_of_the_atmosphere_only():
    toa, boa = (models.get(f"ukis-any-{end}") for end in ("l1c", "l2a"))
    assert (toa.threshold, toa.shadow_threshold) == (0.65, 0.7)
    assert (boa.threshold, boa.shadow_threshold) == (None, None)


def test_spare_bands_are_some_of_its_own():
    any_ = models.get("ukis-any-l1c")
    for wrong in ({"spare": ("cirrus",)}, {"spare": ("red",), "fills": False}):
        with pytest.raises(ValueError, match="spare must be some of its bands"):
            replace(any_, **wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene(noise(4, 20, 20) * 0.5, any_.bands[:4]).chunk().cloudmask.predict()
