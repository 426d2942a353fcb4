"""The result is a function of the pixels: never of chunks, batches, order of dimensions, or who computes."""

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scenes import NAMES, chunks, noise, same_odds, scene, weather
from xcloudmask.engine import run_dask
from xcloudmask.testing import TOY

BANDS = ["red", "nir"]


@st.composite
def gappy(draw: st.DrawFn) -> np.ndarray:
    """(time, band, y, x) noise with holes: NaN, or one band only, or a whole date."""
    height, width = draw(st.integers(1, 110)), draw(st.integers(2, 110))
    pixels = noise(2, 2, height, width, seed=height * 131 + width)
    for _ in range(draw(st.integers(0, 3))):
        top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
        size = draw(st.sampled_from([1, 40, 200]))
        bands = draw(st.sampled_from([slice(None), slice(1)]))
        pixels[draw(st.integers(0, 1)), bands, top : top + size, left : left + size] = np.nan
    return pixels


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), pixels=gappy())
def test_any_chunking_and_batch(data: st.DataObject, pixels: np.ndarray) -> None:
    height, width = pixels.shape[-2:]
    patch = data.draw(st.sampled_from([None, 32, 48]))  # None: chosen for the scene
    options: dict[str, Any] = {
        "model": replace(TOY, largest_patch=96),
        "patch_size": patch,
        "overlap": data.draw(st.sampled_from([0, 1, 16, 27, (patch or 32) - 3])),
        "working_resolution": data.draw(st.sampled_from(["auto", "native", 60])),
    }
    da = scene(pixels, BANDS, step=data.draw(st.sampled_from([10.0, 30.0])))
    if data.draw(st.booleans()):
        da = da.isel(y=slice(None, None, -1))
    cut = {
        "time": data.draw(st.sampled_from([1, 2])),
        "band": data.draw(st.sampled_from([1, 2])),
        "y": data.draw(chunks(height)),
        "x": data.draw(chunks(width)),
    }
    # Strips are cut, or chunks passed on whole, or some of each.
    small = data.draw(st.sampled_from([0, 400, run_dask.SMALL]))
    with mock.patch.object(run_dask, "SMALL", small):
        compare(da, cut, options, data.draw(st.sampled_from([2, 3, 16])))


def compare(da: xr.DataArray, cut: dict[str, Any], options: dict[str, Any], batch: int) -> None:
    whole = da.cloudmask.predict_proba(**options)
    lazy = da.chunk(cut).cloudmask.predict_proba(**options)
    assert lazy.chunksizes == {**lazy.chunksizes, **{dim: da.chunk(cut).chunksizes[dim] for dim in "yx"}}
    same_odds(lazy.values, whole.values)
    batched = da.chunk(cut).cloudmask.predict_proba(batch_size=batch, **options)
    np.testing.assert_allclose(batched.values, whole.values, atol=1e-5, rtol=0)
    classes = da.cloudmask.predict(**options)
    found = da.chunk(cut).cloudmask.predict(**options)
    np.testing.assert_array_equal(found.values, classes.values)
    gap = np.isnan(da.values).any(axis=1)
    assert (gap == (classes.values == 255)).all()
    assert (gap == np.isnan(whole.values).any(axis=1)).all()


PIXELS = noise(2, 2, 70, 50)


@pytest.mark.parametrize("chunk", [None, {"x": 20}, {"y": 1, "x": 50}, {"time": 1, "band": 1}])
@pytest.mark.parametrize(
    "order", [("time", "band", "y", "x"), ("x", "y", "band", "time"), ("y", "time", "x", "band")]
)
def test_dimensions_in_any_order_keep_it(order: tuple[str, ...], chunk: dict[str, int] | None) -> None:
    da = scene(PIXELS, BANDS)
    expected = da.cloudmask.predict(TOY)
    turned = da.transpose(*order)
    turned = turned if chunk is None else turned.chunk(chunk)
    mask = turned.cloudmask.predict(TOY)
    assert mask.dims == tuple(dim for dim in order if dim != "band")
    np.testing.assert_array_equal(mask.transpose(*expected.dims).values, expected.values)
    odds = turned.cloudmask.predict_proba(TOY)
    assert odds.dims == tuple("class" if dim == "band" else dim for dim in order)


def test_latitude_and_longitude_give_what_metres_give() -> None:
    expected = scene(PIXELS, BANDS).cloudmask.predict(TOY)
    degrees = 30 / 111_320
    da = scene(PIXELS, BANDS).rename(y="latitude", x="longitude")
    da = da.assign_coords(latitude=da.latitude * degrees / 30, longitude=da.longitude * degrees / 30)
    for source in (da, da.chunk(latitude=33)):
        mask = source.cloudmask.predict(TOY)
        assert mask.dims == ("time", "latitude", "longitude")
        np.testing.assert_array_equal(mask.values, expected.values)


def test_windows_lie_where_the_array_begins_whichever_way_y_runs() -> None:
    """Ascending y is a mirrored array, not a mirrored plan: stored order decides, names and signs do not."""
    south_up = scene(PIXELS, BANDS).assign_coords(y=30.0 * np.arange(70))
    np.testing.assert_array_equal(
        south_up.cloudmask.predict(TOY).values, scene(PIXELS, BANDS).cloudmask.predict(TOY).values
    )


def test_each_date_and_any_further_dimension_is_masked_by_itself() -> None:
    together = scene(PIXELS, BANDS)
    deep = xr.concat([together, together[::-1]], dim="run").chunk(run=1, time=2, y=40)
    mask = deep.cloudmask.predict(TOY)
    assert mask.sizes == {"run": 2, "time": 2, "y": 70, "x": 50}
    for date in range(2):
        alone = together.isel(time=date).cloudmask.predict(TOY).values
        np.testing.assert_array_equal(mask.isel(run=0, time=date).values, alone)
        np.testing.assert_array_equal(mask.isel(run=1, time=1 - date).values, alone)


def test_batches_of_any_size_give_the_same_classes() -> None:
    da = scene(noise(2, 150, 150), BANDS).chunk(y=80)
    expected = da.cloudmask.predict(TOY).values
    for batch in (1, 2, 5, 1000):
        np.testing.assert_array_equal(da.cloudmask.predict(TOY, batch_size=batch).values, expected)


@pytest.mark.network
@pytest.mark.parametrize("chunk", [{"y": 150, "x": 101, "band": 1}, {"y": (1, 255, 44), "x": 260}])
def test_the_real_network(chunk: dict[str, Any]) -> None:
    pixels = weather(300, 260, bands=4)
    pixels[:, 120:180, 30:90] = np.nan
    da = scene(pixels, NAMES[:4])
    expected = da.cloudmask.predict_proba("ukis-4band-l1c")
    same_odds(da.chunk(chunk).cloudmask.predict_proba("ukis-4band-l1c").values, expected.values)
    mask = da.chunk(chunk).cloudmask.predict("ukis-4band-l1c")
    np.testing.assert_array_equal(mask.values, da.cloudmask.predict("ukis-4band-l1c").values)
    assert len(np.unique(mask)) > 2


@pytest.mark.parametrize(
    "chunk", [{"y": (1, 50, 79), "x": 37}, {"y": 65, "x": (30, 5, 75)}, {"y": 7, "x": 9}]
)
@pytest.mark.parametrize("step", [10.0, 30.0])
def test_ragged_chunks_and_chunks_smaller_than_a_patch(chunk: dict[str, Any], step: float) -> None:
    da = scene(noise(2, 130, 110), BANDS, step=step)
    expected = da.cloudmask.predict_proba(TOY).values
    same_odds(da.chunk(chunk).cloudmask.predict_proba(TOY).values, expected)
