"""FDR4VGT-CLOUD: its containers and items, held against the reference answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.published import golden
from tests.scenes import same_odds
from xcloudmask import models
from xcloudmask.errors import OptionError, UnitError, WeightsError
from xcloudmask.models import registry
from xcloudmask.models.network import load_network

pytestmark = golden.needed
FOLDER = golden.PUBLISHED / "fdr4vgt"
BANDS = ["blue", "red", "nir", "swir16"]
PROGRAM = {"bands": BANDS, "classes": ["clear", "cloud"], "activation": "complement"}
LAYOUTS = ["old", "new"]


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture(autouse=True)
def nothing_ran(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.iterdir())
    yield
    assert sorted(FOLDER.iterdir()) == before
    assert not list(tmp_path.rglob("LOADER_WAS_RUN"))


@pytest.fixture(scope="module")
def answers():
    return golden.answers("fdr4vgt")


def scene(stored):
    """The published input, reflectance times 10000, as an array says it."""
    dims = ("time", "band", "y", "x")[4 - stored.ndim :]
    return xr.DataArray(stored, dims=dims, coords={"band": BANDS}).cloudmask.describe(scale=1e-4, offset=0)


def difference(spec, keys, answers):
    """Return the largest difference to the reference answers, which hold every eighth pixel."""
    windows = np.round(10000 * golden.image("toy", (2, 4, 512, 512)))
    odds = scene(windows).cloudmask.predict_proba(spec, uncertainty=spec.uncertainty).values
    np.testing.assert_allclose(odds[:, 0] + odds[:, 1], 1, atol=1e-6)
    return max(np.abs(odds[:, 1 + n, ::8, ::8] - answers[key]).max() for n, key in enumerate(keys))


@pytest.mark.parametrize(
    "name", [*(f"model_{net}_{layout}" for net in "abc" for layout in LAYOUTS), "model_a_old_cuda"]
)
def test_exported_programs_of_both_torches(name, answers):
    spec = models.load(FOLDER / f"{name}.pt2", units="reflectance*10000", **PROGRAM)
    assert difference(spec, [name[:7]], answers) < 1e-6
    body = load_network(spec).body
    assert sum(tensor.numel() for tensor in body.parameters()) == 4 * 3 * 9 + 3 + 2 * 3 + 3 + 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("item", "how", "keys"),
    [
        ("single", {}, ["model_a"]),
        ("ensemble", {}, ["ensemble/max", "ensemble/population_std"]),
        ("flexible", {}, ["ensemble/max", "ensemble/population_std"]),
        ("flexible", {"reduce": "mean"}, ["ensemble/mean", "ensemble/population_std"]),
        ("fused", {}, ["fused/probability", "fused/spread"]),
    ],
)
def test_items_load_in_one_call(item, how, keys, layout, answers):
    spec = models.load(FOLDER / f"{item}_{layout}.json", **how)
    assert (spec.name, spec.bands, spec.classes) == (f"toy_{item}_{layout}", tuple(BANDS), ("clear", "cloud"))
    assert (spec.patch, spec.overlap, spec.gaps, spec.threshold) == (512, 64, "zero", 0.37)
    assert (len(spec.members), spec.uncertainty) == (3 * (item in ("ensemble", "flexible")), len(keys) == 2)
    assert difference(spec, keys, answers) < 1e-6


def test_members_are_joined_as_the_caller_says(answers):
    for how, keys in (
        ({"uncertainty": False}, ["ensemble/max"]),
        ({"reduce": "median"}, ["ensemble/median", "ensemble/population_std"]),
        ({"reduce": "min"}, ["ensemble/min", "ensemble/population_std"]),
    ):
        spec = models.load(FOLDER / "ensemble_new.json", overwrite=True, **how)
        assert difference(spec, keys, answers) < 1e-6


def test_what_the_item_leaves_open_is_said_on_the_card(answers):
    """It says TOC, the model card TOA: neither is claimed, and no scene is warned of."""
    spec = models.load(FOLDER / "single_new.json")
    assert spec.level is None
    assert "TOC" in spec.limits
    assert "level=" in spec.limits
    settled = models.load(FOLDER / "single_new.json", level="toa", name="settled", threshold=0.5)
    assert (settled.level, settled.limits, settled.threshold) == ("toa", "", 0.5)
    assert difference(settled, ["model_a"], answers) < 1e-6
    assert models.load(FOLDER / "single_new.json", units="reflectance", name="other").std is None


@pytest.fixture(scope="module")
def large():
    stored = np.round(10000 * golden.image("large", (4, 700, 600)))
    stored[:, 300:330, 40:90] = 0
    stored[2, 10:14, 10:14] = 0
    return stored


@pytest.mark.filterwarnings("ignore:pixels that are 0 in every band")
def test_a_large_scene_as_predict_large_joins_it(large, answers):
    spec = models.load(FOLDER / "single_old.json")
    odds = scene(large).cloudmask.predict_proba(spec).values[1]
    gap = answers["large/all_zero_pixels"]
    np.testing.assert_array_equal(np.isnan(odds), gap)
    assert np.nanmax(np.abs(odds[::2, ::2] - answers["large/ramp_blend_every_2nd"])) < 1e-6
    assert np.nanmax(np.abs(odds[::4, ::4] - answers["large/hann_2d_blend_every_4th"])) < 3e-5
    mask = scene(large).cloudmask.predict(spec)
    np.testing.assert_array_equal(mask.values == 255, gap)
    np.testing.assert_array_equal(mask.values == 1, odds >= 0.37)


@pytest.mark.filterwarnings("ignore:pixels that are 0 in every band")
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(60, 699), cols=st.integers(60, 599), item=st.sampled_from(["single_old", "fused_new"])
)
def test_chunks_change_nothing(large, rows, cols, item):
    spec = models.load(FOLDER / f"{item}.json", overwrite=True)
    options = {"uncertainty": spec.uncertainty, "patch_size": 512}
    whole = scene(large).cloudmask.predict_proba(spec, **options).values
    same_odds(scene(large).chunk(y=rows, x=cols).cloudmask.predict_proba(spec, **options).values, whole)


def changed(tmp_path, item_name="single_new", **changes):
    """Write an item beside copies of its files, with some of its properties changed."""
    item = json.loads((FOLDER / f"{item_name}.json").read_text())
    for asset in item["assets"].values():
        if asset["href"].endswith(".pt2"):
            (tmp_path / asset["href"]).write_bytes((FOLDER / asset["href"]).read_bytes())
    source = item["properties"]["mlm:input"][0]
    source["norm"] |= changes.pop("norm", {})
    source["name"] = changes.pop("name", source["name"])
    item["properties"] |= changes
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    return path


def test_an_item_that_contradicts_itself_must_be_settled(tmp_path):
    path = changed(tmp_path, norm={"description": "Raw values scaled by 1000"})
    with pytest.raises(UnitError, match=r"units='reflectance\*10000', units='reflectance\*1000' or"):
        models.load(path)
    assert models.load(path, units="reflectance*1000").std == (0.001,)
    path = changed(tmp_path, norm={"description": "Top-of-Atmosphere reflectance scaled by 10000"})
    with pytest.raises(UnitError, match="level='toa' or level='boa'"):
        models.load(path)
    assert models.load(path, level="toa", name="toa").level == "toa"
    path = changed(tmp_path, norm={"type": "something"})
    with pytest.raises(UnitError, match=r"units='reflectance' \(0 to 1\) or units='reflectance\*10000'"):
        models.load(path)
    for norm in ({"range": [0, 1]}, {"range": [0, 255], "description": ""}):
        spec = models.load(changed(tmp_path, norm=norm | {"description": ""}), overwrite=True)
        assert spec.std == (None if norm["range"][1] == 1 else pytest.approx((1 / 255,)))
    path = changed(tmp_path, name="reflectance", norm={"description": "Raw values scaled by 10000"})
    assert models.load(path, overwrite=True).level == "boa"  # the type of its norm says TOC, and nothing else


def test_thresholds_of_the_family(tmp_path):
    item = json.loads((FOLDER / "single_new.json").read_text())
    outputs = item["properties"]["mlm:output"]
    del outputs[0]["recommended_threshold"]
    assert models.load(changed(tmp_path, **{"mlm:output": outputs})).threshold == 0.5
    del outputs[0]["standard_threshold"]
    assert models.load(changed(tmp_path, **{"mlm:output": outputs}), overwrite=True).threshold is None


def test_several_files_are_never_one_in_silence(tmp_path):
    with pytest.raises(WeightsError, match=r"custom:ensemble_fused.*model_a_new\.pt2, model_b_new\.pt2"):
        models.load(changed(tmp_path, "ensemble_new", **{"custom:ensemble_fused": True}))
    with pytest.raises(WeightsError, match="an ensemble of 3 files, and sha256= is the hash of one"):
        models.load(FOLDER / "ensemble_new.json", sha256=64 * "0")
    with pytest.raises(WeightsError, match="joins the members of an ensemble"):
        models.load(FOLDER / "single_new.json", reduce="max")
    with pytest.raises(OptionError, match="unknown reduce 'mode'"):
        models.load(FOLDER / "ensemble_new.json", reduce="mode")
    outputs = json.loads((FOLDER / "single_new.json").read_text())["properties"]["mlm:output"]
    with pytest.raises(WeightsError, match="has 2 mlm:output; a cloud mask is made from one, and an uncert"):
        models.load(changed(tmp_path, **{"mlm:output": outputs * 2}))
    with pytest.raises(WeightsError, match=r"has 2 output classes but 1 were given.*uncertainty=True"):
        models.load(FOLDER / "fused_old.pt2", units="reflectance*10000", **PROGRAM)
    with pytest.raises(WeightsError, match="has 1 output classes but 2 were given"):
        models.load(FOLDER / "single_new.json", uncertainty=True)


@pytest.mark.parametrize("item", ["single_old", "flexible_old", "fused_new"])
def test_what_was_loaded_can_be_written_and_comes_back(item, tmp_path):
    spec = models.load(FOLDER / f"{item}.json")
    again = models.load(models.export(spec, tmp_path / "out")[-1], name="again")
    assert (again.uncertainty, again.gaps, again.overlap) == (spec.uncertainty, "zero", 64)
    stored = scene(np.round(10000 * golden.image("toy", (2, 4, 512, 512)))[0])
    first, second = (
        stored.cloudmask.predict_proba(each, uncertainty=spec.uncertainty).values for each in (spec, again)
    )
    np.testing.assert_allclose(second, first, atol=1e-5)


def test_gaps_are_as_the_card_says(tmp_path):
    for gaps in ("nearest", "zero"):
        spec = models.load(FOLDER / "single_new.json", name=gaps, gaps=gaps)
        assert (
            models.load(models.export(spec, tmp_path / gaps)[-1], name="again", overwrite=True).gaps == gaps
        )
    with pytest.raises(OptionError, match=r"unknown gaps 'mean'.*Allowed: nearest, zero"):
        models.load(FOLDER / "single_new.json", name="other", gaps="mean")
    assert "given to it as 0" in models.show("zero")


def test_an_item_on_a_network_needs_the_hashes_of_its_files(web):
    for path in FOLDER.glob("*"):
        web.files[f"/{path.name}"] = path.read_bytes()
    with pytest.raises(WeightsError, match="Pass sha256="):
        models.load(f"{web.url}/ensemble_new.json")
    assert not Path("LOADER_WAS_RUN").exists()
    assert "/load.py" not in {path for path, _ in web.asked}
