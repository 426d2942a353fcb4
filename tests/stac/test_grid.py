"""The grid of a stack: extents, zones, mosaics; the same with both engines."""

from __future__ import annotations

import json
import re
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stac import scenes
from tests.stac.helpers import ENGINES, equal, occur_in
from tests.stac.scenes import Site, landsat2, sentinel2
from xcloudmask.errors import CloudMaskError
from xcloudmask.stac import load_stac

# ------------------------------------------------------------------------------------------------------- grid


@pytest.mark.parametrize("kind", ["bbox", "geometry"])
def test_a_part_is_cut_out_on_the_items_pixels(site, engine, kind):
    scene = sentinel2(site, "earth-search-c1")
    box = (10.260, 44.235, 10.262, 44.237)
    part = {"bbox": box} if kind == "bbox" else {"geometry": scenes.outline(*box)["geometry"]}
    da = load_stac([scene.item], bands=["red"], engine=engine, chunks=7, **part)
    whole = load_stac([scene.item], bands=["red"], engine=engine)
    assert 15 < da.sizes["x"] < 25
    xr.testing.assert_equal(da.compute(), whole.sel(x=da.x, y=da.y).compute())


def test_the_grid_of_another_array(site, engine):
    s2, landsat = sentinel2(site, "cdse"), landsat2(site, "planetary-computer")
    model = load_stac([s2.item], bands=["red"], bbox=(10.260, 44.235, 10.262, 44.237))
    da = load_stac([landsat.item], bands=["red"], like=model, engine=engine)
    assert da.x.equals(model.x)
    assert da.y.equals(model.y)
    assert da.rio.crs == model.rio.crs
    thirds = xr.DataArray(np.zeros((7, 9)), dims=("y", "x"), name="thirds", coords={
        "y": np.linspace(44.25, 44.24, 7), "x": 10.25 + np.cumsum(np.full(9, 1 / 900)),
    }).rio.write_crs(4326)  # fmt: skip
    assert load_stac([landsat.item], bands=["red"], like=thirds, engine=engine).x.equals(thirds.x)
    with pytest.raises(CloudMaskError, match="leave out resolution"):
        load_stac([landsat.item], like=model, resolution=10)


def test_another_crs_and_resolution(site):
    scene = sentinel2(site, "earth-search-c1")
    loaded = [
        load_stac([scene.item], bands=["red"], crs="EPSG:3035", resolution=20, engine=engine).compute()
        for engine in ENGINES
    ]
    assert loaded[0].identical(loaded[1])
    assert loaded[0].rio.crs.to_epsg() == 3035
    assert loaded[0].rio.resolution() == (20.0, -20.0)
    assert 0.75 < loaded[0].notnull().mean() < 1
    assert occur_in(loaded[0].values, scene.expected["red"])


def test_bilinear_does_not_mix_in_no_data(site, engine):
    scene = sentinel2(site, "planetary-computer")
    da = load_stac([scene.item], bands=["red"], resolution=15, resampling="bilinear", engine=engine)
    values = da.values[~np.isnan(da.values)]
    low, high = np.nanmin(scene.expected["red"]), np.nanmax(scene.expected["red"])
    assert low - 1e-6 <= values.min() < values.max() <= high + 1e-6


@pytest.mark.parametrize("chunks", [50, "auto", (40, 60), {"y": 30, "x": -1}, 10**6])
def test_chunks_do_not_change_pixels(site, engine, chunks):
    scene = sentinel2(site, "earth-search-c1")
    da = load_stac([scene.item], bands=["red", "swir16"], engine=engine, chunks=chunks)
    equal(da.sel(band="red").isel(time=0), scene.expected["red"])
    equal(da.sel(band="swir16").isel(time=0), scene.expected["swir16"])


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """One file larger than the blocks that are warped, noisy from pixel to pixel; and its item."""
    root = tmp_path_factory.mktemp("tile")
    numbers = scenes.numbers("tile", 620, 1200, 9000)
    place = [10, 0, scenes.LEFT, 0, -10, scenes.TOP]
    href, _ = Site(root, str(root)).write("tile.tif", numbers, Affine(*place), "EPSG:32632", 0)
    figures = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
    red = {"href": href, "proj:shape": [620, 620], "proj:transform": place, "raster:bands": [figures]}
    properties = {"datetime": "2024-05-17T10:10:31Z", "s2:processing_baseline": "05.10", "proj:epsg": 32632}
    return numbers, scenes.item("S2A_x", "sentinel-2-c1-l2a", "1.0.0", properties, {"red": red})


@lru_cache(maxsize=100)
def _whole(item, crs, resolution, method):
    """Return the pixels that one chunk gives."""
    options = {"crs": crs, "resolution": resolution, "resampling": method}
    return load_stac(json.loads(item), bands=["red"], chunks=-1, **options).values


@settings(max_examples=15, deadline=None)
@given(
    chunks=st.tuples(st.integers(90, 700), st.integers(90, 700)),
    grid=st.sampled_from([("EPSG:32632", 7.0), ("EPSG:32632", 23.0), ("EPSG:3035", 10), ("EPSG:4326", 1e-4)]),
    method=st.sampled_from(["nearest", "bilinear", "cubic", "average"]),
    engine=st.sampled_from(ENGINES),
)
def test_chunks_do_not_change_pixels_on_another_grid(tile, chunks, grid, method, engine):
    """To the last bit: GDAL's short cuts depend on the rectangle asked for, so that must not be the chunk."""
    crs, resolution = grid
    options = {"crs": crs, "resolution": resolution, "resampling": method}
    da = load_stac(tile[1], bands=["red"], chunks=chunks, engine=engine, **options)
    np.testing.assert_array_equal(da.values, _whole(json.dumps(tile[1]), crs, resolution, method))


def test_pixels_on_another_grid_are_those_that_lie_there(tile):
    """Away from the pixels' edges by a hundredth, each is the one that holds its centre."""
    from pyproj import Transformer

    numbers, item = tile
    da = load_stac(item, bands=["red"], crs="EPSG:3035", resolution=10)[0, 0]
    x, y = np.meshgrid(da.x, da.y)
    x, y = Transformer.from_crs(3035, 32632, always_xy=True).transform(x, y)
    column, row = (x - scenes.LEFT) / 10, (scenes.TOP - y) / 10
    clear = (np.abs(column - np.rint(column)) > 0.01) & (np.abs(row - np.rint(row)) > 0.01)
    clear &= (column > 0) & (column < 620) & (row > 0) & (row < 620)
    want = scenes.known(numbers, 1e-4, -0.1)[row[clear].astype(int), column[clear].astype(int)]
    assert clear.sum() > 300_000
    equal(da.values[clear], want)


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunks": 0}, {"chunks": "big"}, {"chunks": {"z": 1}}, {"engine": "gdal"}, {"mosaic": "week"},
        {"resolution": -10}, {"resampling": "best"}, {"on_error": "ignore"}, {"retries": -1},
        {"dtype": "int8"},
        {"crs": "EPSG:0"}, {"bbox": (1, 2, 3)}, {"bbox": (600000, 0, 600010, 10)}, {"geometry": "here"},
        {"level": "L3"}, {"duplicates": "drop"}, {"timeout": 0}, {"patch_url": "x"},
        {"sentinel2_offset": "maybe"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_told(site, wrong):
    scene = sentinel2(site, "earth-search-c1")
    with pytest.raises(CloudMaskError, match=re.escape(str(next(iter(wrong.values())))[:6].strip("{("))):
        load_stac([scene.item], **wrong)


# ---------------------------------------------------------------------------------------------------- mosaics


def test_a_day_is_merged_where_it_was_day(site):
    """Two tiles side by side, of one solar day that is two days of UTC, far from Greenwich."""
    tiles = [
        sentinel2(site, "cdse", epsg=32701, left=500000 + n * 2000, top=8119980, date=date, tag=str(n))
        for n, date in enumerate(("2024-05-16T23:59:50Z", "2024-05-17T00:00:05Z"))
    ]
    other = sentinel2(
        site, "cdse", epsg=32701, left=500000, top=8119980, date="2024-05-18T00:00:00Z", tag="x"
    )
    for scene in (*tiles, other):
        scene.item.update(scenes.outline(-177.0, -16.99, -176.9, -16.9))
    items = [scene.item for scene in (*tiles, other)]
    loaded = [load_stac(items, bands=["red"], mosaic="day", engine=e, chunks=128).compute() for e in ENGINES]
    assert loaded[0].identical(loaded[1])
    da = loaded[0]
    assert da.item_id.values.tolist() == [f"{items[0]['id']}+{items[1]['id']}", items[2]["id"]]
    width = da.sizes["x"]
    want = np.full((2, 288, width), np.nan)
    want[0, :, :288], want[1, :, width - 288 :] = tiles[0].expected["red"], tiles[1].expected["red"]
    equal(da[0, 0], np.where(np.isnan(want[0]), want[1], want[0]))


# --------------------------------------------------------------------------------------------- real documents


REAL = Path(__file__).parents[3] / "shared" / "stac-items"


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real STAC documents is not at hand")
def test_real_items_give_a_sensible_grid_or_a_clear_error():
    built, unclear = 0, []
    for path in sorted(REAL.glob("*/**/*.json")):
        item = json.loads(path.read_text())
        if path.parts[-3] in ("mlm", "cdse") and "sentinel-2" not in path.parts[-2]:
            continue
        if not isinstance(item, dict) or not {"assets", "properties", "geometry"} <= item.keys():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                one, two = (load_stac([item], engine=e, patch_url=lambda _: "/not/there") for e in ENGINES)
            except CloudMaskError as error:
                unclear += [] if str(item["id"]) in str(error) or "bands=" in str(error) else [path]
                continue
        built += 1
        assert one.coords.identical(two.coords)
        assert one.rio.resolution() in ((10, -10), (20, -20), (30, -30), (60, -60)), path
        assert 1000 < one.sizes["x"] < 20000, path
        assert 1000 < one.sizes["y"] < 20000, path
        if "bbox" in item:
            south, north = one.isel(x=[0, -1], y=[0, -1]).rio.transform_bounds("EPSG:4326")[1::2]
            told = np.array(item["bbox"]).reshape(2, -1)[:, 1]
            assert abs((south + north) / 2 - told.mean()) < 1.5, path
    assert not unclear
    assert built > 60
