"""Pixels of known reflectance come back, whatever the catalogue, the version of STAC and the engine."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pytest

from tests.stac.cases import PROFILES, as_stac_1_0, as_stac_1_1, other_version
from tests.stac.helpers import equal, warns
from tests.stac.scenes import Site
from xcloudmask.errors import UnitError, UnitWarning
from xcloudmask.stac import load_stac
from xcloudmask.stac.profiles import _profiles, find_profile
from xcloudmask.stac.view import view_item

#: Of these no pixel can be known: their items state no scale and no documentation gives one.
REFUSED = {"sentinel-3-syn-2-vg1-*", "sentinel-3-syn-2-vgp-*"}


def _check(item, scene, bands):
    loaded = {}
    for engine in ("stackstac", "odc"):
        with warns(UnitWarning, scene.warning) if scene.warning else nullcontext():
            da = load_stac([item], bands=bands, engine=engine, chunks=200)
        assert da.attrs["level"] == scene.level
        assert da.attrs["sensor"] == scene.sensor
        assert da.band.values.tolist() == bands
        assert da.dtype == "float32"
        loaded[engine] = da.compute()
        for band in bands:
            values = loaded[engine].sel(band=band).isel(time=0).values
            equal(
                values, scene.expected[band], 1e-4 if band.startswith("lwir") else 1e-6
            )  # float32 holds 300 K to 3e-5
            assert np.isnan(values).any()
    assert loaded["stackstac"].identical(loaded["odc"])


@pytest.mark.parametrize("profile", PROFILES)
def test_loaded_pixels_are_the_known_ones(profile, tmp_path):
    scene = PROFILES[profile](Site(tmp_path, str(tmp_path)))
    bands = list(scene.expected)
    _check(scene.item, scene, bands)
    # The same item in the version of STAC that its catalogue does not use; of each kind a band will do.
    _check(other_version(scene.item), scene, list(dict.fromkeys([bands[0], bands[-1]])))


@pytest.mark.parametrize("mode", ["apply", "skip"])
@pytest.mark.parametrize("profile", ["planetary-computer L2A", "earth-search-v1 L2A, shifted"])
def test_the_callers_offset_wins(profile, mode, tmp_path, engine):
    scene = PROFILES[profile](Site(tmp_path, str(tmp_path)))
    has_offset = profile == "planetary-computer L2A"  # what "auto" finds
    shift = {(True, "skip"): 0.1, (False, "apply"): -0.1}.get((has_offset, mode), 0.0)
    da = load_stac([scene.item], bands=["red"], engine=engine, sentinel2_offset=mode)
    equal(da[0, 0], scene.expected["red"] + shift)


def test_every_profile_has_its_pixels(tmp_path):
    """Who adds a profile must add a scene of known pixels; for Sentinel-2 both before and since 04.00."""
    names = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    eras: dict[int, set[bool]] = {}
    for number, make in enumerate(PROFILES.values()):
        view = view_item(make(Site(tmp_path / str(number), "x")).item)
        profile = find_profile(view)
        eras.setdefault(id(profile), set()).add((view.text(*names) or "00") >= "04")
    without = {patterns[0] for patterns, _, profile in _profiles() if id(profile) not in eras}
    assert without == REFUSED
    for patterns, _, profile in _profiles():
        if profile.calibration == "sentinel-2" and not profile.harmonised:
            assert eras[id(profile)] == {False, True}, patterns


@pytest.mark.parametrize("collection", ["sentinel-3-syn-2-vg1-ntc", "sentinel-3-syn-2-vgp-ntc"])
def test_products_whose_scale_nobody_states_are_refused(collection, tmp_path):
    item = PROFILES["VITO SPOT-VGT TOC"](Site(tmp_path, str(tmp_path))).item
    item |= {"id": "S3A_SY_2_VG1", "collection": collection}
    with pytest.raises(UnitError, match=r"S3A_SY_2_VG1.*'B0'.*neither stated nor known.*raster:scale"):
        load_stac([item])


def test_the_two_versions_are_each_others_inverse(tmp_path):
    item = PROFILES["earth-search C1 L2A"](Site(tmp_path, "x")).item
    assert as_stac_1_1(item) != item
    assert as_stac_1_0(as_stac_1_1(item)) == item


def test_only_the_doubtful_profiles_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        for number, make in enumerate(PROFILES.values()):
            scene = make(Site(tmp_path / str(number), str(tmp_path / str(number))))
            if not scene.warning:
                load_stac([scene.item], bands=list(scene.expected))
