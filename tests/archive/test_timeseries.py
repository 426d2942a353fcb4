"""How clear it was: against the plainest way of counting, lazily, each shard read once."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from xcloudmask.archive import columns
from xcloudmask.archive import timeseries as module
from xcloudmask.archive.timeseries import timeseries
from xcloudmask.errors import CloudMaskError, OptionError, StoreError
from xcloudmask.streaming import ContractError, to_zarr

ATTRS = {"flag_values": [0, 1, 4, 255], "flag_meanings": "clear cloud snow no_data"}
CLEAR = (0, 4)


def masks(steps: int = 12, height: int = 100, width: int = 90, seed: int = 0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.choice(np.array([0, 1, 4, 255], "u1"), (steps, height, width), p=[0.1, 0.4, 0.1, 0.4])
    values[:, 3, 4], values[:, 3, 5] = 1, 255
    values[:, 3, 6] = 1
    values[4, 3, 6] = 0
    values[5] = 255
    # Several views a day, and midnight between two of them.
    hours = np.array([3, 10, 23, 25, 60, 61, 200, 200, 230, 300, 301, 500])[:steps]
    da = xr.DataArray(
        values,
        dims=("time", "y", "x"),
        name="cloud_mask",
        attrs=ATTRS,
        coords={
            "time": np.datetime64("2026-05-01", "ns") + hours * np.timedelta64(1, "h"),
            "y": 4_900_015.0 - 10 * np.arange(height),
            "x": 600_005.0 + 10 * np.arange(width),
            "item_id": ("time", [f"S2A_{step}" for step in range(steps)]),
        },
    )
    return da.rio.write_crs(32632)


def write(mask: xr.DataArray, store: Path) -> Path:
    to_zarr(mask, store, chunks={"y": 16, "x": 16}, shards={"y": 32, "x": 32}, progress=False)
    return store


def by_hand(mask: xr.DataArray) -> dict[str, Any]:
    """The plain way, a pixel at a time."""
    times, shape = mask.time.values, mask.shape[1:]
    out: dict[str, Any] = {
        "clear_count": np.zeros(shape, int),
        "first_clear": np.full(shape, np.datetime64("NaT", "ns")),
        "last_clear": np.full(shape, np.datetime64("NaT", "ns")),
        "longest_gap": np.full(shape, np.timedelta64("NaT", "ns")),
    }
    for at in np.ndindex(*shape):
        seen = times[np.isin(mask.values[(slice(None), *at)], CLEAR)]
        out["clear_count"][at] = len(set(seen.astype("M8[D]")))
        if len(seen):
            out["first_clear"][at], out["last_clear"][at] = seen[0], seen[-1]
        gap = np.diff(seen).max() if len(seen) > 1 else np.timedelta64(0)
        if gap > np.timedelta64(0):
            out["longest_gap"][at] = gap
    return out


@pytest.mark.parametrize("read", [1, 5000, 2**25])
def test_maps_and_fractions_are_those_counted_by_hand(
    read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TILE", 32)
    monkeypatch.setattr(columns, "READ", read)
    monkeypatch.setattr(columns, "CACHED", 300)
    mask = masks()
    found = timeseries(write(mask, tmp_path / "a")).compute(scheduler="sync")
    for name, expected in by_hand(mask).items():
        np.testing.assert_array_equal(found[name].values, expected, err_msg=name)
    valid = (mask != 255).sum(("y", "x")).values
    clear = mask.isin(CLEAR).sum(("y", "x")).values
    np.testing.assert_array_equal(found.clear_fraction.values, clear / np.where(valid, valid, np.nan))
    np.testing.assert_array_equal(found.valid_fraction.values, valid / mask[0].size)
    assert np.isnan(found.clear_fraction.values[5])
    assert list(found.item_id.values) == list(mask.item_id.values)
    assert found.clear_count.rio.crs.to_epsg() == 32632
    only = timeseries(tmp_path / "a", clear=["snow"]).clear_fraction.compute(scheduler="sync")
    np.testing.assert_array_equal(only.values[:5], (mask == 4).sum(("y", "x")).values[:5] / valid[:5])


def test_nothing_is_read_before_and_every_shard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 32)
    write(masks(), tmp_path / "a")
    read: list[Any] = []
    original = zarr.Array.__getitem__

    def note(self: Any, where: Any) -> Any:
        if self.path == "cloud_mask":
            read.append((where[1].start, where[2].start))
        return original(self, where)

    monkeypatch.setattr(zarr.Array, "__getitem__", note)
    found = timeseries(tmp_path / "a")
    again = timeseries(tmp_path / "a")
    assert read == []
    assert set(found.clear_count.data.dask) == set(again.clear_count.data.dask)
    found.compute(scheduler="sync")
    assert sorted(read) == [(y, x) for y in (0, 32, 64, 96) for x in (0, 32, 64)]


def test_areas_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 32)
    mask = masks()
    write(mask, tmp_path / "a")
    labels = xr.zeros_like(mask[0].drop_vars(["time", "item_id"]), dtype="i4")
    labels[10:60, 5:40], labels[50:99, 50:89], labels[0:3, 0:3] = 7, 1000, -2
    for areas in (labels, labels.chunk(y=40).transpose("x", "y")):
        found = timeseries(tmp_path / "a", areas=areas).compute(scheduler="sync")
        assert list(found.area.values) == [7, 1000]
        for number in (7, 1000):
            part = mask.where(labels == number, 255)
            clear = part.isin(CLEAR).sum(("y", "x")) / (part != 255).sum(("y", "x")).where(lambda n: n > 0)
            np.testing.assert_array_equal(found.clear_fraction.sel(area=number).values, clear.values)
    with pytest.raises(CloudMaskError, match=r"another grid .*'y' \(99 and 100"):
        timeseries(tmp_path / "a", areas=labels[1:])
    with pytest.raises(CloudMaskError, match="another grid"):
        timeseries(tmp_path / "a", areas=labels.assign_coords(x=labels.x + 1))
    with pytest.raises(CloudMaskError, match="whole numbers"):
        timeseries(tmp_path / "a", areas=labels.astype("f4"))


def test_a_box_and_a_shape_in_degrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 32)
    mask = masks()
    write(mask, tmp_path / "a")
    part = mask.isel(y=slice(20, 75), x=slice(33, 80))
    west, south, east, north = part.isel(y=slice(1, -1), x=slice(1, -1)).rio.transform_bounds(4326)
    found = timeseries(tmp_path / "a", bbox=(west, south, east, north)).compute(scheduler="sync")
    inner = mask.sel(y=found.y, x=found.x)
    assert 50 <= found.sizes["y"] <= 60
    np.testing.assert_array_equal(
        found.clear_count.values, timeseries(tmp_path / "a").clear_count.sel(y=found.y, x=found.x).values
    )
    clear, valid = inner.isin(CLEAR).sum(("y", "x")).values, (inner != 255).sum(("y", "x")).values
    np.testing.assert_array_equal(found.clear_fraction.values[:5], (clear / np.maximum(valid, 1))[:5])
    triangle = {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [west, north], [west, south]]],
    }
    shaped = timeseries(tmp_path / "a", geometry=triangle).compute(scheduler="sync")
    inside = inner.rio.write_nodata(255).rio.clip([triangle], crs=4326, drop=False)
    clear, valid = inside.isin(CLEAR).sum(("y", "x")).values, (inside != 255).sum(("y", "x")).values
    assert 0 < valid[0] < 0.6 * (inner != 255).sum(("y", "x")).values[0]
    np.testing.assert_allclose(shaped.clear_fraction.values[:5], clear[:5] / valid[:5])
    with pytest.raises(CloudMaskError, match=r"bbox=.*beside the masks, which cover \(10"):
        timeseries(tmp_path / "a", bbox=(1, 2, 3, 4))
    with pytest.raises(CloudMaskError, match="bbox and geometry exclude"):
        timeseries(tmp_path / "a", bbox=(1, 2, 3, 4), geometry=triangle)


def test_what_is_no_series_of_masks_is_named(tmp_path: Path) -> None:
    mask = masks()
    with pytest.raises(ContractError, match="none does not exist"):
        timeseries(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContractError, match="no masks over time"):
        timeseries(tmp_path / "empty")
    write(mask[0].drop_vars(["time", "item_id"]), tmp_path / "one")
    with pytest.raises(ContractError, match=r"dimensions are y, x"):
        timeseries(tmp_path / "one")
    write(mask, tmp_path / "a")
    with pytest.raises(OptionError, match="unknown class 'clera'; did you mean 'clear'"):
        timeseries(tmp_path / "a", clear=["clera"])
    zarr.open_array(tmp_path / "a" / "time", mode="r+")[3] = np.iinfo(np.int64).min
    with pytest.raises(StoreError, match=r"a/time/c/0 is damaged, or was changed by another program"):
        timeseries(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "stream" / "copy")  # as while it is written
    with pytest.raises(CloudMaskError, match="its time is not complete"):
        timeseries(tmp_path / "a")
    with pytest.raises(CloudMaskError, match=r"timeseries needs time, y and x"):
        timeseries(mask[0])
    with pytest.raises(CloudMaskError, match="must be a DataArray or a GeoDataFrame, not list"):
        timeseries(mask, areas=[1])


def test_steps_that_came_late_are_taken_in_the_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "READ", 1)
    mask = masks()
    write(mask.isel(time=[4, 5, 0, 3, 9, 1, 2, 11, 10, 8, 6, 7]), tmp_path / "late")
    write(mask, tmp_path / "sorted")
    late, in_order = (timeseries(tmp_path / name).compute(scheduler="sync") for name in ("late", "sorted"))
    assert late.item_id.values.tolist() == in_order.item_id.values.tolist() == mask.item_id.values.tolist()
    xr.testing.assert_identical(late.drop_vars("item_id"), in_order.drop_vars("item_id"))


@pytest.mark.parametrize("chunks", [None, {"time": 1, "y": 40, "x": 90}, {"time": 5, "y": 100, "x": 33}])
def test_a_mask_in_memory_gives_what_a_store_gives(chunks: Any, tmp_path: Path) -> None:
    mask = masks()
    stored = timeseries(write(mask, tmp_path / "a")).compute(scheduler="sync")
    given = mask if chunks is None else mask.chunk(chunks)
    series = timeseries(given.isel(time=[4, 5, 0, 3, 9, 1, 2, 11, 10, 8, 6, 7]).transpose("y", "time", "x"))
    assert series.item_id.values.tolist() == stored.item_id.values.tolist()
    xr.testing.assert_equal(
        series.drop_vars("item_id").compute(scheduler="sync"), stored.drop_vars("item_id")
    )


class Frame:
    """What is used of a GeoDataFrame, which is not installed with the library."""

    def __init__(self, shapes: dict[str, Any], crs: str) -> None:
        self.crs, self.index, self.geometry = crs, list(shapes), list(shapes.values())

    def to_crs(self, crs: Any) -> "Frame":
        from rasterio.warp import transform_geom

        moved = [transform_geom(self.crs, crs, getattr(s, "__geo_interface__", s)) for s in self.geometry]
        return Frame(dict(zip(self.index, moved, strict=True)), crs)


def test_areas_may_be_a_geodataframe(tmp_path: Path) -> None:
    from shapely.geometry import box, mapping

    mask = masks()
    write(mask, tmp_path / "a")
    left, top = 600_000.0, 4_900_020.0
    shapes = {
        "field": mapping(box(left + 50, top - 600, left + 400, top - 100)),
        "wood": mapping(box(left + 500, top - 900, left + 890, top - 500)),
        "far": mapping(box(left + 9e4, top, left + 9.1e4, top + 500)),
    }
    frame = Frame(shapes, "EPSG:32632").to_crs("EPSG:4326")
    for given in (tmp_path / "a", mask):
        series = timeseries(given, areas=frame).compute(scheduler="sync")
        assert list(series.area.values) == ["field", "wood", "far"]
        for name in ("field", "wood"):
            inside = mask.rio.write_nodata(255).rio.clip([shapes[name]], drop=False)
            clear = inside.isin(CLEAR).sum(("y", "x")) / (inside != 255).sum(("y", "x")).where(
                lambda n: n > 0
            )
            np.testing.assert_array_equal(series.clear_fraction.sel(area=name).values, clear.values)
        assert np.isnan(series.clear_fraction.sel(area="far").values).all()
    both = Frame({"a": shapes["field"], "b": shapes["field"]}, "EPSG:32632")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        timeseries(mask, areas=both)
    assert any("areas= overlap: each of 1750 pixels" in str(warning.message) for warning in caught)


def test_dates_are_ranked_by_what_is_clear_within_an_area() -> None:
    import geopandas
    import shapely

    mask = masks()
    clear, valid = mask.isin(CLEAR), mask != 255
    for given in (mask, mask.chunk(time=5, y=40)):
        ranked = given.cloudmask.rank()
        shares = (clear.sum(("y", "x")) / valid.sum(("y", "x")).where(lambda n: n > 0)).values
        assert ranked.step.values[-1] == 5, "the date without data comes last"
        assert (np.diff(ranked.clear_fraction.values[:-1]) <= 0).all()
        np.testing.assert_array_equal(ranked.clear_fraction.values, shares[ranked.step.values])
        np.testing.assert_array_equal(ranked.time.values, mask.time.values[ranked.step.values])
    field = shapely.box(600_050, 4_899_420, 600_400, 4_899_920)
    frame = geopandas.GeoDataFrame(geometry=[field], crs=32632)
    inside = clear.rio.clip([field], drop=True, all_touched=False)
    part = mask.sel(y=inside.y, x=inside.x)
    want = part.isin(CLEAR).sum(("y", "x")) / (part != 255).sum(("y", "x"))
    degrees = frame.to_crs(4326)
    for area in (degrees, degrees.geometry, degrees.union_all()):
        within = mask.cloudmask.rank("usable_fraction", area=area)
        usable = part.isin(CLEAR).mean(("y", "x")).values
        np.testing.assert_allclose(within.usable_fraction.values, np.sort(usable)[::-1], atol=0.02)
        np.testing.assert_allclose(within.clear_fraction.values, want.values[within.step.values], atol=0.02)
    with pytest.raises(OptionError, match="unknown by 'clear'"):
        mask.cloudmask.rank("clear")
    with pytest.raises(CloudMaskError, match="area= has no CRS"):
        mask.cloudmask.rank(area=geopandas.GeoSeries([field]))


def test_ranks_tell_places_in_the_mask_as_it_is_however_its_dates_lie() -> None:
    mask = masks().isel(time=[3, 0, 2, 1])
    ranked = mask.cloudmask.rank()
    again = mask.isel(time=ranked.step.values).cloudmask.clear_fraction()
    np.testing.assert_array_equal(again.values, ranked.clear_fraction.values)


def test_gaps_are_the_maps_of_the_time_series() -> None:
    mask = masks(height=20, width=20)
    found = mask.chunk(y=7).cloudmask.gaps()
    assert all(variable.chunks is not None for variable in found.data_vars.values())
    for name, values in by_hand(mask).items():
        np.testing.assert_array_equal(found[name].values, values)
    snow = mask.cloudmask.gaps(["snow"]).clear_count
    assert (snow <= found.clear_count).all()


def test_a_thinned_stack_lies_where_its_coordinates_say() -> None:
    import geopandas
    import shapely

    whole = masks()
    kept = whole.rio.write_transform(whole.rio.transform())  # as every scene of open_rasterio has it
    thin, plain = (da[:, ::2, ::2] for da in (kept, whole))
    box = shapely.box(600_400, 4_899_200, 600_800, 4_899_500)
    fields = geopandas.GeoDataFrame(geometry=[box], index=["a"], crs=32632)
    for given in ({"areas": fields}, {"geometry": fields.to_crs(4326).geometry.iloc[0]}):
        found, want = (timeseries(da, **given).compute() for da in (thin, plain))
        xr.testing.assert_equal(found.drop_vars("spatial_ref"), want.drop_vars("spatial_ref"))
        assert want.valid_fraction.max() > 0, "else the case shows nothing"
