"""How clear it was: against the plainest way of counting, lazily, each shard read once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from xcloudmask.archive import columns
from xcloudmask.archive import timeseries as module
from xcloudmask.archive.timeseries import timeseries
from xcloudmask.errors import CloudMaskError, OptionError
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
    with pytest.raises(ContractError, match="no masks over time"):
        timeseries(tmp_path / "none")
    write(mask[0].drop_vars(["time", "item_id"]), tmp_path / "one")
    with pytest.raises(ContractError, match=r"dimensions are y, x"):
        timeseries(tmp_path / "one")
    write(mask, tmp_path / "a")
    with pytest.raises(OptionError, match="unknown class 'clera'; did you mean 'clear'"):
        timeseries(tmp_path / "a", clear=["clera"])
    zarr.open_array(tmp_path / "a" / "time", mode="r+")[3] = np.iinfo(np.int64).min
    with pytest.raises(CloudMaskError, match="If a sync was stopped, run it again"):
        timeseries(tmp_path / "a")
