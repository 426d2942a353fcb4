"""What `auto` takes follows from scores on held-out scenes, and the tables in docs say the same."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from xcloudmask import models
from xcloudmask.errors import BandError
from xcloudmask.metrics import Tally, score
from xcloudmask.metrics.labels import possible_from_classes
from xcloudmask.models.sources import shipped
from xcloudmask.predict import choose_model
from xcloudmask.train.augment import INSTRUMENTS
from xcloudmask.train.evaluate import run_model, run_on
from xcloudmask.train.files import find
from xcloudmask.types import Band

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "train"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("score_tables", None)
    import score_tables

    return score_tables


def scene(names: str, level: str = "toa") -> xr.DataArray:
    bands = names.split()
    da = xr.DataArray(
        np.full((len(bands), 64, 64), 0.1, "f4"), dims=("band", "y", "x"),
        coords={"y": -np.arange(64) * 30.0, "x": np.arange(64) * 30.0},
    )  # fmt: skip
    da = da.cloudmask.describe(bands=bands, level=level)
    out: xr.DataArray = da.rio.write_crs("EPSG:32631")
    return out


def bands_of(names: str) -> list[Band]:
    return [Band(name, name) for name in names.split()]


def without_intervals(text: str) -> str:
    """They are drawn, and another NumPy may draw otherwise."""
    return re.sub(r" \[[^\]]*\]", "", text)


def test_evidence_is_what_the_stored_scores_say(tables: ModuleType) -> None:
    stored = json.loads((EXAMPLES / "scores.json").read_text())
    kept = json.loads((ROOT / "xcloudmask" / "predict" / "evidence.json").read_text())["sets"]
    fresh = tables.evidence(stored)["sets"]
    assert kept.keys() == fresh.keys()
    for bands, one in fresh.items():
        for key in ("bands", "scenes", "order"):
            assert kept[bands][key] == one[key]
        for model, values in one["balanced_accuracy"].items():
            assert kept[bands]["balanced_accuracy"][model] == pytest.approx(values, abs=0.02)
    text = without_intervals((ROOT / "docs" / "scores-in-full.md").read_text())
    for bands in tables.TITLES:
        for line in tables.full_table(stored, bands):
            assert without_intervals(line) in text
    for line in (*tables.choice_table(stored), *tables.ukis_table(stored), *tables.coarse_table(stored)):
        assert without_intervals(line) in text


def test_scores_are_those_of_the_models_that_are_shipped(tables: ModuleType) -> None:
    stored = json.loads((EXAMPLES / "scores.json").read_text())
    for name in shipped.names():
        assert stored[name]["sha256"] == models.get(name).sha256
        assert stored[name]["threshold"] == models.get(name).threshold


def test_the_best_model_comes_first_and_others_are_ranked(tables: ModuleType) -> None:
    good, bad = {"cloud": [90, 10, 10, 90]}, {"cloud": [60, 40, 40, 60]}
    for one in (good, bad):
        one["cloud_shadow"] = [0, 0, 0, 0]
    stored = {
        "worse": {"counts": {"rgb": {"l8_biome": {"a": bad, "b": good}}}},
        "better": {"counts": {"rgb": {"l8_biome": {"a": good, "b": good}}}},
        "brightness": {"counts": {"rgb": {"l8_biome": {"a": good, "b": good}}}},
    }
    found = tables.evidence(stored)["sets"]["rgb"]
    assert found["order"] == ["better", "worse"]
    assert found["scenes"] == 2
    shady = {"cloud": [89, 10, 11, 90], "cloud_shadow": [5, 5, 5, 85]}  # as good, and it finds shadow
    stored["shady"] = {"counts": {"rgb": {"l8_biome": {"a": shady, "b": shady}}}}
    assert tables.evidence(stored)["sets"]["rgb"]["order"] == ["shady", "better", "worse"]
    apart = tables.difference(*(stored[name]["counts"]["rgb"]["l8_biome"] for name in ("better", "worse")))
    assert apart[0] == pytest.approx(0.9 - 0.75)
    assert apart[1] == pytest.approx(0, abs=1e-9)  # the scene on which both are alike, drawn twice
    assert apart[2] == pytest.approx(0.3)


def test_a_model_made_for_the_bands_gives_way_only_to_one_that_is_better_beyond_chance(
    tables: ModuleType,
) -> None:
    good, bad = {"cloud": [90, 10, 10, 90]}, {"cloud": [60, 40, 40, 60]}
    for one in (good, bad):
        one["cloud_shadow"] = [0, 0, 0, 0]
    for other, first in (({"a": good, "b": good}, "any"), ({"a": good, "b": bad}, "ukis-4band")):
        stored = {
            "any": {"counts": {"rgb-nir": {"l8_biome": other}}},
            "ukis-4band": {"counts": {"rgb-nir": {"l8_biome": {"a": bad, "b": bad}}}},
        }
        assert tables.evidence(stored)["sets"]["rgb-nir"]["order"][0] == first


def test_the_most_bands_with_evidence_decide() -> None:
    for names, expected in (
        ("coastal blue green red nir08 swir16 swir22 cirrus", INSTRUMENTS["six"]),
        ("swir16 nir red blue", INSTRUMENTS["vgt"]),
        ("red green nir", INSTRUMENTS["hrv"]),
    ):
        known = choose_model.evidence_for(bands_of(names))
        assert known is not None
        assert known.bands == expected
    assert choose_model.evidence_for(bands_of("rededge071 rededge075 nir09")) is None


@pytest.mark.parametrize("level", ["toa", "boa"])
def test_auto_takes_the_best_that_fits(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    six = "blue green red nir swir16 swir22"
    end = {"toa": "l1c", "boa": "l2a"}[level]
    for order in (("ukis-4band", "ukis-6band"), ("ukis-6band", "ukis-4band"), ("spectral", "ukis-6band")):
        told = (choose_model.Evidence(tuple(six.split()), order, {}, 9),)
        monkeypatch.setattr(choose_model, "evidence", lambda told=told: told)
        found = [c.spec.name for c in choose_model.candidates(bands_of(six), level) if c.fits]  # type: ignore[arg-type]
        best = order[0] if order[0] == "spectral" else f"{order[0]}-{end}"
        assert found[0] == best
        assert set(found) >= {f"ukis-4band-{end}", f"ukis-6band-{end}", "spectral"}
    # without evidence: those for the most bands first, those for any bands last
    monkeypatch.setattr(choose_model, "evidence", lambda: ())
    found = [c.spec.name for c in choose_model.candidates(bands_of(six), level) if c.fits]  # type: ignore[arg-type]
    assert found[:2] == [f"ukis-6band-{end}", f"ukis-4band-{end}"]
    assert found[2:] == [f"ukis-any-{end}", "sensei", "spectral"]


def test_pixels_coarser_than_a_network_knows_are_left_to_those_for_any() -> None:
    six = bands_of("blue green red nir swir16 swir22")
    for pixel, first in ((30.0, "ukis-any-l1c"), (60.0, "ukis-any-l1c")):
        assert choose_model.candidates(six, "toa", pixel)[0].spec.name == first
    for pixel in (100.0, 1000.0):
        found = [c.spec.name for c in choose_model.candidates(six, "toa", pixel)]
        assert found[:2] == ["sensei", "spectral"]
    for names, first in (("blue red nir swir16", "sensei"), ("blue green red", "spectral")):
        assert choose_model.candidates(bands_of(names), "toa", 300.0)[0].spec.name == first


def test_pixels_finer_than_a_network_knows_are_left_to_those_for_any() -> None:
    odd = bands_of("rededge071 rededge078 nir09")
    assert choose_model.evidence_for(odd) is None
    for pixel, first in ((10.0, "spectral"), (30.0, "spectral"), (100.0, "sensei"), (1000.0, "sensei")):
        fitting = [c.spec.name for c in choose_model.candidates(odd, "toa", pixel) if c.fits]
        assert fitting[0] == first
        known = [c.spec.name for c in choose_model.candidates(bands_of("blue red nir swir16"), "toa", pixel)]
        assert known[0] == ("ukis-any-l1c" if pixel < 60 else "sensei")
    assert models.get("sensei").gsd is None, "named, it answers on the pixels as they are"
    said = repr(scene("rededge071 rededge078 nir09").cloudmask)
    assert "auto is spectral" in said
    assert "not sensei: for pixels of 100 m or more" in said
    with pytest.raises(ValueError, match="finest_pixel must be above 0 metres, got 0"):
        replace(models.get("sensei"), finest_pixel=0)


def test_the_warning_on_coarse_pixels_names_them() -> None:
    da = scene("blue green red nir swir16 swir22").assign_coords(
        y=-np.arange(64) * 300.0, x=np.arange(64) * 300.0
    )
    with pytest.warns(UserWarning, match=r"the pixels are 300 m, and 'ukis-any-l1c' was made for 20 to 40 m"):
        mask = da.cloudmask.predict()
    assert mask.attrs["model"] == "sensei"
    few = scene("blue red nir swir16").assign_coords(y=-np.arange(64) * 300.0, x=np.arange(64) * 300.0)
    with pytest.warns(UserWarning, match=r"the pixels are 300 m, and 'ukis-any-l1c' was made for 20 to 40 m"):
        few.cloudmask.predict()


def test_the_warning_does_not_take_one_level_for_the_other() -> None:
    with pytest.warns(UserWarning, match="top of atmosphere; for surface reflectance it was not measured"):
        scene("blue red nir swir16", level="boa").cloudmask.predict()


def test_bands_that_no_network_was_made_for_are_answered_with_a_warning() -> None:
    for names, worth in (("blue red nir swir16", r"scored a balanced accuracy of 0\.\d\d"),
                         ("rededge071 rededge078 nir09", "never measured")):  # fmt: skip
        with pytest.warns(UserWarning, match=worth) as told:
            mask = scene(names).cloudmask.predict()
        assert mask.attrs["model"] in ("ukis-any-l1c", *shipped.names())
        assert told[0].filename == __file__
        scene(names).cloudmask.predict(mask.attrs["model"])  # named: no warning
    with pytest.raises(BandError, match="no model fits"):
        scene("nir").cloudmask.predict()


def test_the_near_infrared_is_asked_for_where_it_is_missing() -> None:
    with pytest.warns(UserWarning, match="load the near infrared, which is missing, or describe"):
        scene("blue green red").cloudmask.predict()
    with pytest.warns(UserWarning, match="or describe") as told:
        scene("blue red nir swir16").cloudmask.predict()
    assert "near infrared" not in str(told[0].message)


def test_a_summary_says_which_and_why() -> None:
    said = repr(scene("blue red nir swir16").cloudmask)
    best = choose_model.evidence_for(bands_of("blue red nir swir16"))
    assert best is not None
    assert f"auto is {best.order[0]}-l1c 2: takes 3 or more of blue, green" in said
    assert "not spectral: comes after it" in said
    six = repr(scene("blue green red nir swir16 swir22").cloudmask)
    assert "not spectral" not in six


def test_a_model_is_scored_as_users_get_it(data: Path) -> None:
    """Through the engine: the same counts as by predicting and comparing by hand."""
    entries = find(data / "val")
    found = run_model("ukis-4band", entries, bands="all")
    assert list(found) == ["l8"]  # of tables of pixels it can say nothing
    entry = next(e for e in entries if e.source == "l8")
    sample = entry.read()
    from xcloudmask.train.samples import to_xarray

    mask = to_xarray(sample).cloudmask.predict("ukis-4band-l1c")
    legend = {0: "clear", 1: "cloud", 3: "cloud_shadow", 255: "no_data"}
    by_hand = Tally.of(sample.possible, mask.values, legend)
    for asked in ("cloud", "cloud_shadow"):
        question = xcloudmask.metrics.QUESTIONS[asked]
        assert found["l8"].tallies["l8/v0"].confusion(question) == by_hand.confusion(question)
    assert run_model("ukis-4band", entries, bands="vgt") == {}
    # a model of our own: the engine and the bare network agree, threshold of its card included
    spec = models.get("spectral")
    assert spec.threshold is not None
    network = models.network.load_network(spec).body
    patches = [e for e in entries if e.path.suffix == ".npz"]
    bare = run_on(network, spec.classes, patches, bands="vgt", threshold=spec.threshold)
    whole = run_model("spectral", patches, bands="vgt")
    assert score(whole["l8"].tallies).to_dict() == score(bare["l8"].tallies).to_dict()
    coarse = run_model("spectral", patches, bands="vgt", coarser=4)["l8"].tallies["l8/v0"]
    assert coarse.table.sum() == 12 * 12
    assert (possible_from_classes(mask.values, legend) > 0).any()
