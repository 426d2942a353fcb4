"""Pixels of known reflectance come back, whatever the catalogue, the version and the engine."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.stac.scenes import PROFILES, Site
from xcloudmask.stac import load_stac


@pytest.mark.parametrize("profile", PROFILES)
def test_loaded_pixels_are_the_known_ones(profile, tmp_path):
    scene = PROFILES[profile](Site(tmp_path, str(tmp_path)))
    loaded = {}
    for engine in ("stackstac", "odc"):
        da = load_stac([scene.item], bands=list(scene.expected), engine=engine, chunks=100)
        assert da.attrs["level"] == scene.level
        assert da.attrs["sensor"] == scene.sensor
        assert da.band.values.tolist() == list(scene.expected)
        assert da.dtype == "float32"
        loaded[engine] = da.compute()
        for band, expected in scene.expected.items():
            values = loaded[engine].sel(band=band).isel(time=0).values
            tolerance = 1e-4 if band.startswith("lwir") else 1e-6  # kelvin: float32 holds 300 to 3e-5
            np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance, err_msg=f"{engine}, {band}")
            assert np.isnan(values).any()
    assert loaded["stackstac"].identical(loaded["odc"])


def test_no_profile_warns(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        for number, make in enumerate(PROFILES.values()):
            scene = make(Site(tmp_path / str(number), str(tmp_path / str(number))))
            load_stac([scene.item])
