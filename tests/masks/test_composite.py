"""One picture of many dates: against a pixel at a time, for any chunks, reading no more than it must."""

from itertools import product

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask  # noqa: F401
from tests.masks.counting import counting
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.masks import series

FLAGS = {"flag_values": [0, 1, 4, 255], "flag_meanings": "clear cloud snow no_data"}
METHODS = ("median", "medoid", "best", "latest")
START = np.datetime64("2026-04-20", "ns")


def a_stack(seed=0, dates=6, bands=2, side=(4, 5)):
    """A scene and its mask, dates not in order, some of a day; NaN in single bands."""
    rng = np.random.default_rng(seed)
    days = rng.choice(120, dates, replace=False)
    coords = {"time": START + days * np.timedelta64(1, "D")}
    pixels = rng.integers(0, 6, (dates, bands, *side)).astype("f4") / 4  # few values: ties occur
    pixels[rng.random(pixels.shape) < 0.1] = np.nan
    codes = rng.choice([0, 1, 4, 255], (dates, *side), p=[0.5, 0.3, 0.1, 0.1]).astype("u1")
    scene = xr.DataArray(pixels, dims=("time", "band", "y", "x"), coords={
        **coords, "band": ["red", "nir", "swir16"][:bands]})  # fmt: skip
    return scene, xr.DataArray(codes, dims=("time", "y", "x"), coords=coords, attrs=FLAGS)


def by_hand(scene, mask, method, by):
    """The plain way: median and clear views by period and pixel, and of which dates each picture may be."""
    order = sorted(range(mask.time.size), key=lambda i: mask.time.values[i])
    times = pd.DatetimeIndex(mask.time.values)
    labels = [times[i].to_period("M").start_time if by else times[order[0]] for i in range(len(times))]
    clear = np.isin(mask.values, (0, 4))
    share = [clear[i].sum() / max(1, (mask.values[i] != 255).sum()) for i in range(len(times))]
    periods = sorted(set(labels))
    shape = (len(periods), *scene.shape[2:])
    median = np.full((shape[0], scene.sizes["band"], *shape[1:]), np.nan, "f4")
    views, dates = np.zeros(shape, int), {}
    for p, y, x in product(*map(range, shape)):
        seen = [i for i in order if labels[i] == periods[p] and clear[i, y, x]
                and not np.isnan(scene.values[i, :, y, x]).any()]  # fmt: skip
        views[p, y, x] = len(seen)
        if seen:
            vectors = [scene.values[i, :, y, x].astype(float) for i in seen]
            median[p, :, y, x] = np.median(vectors, axis=0)
            costs = np.array({
                "median": [0 for _ in seen],
                "latest": [-order.index(i) for i in seen],
                "best": [-share[i] + order.index(i) / 1e9 for i in seen],
                "medoid": [sum(np.linalg.norm(v - w) for w in vectors) for v in vectors],
            }[method])  # fmt: skip
            slack = 1e-4 if method == "medoid" else 0  # of views as near to all, rounding may choose
            dates[p, y, x] = [i for i, cost in zip(seen, costs, strict=True) if cost <= costs.min() + slack]
    return median, views, dates


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 7), st.sampled_from(METHODS), st.booleans(),
    st.tuples(st.integers(1, 6), st.integers(1, 2), st.integers(1, 4), st.integers(1, 5)),
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5)), st.booleans(),
)  # fmt: skip
def test_any_chunks_give_what_a_pixel_at_a_time_gives(seed, dates, method, by, cuts, mask_cuts, lazy_mask):
    scene, mask = a_stack(seed, dates)
    median, views, allowed = by_hand(scene, mask, method, by)
    made = scene.cloudmask.composite(mask, method, by="month" if by else None, sources=True)
    assert made.composite.dims == scene.dims
    np.testing.assert_array_equal(made.views.values, views)
    if method == "median":
        np.testing.assert_array_equal(made.composite.values, median)
    else:
        for p, y, x in np.ndindex(views.shape):
            if views[p, y, x]:
                at = list(mask.time.values).index(made.date.values[p, y, x])
                assert at in allowed[p, y, x]
                np.testing.assert_array_equal(made.composite.values[p, :, y, x], scene.values[at, :, y, x])
            else:
                assert np.isnat(made.date.values[p, y, x])
                assert np.isnan(made.composite.values[p, :, y, x]).all()
    lazy = scene.chunk(dict(zip(scene.dims, cuts, strict=True)))
    given_mask = mask.chunk(dict(zip(mask.dims, mask_cuts, strict=True))) if lazy_mask else mask
    given_scene = scene if lazy_mask and seed % 2 else lazy
    found = given_scene.cloudmask.composite(given_mask, method, by="month" if by else None, sources=True)
    assert found.composite.chunks is not None
    xr.testing.assert_identical(found.compute(scheduler="sync"), made)


@pytest.mark.parametrize("method", METHODS)
def test_whole_series_are_cut_into_rows_where_they_would_be_large(method, monkeypatch):
    scene, mask = a_stack(5)
    whole = scene.cloudmask.composite(mask, method)
    monkeypatch.setattr(series, "BLOCK", 6 * 2 * 4 * 5)
    cut = scene.chunk(time=1).cloudmask.composite(mask.chunk(time=1), method)
    assert cut.chunksizes["y"] == (1, 1, 1, 1)
    xr.testing.assert_identical(cut.compute(), whole)


def test_nothing_is_read_of_cloudy_dates_nor_where_nothing_is_clear():
    codes = np.zeros((4, 4, 6), "u1")
    codes[0, :, :3] = 1  # date 0: half clear, its left chunk cloudy all over
    codes[1] = 1
    codes[1, 0, 0] = 0  # date 1: not clear enough
    codes[3] = 255
    time = {"time": START + np.arange(4) * np.timedelta64(1, "D")}
    mask = xr.DataArray(codes, dims=("time", "y", "x"), coords=time, attrs=FLAGS)
    scene, reads = counting(np.random.default_rng(0).random((4, 2, 4, 6)).astype("f4"), (1, 1, 4, 3), time)
    made = scene.cloudmask.composite(mask.chunk(time=1), "latest", min_clear=0.3)
    assert reads == []
    values = made.values
    assert sorted(reads) == sorted(
        [(0, b, 0, 1) for b in (0, 1)] + [(2, b, 0, c) for b in (0, 1) for c in (0, 1)]
    )
    everything = scene.compute().cloudmask.composite(mask, "latest", min_clear=0.3)
    np.testing.assert_array_equal(values, everything.values)


def test_a_period_whose_dates_are_all_cloudy_stays_and_is_nan():
    scene, mask = a_stack(0, side=(2, 2))
    mask = mask.assign_coords(time=START + np.array([0, 1, 2, 20, 21, 22]) * np.timedelta64(1, "D"))
    scene = scene.fillna(0).assign_coords(time=mask.time)
    mask[:3], mask[3:] = 1, 0
    for here in (scene, scene.chunk(time=2, y=1)):
        made = here.cloudmask.composite(mask, by="month", min_clear=0.5, sources=True).compute()
        assert [str(t)[:7] for t in made.time.values] == ["2026-04", "2026-05"]
        assert made.composite.sel(time="2026-04").isnull().all()
        assert made.composite.sel(time="2026-05").notnull().all()
        assert made.views.values[:, 0, 0].tolist() == [0, 3]


def test_periods_may_be_lengths_labels_and_names():
    scene, mask = a_stack(1)
    assert scene.cloudmask.composite(mask, by="year").sizes["time"] == 1
    assert scene.cloudmask.composite(mask, by="40D").sizes["time"] <= 4
    months = scene.cloudmask.composite(mask, by=mask.time.dt.month)
    assert months.time.values.tolist() == sorted(set(mask.time.dt.month.values.tolist()))
    named = scene.cloudmask.composite(mask, by="month")
    np.testing.assert_array_equal(months.values, named.values)


def test_quality_decides_by_pixel_where_it_is_given():
    scene, mask = a_stack(2)
    odds = xr.DataArray(np.random.default_rng(1).random(mask.shape), dims=mask.dims, coords=mask.coords)
    made = scene.cloudmask.composite(mask, "best", quality=odds, sources=True)
    good = mask.isin((0, 4)) & scene.notnull().all("band")
    best = odds.where(good, -1).sortby("time").idxmax("time").where(good.any("time"))
    np.testing.assert_array_equal(made.date.values[0], best.values)


def test_a_dataset_gives_a_dataset_of_its_bands():
    scene, mask = a_stack(4)
    ds = scene.to_dataset("band").chunk(y=2)
    ds["scl"] = mask.drop_attrs()
    ds.red.attrs = {"long_name": "red", "_FillValue": -9}
    made = ds[["red", "nir"]].cloudmask.composite(mask, "medoid", sources=True)
    assert list(made) == ["red", "nir", "views", "date"]
    assert made.red.attrs == {"long_name": "red"}
    whole = scene.cloudmask.composite(mask, "medoid")
    np.testing.assert_array_equal(made.nir.transpose("time", "y", "x").values, whole.sel(band="nir").values)
    chosen = ds[["red", "nir"]].cloudmask.select_clear(mask, 0.5)
    assert list(chosen) == ["red", "nir"]
    np.testing.assert_array_equal(chosen.time.values, scene.cloudmask.select_clear(mask, 0.5).time.values)


def test_integers_become_floats_and_one_band_needs_no_dimension():
    scene, mask = a_stack(6, bands=1)
    stored = (scene.fillna(0) * 1e4).astype("u2").isel(band=0, drop=True)
    made = stored.cloudmask.composite(mask, "median")
    assert made.dtype == np.float32
    assert made.dims == ("time", "y", "x")
    assert made.attrs["composite"] == "median"
    views = stored.where(mask.isin((0, 4)))
    np.testing.assert_allclose(made.values[0], views.median("time").values)
    gaps = stored.assign_attrs(_FillValue=2500)
    np.testing.assert_allclose(
        gaps.cloudmask.composite(mask).values[0], views.where(stored != 2500).median("time").values
    )


def test_what_cannot_be_meant_is_refused():
    scene, mask = a_stack(7)
    with pytest.raises(OptionError, match="did you mean 'median'"):
        scene.cloudmask.composite(mask, "medain")
    with pytest.raises(OptionError, match="unknown by 'fortnight'"):
        scene.cloudmask.composite(mask, by="fortnight")
    with pytest.raises(CloudMaskError, match="method='median' takes none"):
        scene.cloudmask.composite(mask, quality=mask)
    with pytest.raises(CloudMaskError, match="min_clear=30 must be a share"):
        scene.cloudmask.composite(mask, min_clear=30)
    with pytest.raises(CloudMaskError, match="a date for each step"):
        scene.assign_coords(time=np.arange(6)).cloudmask.composite(mask.assign_coords(time=np.arange(6)))
    with pytest.raises(CloudMaskError, match="a date for each step"):
        scene.isel(time=0).cloudmask.composite(mask.isel(time=0))
    for other in (mask[:3], mask[0], scene):
        with pytest.raises(CloudMaskError, match="quality= has sizes"):
            scene.cloudmask.composite(mask, "best", quality=other)
    with pytest.raises(CloudMaskError, match="this is no mask"):
        scene.cloudmask.composite(scene)
    with pytest.raises(CloudMaskError, match="by= lies over"):
        scene.cloudmask.composite(mask, by=mask.time.dt.month[:3])


def test_coordinates_stay_but_for_those_of_dates():
    scene, mask = a_stack(9)
    scene = scene.assign_coords(wave=("band", [0.66, 0.84]), item=("time", list("abcdef")), spatial_ref=0)
    for here in (scene, scene.copy(data=scene.chunk().data)):
        made = here.cloudmask.composite(mask, by="month")
        assert set(made.coords) == {"band", "time", "wave", "spatial_ref"}
        assert made.wave.chunks is None
        np.testing.assert_array_equal(made.wave.values, scene.wave.values)


def test_building_it_computes_nothing():
    def fail(block):
        raise AssertionError("computed")

    scene, mask = a_stack(8)
    never = scene.chunk(y=2).map_blocks(lambda b: b, template=scene.chunk(y=2))
    never = never.copy(data=da.map_blocks(fail, never.data, dtype="f4", meta=np.empty((0,) * 4, "f4")))
    for method in METHODS:
        made = never.cloudmask.composite(mask.chunk(y=2), method, by="month", sources=True)
        assert all(variable.chunks is not None for variable in made.data_vars.values())


def test_weeks_begin_on_monday_and_are_named_by_it():
    times = np.array(["2026-06-01", "2026-06-07", "2026-06-08"], "M8[ns]")  # Monday, Sunday, Monday
    scene = xr.DataArray([1.0, 2, 3], dims="time", coords={"time": times}).expand_dims(y=1, x=1)
    mask = xr.zeros_like(scene, np.uint8).assign_attrs(FLAGS)
    made = scene.cloudmask.composite(mask, "latest", by="week")
    np.testing.assert_array_equal(made.time.values, times[[0, 2]])
    assert made.values.ravel().tolist() == [2, 3]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bands", "clear"),
    [
        ("u2", {"red": [0, 0, 3200], "nir": [0, 3000, 3300]}, 2),  # 0 in one band is a number
        ("u2", {"red": [0, 3000, 3200]}, 2),
        ("f4", {"red": [-0.1, -0.1, 0.2], "nir": [-0.1, 0.1, 0.3]}, 2),
    ],
)
def test_what_fills_the_products_of_a_sensor_is_no_view(dtype, bands, clear, lazy):
    times = np.array(["2026-06-01", "2026-06-03", "2026-06-05"], "M8[ns]")
    scene = xr.DataArray(np.array(list(bands.values()), dtype).reshape(-1, 3, 1, 1),
                         dims=("band", "time", "y", "x"), coords={"time": times})  # fmt: skip
    units = {"scale": 1e-4, "offset": -0.1} if dtype == "u2" else {}
    known = scene.cloudmask.describe("sentinel-2a", bands=list(bands), level="L2A", **units)
    mask = xr.DataArray(
        np.zeros((3, 1, 1), "u1"), dims=("time", "y", "x"), coords={"time": times}, attrs=FLAGS
    )
    known = known.chunk(band=1) if lazy else known
    assert known.cloudmask.composite(mask, sources=True).views.values.item() == clear
    assert scene.cloudmask.composite(mask, sources=True).views.values.item() == 3, "of no known sensor"


def test_quality_of_other_dates_is_refused():
    scene, mask = a_stack(2)
    for odds in (xr.ones_like(mask, float), xr.ones_like(mask.time, float)):
        assert scene.cloudmask.composite(mask, "best", quality=odds).sizes["time"] == 1
        with pytest.raises(CloudMaskError, match="quality= and the mask have other coordinates"):
            scene.cloudmask.composite(mask, "best", quality=odds.sortby("time"))
