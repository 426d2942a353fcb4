"""What an adversary found: each was wrong in silence, or answered with somebody else's error."""

import numpy as np
import pytest
import xarray as xr

from xcloudmask import testing
from xcloudmask.errors import CloudMaskError, NoDataWarning, OptionError, UnitError, UnitWarning

RNG = np.random.default_rng(4)
GOOD = RNG.random((2, 70, 90), dtype=np.float32)


def scene(pixels=GOOD, dy=30.0, dx=30.0, y=None):
    rows = -dy * np.arange(pixels.shape[-2]) if y is None else y
    da = xr.DataArray(pixels, dims=("time", "band", "y", "x")[-pixels.ndim :])
    da = da.assign_coords(y=rows, x=dx * np.arange(pixels.shape[-1])).rio.write_crs(32632)
    return da.cloudmask.describe(bands=["red", "nir"], level="L1C")


@pytest.mark.parametrize(("dy", "dx"), [(30.0, 10.0), (10.0, 30.0), (15.0, 10.0)])
def test_pixels_may_be_longer_than_wide(dy, dx):
    da = scene(dy=dy, dx=dx)
    whole = da.cloudmask.predict_proba(testing.TOY)
    cut = da.chunk(y=23, x=31).cloudmask.predict_proba(testing.TOY)
    np.testing.assert_allclose(cut.values, whole.values, atol=1e-5)
    assert whole.attrs["working_factors"][0] != whole.attrs["working_factors"][1]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.r_[-30.0 * np.arange(35, 70), -30.0 * np.arange(35)], "sortby"),
        (np.zeros(70), "one value twice"),
        (np.r_[np.nan, -30.0 * np.arange(69)], "NaN"),
        (np.r_[-30.0 * np.arange(35), -30.0 * np.arange(135, 170)], "evenly spaced"),
        (np.array([str(i) for i in range(70)]), "must hold numbers"),
    ],
)
def test_rows_must_follow_each_other(y, words):
    with pytest.raises(CloudMaskError, match=words):
        scene(y=y).cloudmask.predict(testing.TOY)


def test_a_scale_lies_along_the_bands_or_is_refused():
    stored = (np.stack([GOOD, GOOD]) * 1e4).astype("u2")
    by_time = scene(stored).assign_coords(scale=("time", [1e-4, 2e-4]))
    with pytest.raises(UnitError, match="rename or drop it"):
        by_time.cloudmask.predict(testing.TOY)
    with pytest.raises(UnitError, match="rename or drop it"):
        scene(stored).assign_coords(scale="10m").cloudmask.predict(testing.TOY)
    with pytest.raises(UnitError, match=r"-1000 that is -0\.1"):
        scene(stored).cloudmask.describe(scale=1e-4, offset=-1000)
    with pytest.raises(UnitError, match="above 0"):
        scene(stored).cloudmask.describe(scale=-1e-4)
    with pytest.raises(CloudMaskError, match="must be a number"):
        scene(stored).cloudmask.describe(scale="a")
    with pytest.raises(UnitError, match="delete them"):
        scene(stored).assign_attrs(scale_factor="a", level="toa").cloudmask.predict(testing.TOY)


@pytest.mark.parametrize("baseline", [5.1, "N0510", "05.10", "N05.10"])
def test_a_baseline_is_known_however_it_is_written(baseline):
    stored = scene((GOOD * 1e4).astype("u2")).cloudmask.describe(scale=1e-4)
    with pytest.warns(UnitWarning, match=r"offset=-0\.1"):
        stored.assign_coords({"s2:processing_baseline": baseline}).chunk().cloudmask.predict(testing.TOY)


def test_a_gap_that_was_not_declared_is_named():
    pixels = GOOD.copy()
    pixels[:, :, :60] = -9999
    with pytest.warns(NoDataWarning, match=r"-9999 are no reflectance.*nodata=-9999"):
        mask = scene(pixels).cloudmask.predict(testing.TOY)
    np.testing.assert_array_equal(mask.values == 255, pixels[0] == -9999)


def test_what_became_of_a_mask_is_not_taken_for_one():
    da = scene()
    mask = da.cloudmask.predict(testing.TOY)
    with pytest.raises(CloudMaskError, match="booleans is no mask"):
        (mask == 0).assign_attrs(mask.attrs).cloudmask.clear_fraction()
    signed = mask.where(mask.y > mask.y.values[20], 255).astype("i1").assign_attrs(mask.attrs)
    expected = float(mask[:20].cloudmask.clear_fraction())
    assert float(signed.cloudmask.clear_fraction()) == pytest.approx(expected)
    as_text = mask.assign_attrs(flag_values="0 1 3 255")
    assert float(as_text.cloudmask.clear_fraction()) == float(mask.cloudmask.clear_fraction())
    for broken in ({"flag_values": [0, 1]}, {"flag_values": None}):
        with pytest.raises(CloudMaskError, match="this is no mask"):
            mask.assign_attrs(broken).cloudmask.clear_fraction()
    for drop in (1, None):
        with pytest.raises(OptionError, match="class"):
            da.cloudmask.apply(mask, drop=drop)
    with pytest.raises(CloudMaskError, match="Give DataArray"):
        da.cloudmask.apply(mask.values)


def test_forms_that_cannot_be_planned_are_told():
    unknown = scene().chunk(y=20).data
    lazy = xr.DataArray(unknown[:, unknown[0, :, 0] > -1], dims=("band", "y", "x"))
    lazy = lazy.cloudmask.describe(bands=["red", "nir"], level="L1C")
    with pytest.raises(CloudMaskError, match="compute_chunk_sizes"):
        lazy.cloudmask.predict(testing.TOY, working_resolution="native")
    with pytest.raises(CloudMaskError, match="rename"):
        scene().expand_dims("class").cloudmask.predict_proba(testing.TOY)
    numbered = scene(np.stack([GOOD, GOOD])).rename(time=0)
    assert numbered.cloudmask.predict(testing.TOY).dims == (0, "y", "x")
    for resolution in (None, (30, 30)):
        with pytest.raises(OptionError, match="such as 30"):
            scene().cloudmask.predict(testing.TOY, working_resolution=resolution)
    with pytest.raises(OptionError, match="sensor in the attributes"):
        scene().assign_attrs(sensor=5).cloudmask.predict(testing.TOY)
    with pytest.raises(CloudMaskError, match="must name every band"):
        scene().cloudmask.describe(bands=3)
