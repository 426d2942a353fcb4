"""Models that take any bands: they are told the wavelengths, and the order in the array never matters."""

import numpy as np
import pytest
import xarray as xr

from tests.scenes import same_odds
from xcloudmask import testing
from xcloudmask.errors import BandError
from xcloudmask.scene.bands import choose_bands, with_edges
from xcloudmask.types import Band

PIXELS = np.random.default_rng(2).random((4, 70, 50), dtype=np.float32)


def proba(order=(0, 1, 2, 3)):
    names = [("BLUE", "RED", "NIR", "SWIR")[i] for i in order]
    da = xr.DataArray(PIXELS[list(order)], dims=("band", "y", "x"))
    return da.cloudmask.describe("proba-v", bands=names, level="L2A")


def test_a_scene_without_green_is_answered_and_the_order_of_its_bands_changes_nothing():
    whole = proba().cloudmask.predict_proba(testing.ANY_BANDS)
    turned = proba((2, 0, 3, 1)).chunk(band=1, y=33, x=17).cloudmask.predict_proba(testing.ANY_BANDS)
    same_odds(turned.values, whole.values)
    assert float(whole.std()) > 0


def test_the_wavelengths_reach_the_network():
    da = proba()
    moved = da.assign_coords(
        {name: da[name] * 1.3 for name in ("center_wavelength", "full_width_half_max", "min_nm", "max_nm")}
    )
    a, b = (each.cloudmask.predict_proba(testing.ANY_BANDS).values for each in (da, moved))
    assert np.abs(a - b).max() > 1e-4


def test_any_subset_runs_and_too_few_bands_are_refused():
    for count in (2, 3):
        assert (proba()[:count].cloudmask.predict(testing.ANY_BANDS) != 255).all()
    with pytest.raises(BandError, match="needs 2 or more reflectance bands"):
        proba()[:1].cloudmask.predict(testing.ANY_BANDS)
    with pytest.raises(BandError, match="the array has 0"):
        xr.DataArray(PIXELS, dims=("band", "y", "x")).cloudmask.predict(testing.ANY_BANDS)


def test_bands_that_are_not_reflectance_are_left_out():
    bands = [
        Band("B10", kind="brightness_temperature", min_nm=10600, center_nm=10900, max_nm=11200),
        Band("r", "red"),
    ]
    bands.append(Band("n", "nir", 780, 840, 900))
    places, given = choose_bands(bands, testing.ANY_BANDS)
    assert places == (1, 2)
    assert [band.name for band in given] == ["r", "n"]
    assert with_edges(bands[1]).min_nm == 645  # typical, as only the name is known
    assert with_edges(Band("x")) is None
    assert with_edges(Band("x", center_nm=1000.0)).max_nm == pytest.approx(1030)
