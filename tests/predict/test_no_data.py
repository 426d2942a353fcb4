"""No data is never clear, and what a gap holds touches nothing."""

import numpy as np
import pytest
import xarray as xr

from tests.scenes import NAMES, noise, scene, weather
from xcloudmask import testing
from xcloudmask.testing import TOY

GAP = np.zeros((90, 90), bool)
GAP[20:50, 30:70] = True
PIXELS = noise(2, 90, 90)


def holed(fill: float, pixels: np.ndarray = PIXELS) -> np.ndarray:
    return np.where(GAP, np.float32(fill), pixels)


def by_valid(fill: float, lazy: bool = False) -> xr.DataArray:
    da = scene(holed(fill), ["red", "nir"], step=10.0)
    da = da.chunk(y=35) if lazy else da
    return da.cloudmask.predict(TOY, valid=xr.DataArray(~GAP, dims=("y", "x")))


EXPECTED = by_valid(0.5).values


def test_the_gap_is_no_data_and_nothing_else_is() -> None:
    np.testing.assert_array_equal(EXPECTED == 255, GAP)


@pytest.mark.parametrize("fill", [-9999.0, 0.0, 0.5, 1e30, np.nan, np.inf])
@pytest.mark.parametrize("lazy", [False, True])
def test_what_a_gap_holds_does_not_matter(fill: float, lazy: bool) -> None:
    np.testing.assert_array_equal(by_valid(fill, lazy).values, EXPECTED)


def test_every_way_to_say_no_data_says_the_same() -> None:
    numbers = scene(holed(-9999), ["red", "nir"], step=10.0)
    counts = (holed(0.3) * 10_000).round()
    expected = scene(np.where(GAP, np.nan, counts / 10_000).astype("f4"), ["red", "nir"], step=10.0)
    whole = np.where(GAP, 65535, counts).astype("u2")
    found = {
        "nodata=": numbers.cloudmask.predict(TOY, nodata=-9999),
        "attrs": numbers.assign_attrs(_FillValue=-9999).cloudmask.predict(TOY),
        "NaN": scene(holed(np.nan), ["red", "nir"], step=10.0).cloudmask.predict(TOY),
        "one band": scene(
            np.stack([PIXELS[0], holed(np.nan)[1]]), ["red", "nir"], step=10.0
        ).cloudmask.predict(TOY),
    }
    for way, mask in found.items():
        np.testing.assert_array_equal(mask.values, EXPECTED, err_msg=way)
    integers = scene(whole, ["red", "nir"], step=10.0).cloudmask.describe(scale=1e-4, offset=0.0)
    agree = (
        integers.cloudmask.predict(TOY, nodata=65535).values == expected.cloudmask.predict(TOY).values
    ).mean()
    assert agree > 0.999  # other roundings of the same reflectance
    np.testing.assert_array_equal(integers.cloudmask.predict(TOY, nodata=65535).values == 255, GAP)


def test_probabilities_are_nan_in_the_gap_alone() -> None:
    odds = scene(holed(np.nan), ["red", "nir"], step=10.0).chunk(x=50).cloudmask.predict_proba(TOY)
    np.testing.assert_array_equal(np.isnan(odds.values), np.broadcast_to(GAP, odds.shape))
    np.testing.assert_allclose(odds.sum("class").where(~GAP, 1), 1, atol=1e-5)


def test_a_gap_a_cell_wide_at_the_working_resolution() -> None:
    """3 x 3 pixels, one cell: its neighbours' probabilities are drawn from their own cells only."""
    pixels = noise(2, 96, 96)
    pixels[:, 30:33, 30:33] = np.nan
    mask = scene(pixels, ["red", "nir"], step=10.0).cloudmask.predict(TOY)
    expected = np.zeros((96, 96), bool)
    expected[30:33, 30:33] = True
    np.testing.assert_array_equal(mask.values == 255, expected)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("step", [10.0, 30.0])
@pytest.mark.filterwarnings("ignore:model 'silent' answers with numbers that are not finite")
def test_a_network_that_answers_nan_gives_no_data_there(lazy: bool, step: float) -> None:
    pixels = np.full((1, 96, 96), 0.4, np.float32)
    pixels[0, 39:51, 39:51] = 0.9  # the model answers NaN above 0.8
    da = scene(pixels, ["red"], step=step)
    da = da.chunk(y=31) if lazy else da
    mask = da.cloudmask.predict(testing.ANSWERS_NAN).values
    silent = np.zeros((96, 96), bool)
    silent[39:51, 39:51] = True  # whole cells of 3, and not one pixel of their neighbours
    np.testing.assert_array_equal(mask == 255, silent)
    odds = da.cloudmask.predict_proba(testing.ANSWERS_NAN).values
    np.testing.assert_array_equal(np.isnan(odds).all(axis=0), silent)
    np.testing.assert_array_equal(np.isnan(odds).any(axis=0), silent)
    np.testing.assert_allclose(odds[:, ~silent].T - odds[:, 0, 0], 0, atol=1e-6)  # else the field is constant


@pytest.mark.network
def test_the_real_network_marks_a_gap_that_ukis_takes_for_valid() -> None:
    pixels = weather(256, 256, bands=4)
    for fill in (-9999.0, np.nan):
        holed = pixels.copy()
        holed[:, 100:160, 60:120] = fill
        mask = scene(holed, NAMES[:4]).cloudmask.predict("ukis-4band-l1c", nodata=-9999).values
        assert (mask[100:160, 60:120] == 255).all()
        assert (mask == 255).sum() == 60 * 60
