"""Fill values of products are no data, though nobody declares them; what lies beside them stays as it is."""

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import noise
from xcloudmask import sensors
from xcloudmask.errors import NoDataWarning, UnitError
from xcloudmask.testing import TOY

SIZE = 70
#: Dark enough for every scale, and never a fill value.
PIXELS = 0.05 + 0.3 * noise(2, SIZE, SIZE)
GAP = np.zeros((SIZE, SIZE), bool)
GAP[20:45, 10:50] = True
WITH_FILL = [name for name in sensors.names() if "fill" in dict(sensors.get(name).metadata)]


def labels(sensor: str | None) -> list[str]:
    """Labels of a red and a near infrared band."""
    if sensor is None:
        return ["red", "nir"]
    bands = {band.common_name: band.name for band in sensors.get(sensor).bands}
    return [str(bands["red"]), str(bands.get("nir08") or bands.get("nir"))]


def scene(stored: np.ndarray, sensor: str | None = None, **how: Any) -> xr.DataArray:
    coords = {"band": labels(sensor), "y": -30.0 * np.arange(SIZE), "x": 30.0 * np.arange(SIZE)}
    da = xr.DataArray(stored, dims=("band", "y", "x"), coords=coords)
    return da.cloudmask.describe(sensor, level="L2A", **how)


def mask(da: xr.DataArray, **how: Any) -> np.ndarray:
    return da.cloudmask.predict(TOY, **how).values


def with_red_and_nir(sensor: str) -> bool:
    return {"red"} < {str(band.common_name) for band in sensors.get(sensor).bands}


@settings(deadline=None, max_examples=25)
@given(
    sensor=st.sampled_from([name for name in WITH_FILL if with_red_and_nir(name)]),
    dtype=st.sampled_from(["u2", "i2", "i4", "f4", "f8"]),
    figures=st.sampled_from([(1e-4, 0.0), (1e-4, -0.1), (2.75e-5, -0.2), (5e-4, 0.0)]),
    rows=st.tuples(st.integers(0, 40), st.integers(1, 30)),
    cols=st.tuples(st.integers(0, 40), st.integers(1, 30)),
    chunk=st.sampled_from([None, 17, 64]),
)
def test_a_block_of_fill_is_no_data_and_changes_no_pixel_outside_it(
    sensor: str, dtype: str, figures: tuple[float, float], rows: Any, cols: Any, chunk: int | None
) -> None:
    scale, offset = figures
    gap = np.zeros((SIZE, SIZE), bool)
    gap[rows[0] : sum(rows), cols[0] : sum(cols)] = True
    counts = ((PIXELS - offset) / scale).round()
    kind = np.dtype(dtype)
    for fill in dict(sensors.get(sensor).metadata)["fill"]:
        if kind.kind in "iu" and not np.iinfo(kind).min <= fill <= np.iinfo(kind).max:
            continue
        holed = np.where(gap, fill, counts.clip(max=30_000)).astype(kind)
        da = scene(holed, sensor, scale=scale, offset=offset)
        da = da if chunk is None else da.chunk(y=chunk, x=chunk)
        by_valid = mask(da, nodata=None, valid=xr.DataArray(~gap, dims=("y", "x")))
        found = mask(da)
        np.testing.assert_array_equal(found == 255, gap)
        np.testing.assert_array_equal(found, by_valid)


@pytest.mark.parametrize("sensor", [name for name in WITH_FILL if with_red_and_nir(name)])
def test_so_it_is_after_somebody_scaled_it(sensor: str) -> None:
    table = dict(sensors.get(sensor).metadata)
    zero = [0.0] if 0 in table["fill"] else []
    for fill in (*zero, *table.get("fill_reflectance", ())):
        for dtype in ("f4", "f8"):
            da = scene(np.where(GAP, fill, PIXELS).astype(dtype), sensor)
            np.testing.assert_array_equal(mask(da) == 255, GAP)


@pytest.mark.parametrize(
    ("stored", "how"),
    [
        ((PIXELS * 1e4).astype("u2"), {"scale": 1e-4, "offset": 0.0}),
        (PIXELS, {}),
        (PIXELS * 1e4, {"scale": 1e-4, "offset": -0.01}),
    ],
)
def test_where_the_sensor_is_not_known_it_is_named(stored: np.ndarray, how: Any) -> None:
    holed = scene(np.where(GAP, 0, stored).astype(stored.dtype), **how)
    for da in (holed, holed.chunk(y=30)):
        with pytest.warns(
            NoDataWarning,
            match=r"are 0 in every band.*nodata=None.*nodata=0 would .*any one",
        ):
            found = mask(da)
        np.testing.assert_array_equal(found == 255, GAP)
        np.testing.assert_array_equal(found, mask(da, nodata=0))
        assert (mask(da, nodata=None) != 255).all()
    assert " 0 in every band (assumed)" in " ".join(repr(holed.cloudmask).split())


def test_who_declares_another_number_has_said_what_no_data_is() -> None:
    da = scene(np.where(GAP, 0, PIXELS).astype("f4"), nodata=-9999)
    assert (mask(da) != 255).all()
    named = scene(np.where(GAP, 0, PIXELS).astype("f4"), "sentinel-2", nodata=-9999)
    np.testing.assert_array_equal(mask(named) == 255, GAP)  # the product still says so


def test_one_band_of_zeros_is_data_and_a_defect() -> None:
    stripe = PIXELS.copy()
    stripe[1, 10:60] = 0
    with pytest.warns(NoDataWarning, match=r"band 2 .* is 0 where the others are not"):
        found = mask(scene(stripe, "sentinel-2"))
    assert (found != 255).all()
    few = PIXELS.copy()
    few[1, 10:12, 10:20] = 0
    assert (mask(scene(few, "sentinel-2")) != 255).all()


@pytest.mark.parametrize("number", [32_767, 65_535])
def test_other_usual_fill_values_are_named_and_stay(number: int) -> None:
    stored = (PIXELS * 1e4).astype("u2")
    stored[:, 10:45, 21:60:5] = number
    with pytest.warns(NoDataWarning, match=f"are {number} in every band are taken as reflectance"):
        found = mask(scene(stored, scale=1e-4, offset=0.0))
    assert (found != 255).all()


def test_a_window_of_nothing_else_is_refused_and_the_message_names_it() -> None:
    stored = np.full((2, SIZE, SIZE), 65_535, "u2")
    with pytest.raises(UnitError, match="if 65535 means no data, nodata=65535"):
        mask(scene(stored, scale=1e-4, offset=0.0))


@pytest.mark.parametrize("number", [21.0, 1e3, 1e4, 9999.0, 32_767.0, 65_535.0])
@pytest.mark.parametrize("rows", [1, 5])
def test_numbers_above_20_are_no_data_and_spoil_nothing(number: float, rows: int) -> None:
    gap = np.zeros((SIZE, SIZE), bool)
    gap[30 : 30 + rows] = True
    da = scene(np.where(gap, number, PIXELS).astype("f4"))
    expected = mask(da, valid=xr.DataArray(~gap, dims=("y", "x")))
    for one in (da, da.chunk(y=33)):
        with pytest.warns(NoDataWarning, match=rf"such as {number:.0f} are no reflectance"):
            found = mask(one)
        np.testing.assert_array_equal(found, expected)


def test_what_is_brighter_than_3_counts_as_3() -> None:
    glint = PIXELS.copy()
    glint[:, 30, 30] = 19.0
    three = PIXELS.copy()
    three[:, 30, 30] = 3.0
    np.testing.assert_array_equal(mask(scene(glint)), mask(scene(three)))
    before = glint.copy()
    mask(scene(glint))
    np.testing.assert_array_equal(glint, before)  # the user's array is left alone


def test_sane_numbers_are_not_touched() -> None:
    from xcloudmask.engine.pixels import calibrate
    from xcloudmask.types import Calibration

    pixels = np.linspace(-0.5, 3, 2 * 64 * 64, dtype="f4").reshape(2, 64, 64)
    values, valid = calibrate(pixels, Calibration())
    assert values is pixels
    assert valid.all()


def test_no_warning_where_nothing_is_odd() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sensor in (None, "sentinel-2", "landsat-8"):
            assert (mask(scene(PIXELS, sensor)) != 255).all()
