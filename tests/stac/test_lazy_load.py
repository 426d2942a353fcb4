"""Building reads nothing, stays small, and takes time in proportion to the items."""

from __future__ import annotations

import copy
import datetime
import pickle
import warnings
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import rioxarray  # noqa: F401

from tests.scenes import calls
from tests.stac import scenes
from tests.stac.helpers import ENGINES, equal
from tests.stac.scenes import probav, sentinel2
from xcloudmask.stac import load_stac

NOWHERE = "https://nowhere.invalid"

# --------------------------------------------------------------------------------------------------- laziness


def many(count: int):
    """Return items of full tiles on a server that does not exist."""
    item = {
        "type": "Feature", "stac_version": "1.0.0", "collection": "sentinel-2-c1-l2a", **scenes.HERE,
        "properties": {"platform": "sentinel-2a", "s2:processing_baseline": "05.10", "proj:epsg": 32632},
        "assets": {}, "links": [],
    }  # fmt: skip
    items = []
    for number in range(count):
        one = copy.deepcopy(item)
        one["id"] = f"S2A_{number:04d}"
        one["properties"]["datetime"] = str(
            np.datetime64("2016-01-01T10:00:00") + np.timedelta64(number, "D")
        )
        for common, (own, gsd) in scenes.S2_BANDS.items():
            one["assets"][common] = {
                "href": f"{NOWHERE}/{number}/{own}.tif", "eo:bands": [{"name": own, "common_name": common}],
                "proj:shape": [109800 // gsd, 109800 // gsd],
                "proj:transform": [gsd, 0, scenes.LEFT, 0, -gsd, scenes.TOP],
                "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}],
            }  # fmt: skip
        items.append(one)
    return items


def test_building_opens_nothing(engine, monkeypatch):
    import socket

    import rasterio

    load_stac(many(1), engine=engine, bbox=(10.3, 44.0, 10.31, 44.01))  # imports are done

    def refuse(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    monkeypatch.setattr(rasterio, "open", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    da = load_stac(many(3), engine=engine, bbox=(10.3, 44.0, 10.31, 44.01))
    assert da.sizes["time"] == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_the_cost_of_items_grows_linearly(engine):
    area = {"bbox": (10.5, 43.9, 10.55, 43.94)}
    load_stac(many(20), engine=engine, **area)
    few, more, lot = many(50), many(100), many(200)

    one, two, four = (
        calls(lambda items=items: len(load_stac(items, engine=engine, **area).__dask_graph__()))
        for items in (few, more, lot)
    )
    assert (four - two) / (two - one) < 2.2  # 100 items more, and 50; quadratic would be 4
    assert (four - two) / 100 < 12_000  # 5,200


def test_stackstacs_graph_does_not_grow_with_the_image():
    items = many(50)
    small = load_stac(items, bbox=(10.5, 43.9, 10.51, 43.91))
    large = load_stac(items)
    assert large.data.npartitions > 100 * small.data.npartitions
    assert len(cloudpickle.dumps(large.__dask_graph__())) < 2 * len(cloudpickle.dumps(small.__dask_graph__()))


def test_names_are_deterministic_and_depend_on_the_numbers(engine):
    area = {"bbox": (10.5, 43.9, 10.51, 43.91), "engine": engine}
    items = many(2)
    one = load_stac(items, **area)
    assert load_stac(many(2), **area).data.name == one.data.name
    assert load_stac(items, sentinel2_offset="skip", **area).data.name != one.data.name
    assert load_stac(items, resampling="bilinear", **area).data.name != one.data.name
    items[0]["assets"]["red"]["href"] += "?other"
    assert load_stac(items, **area).data.name != one.data.name


def test_the_graph_travels(site, engine):
    scene = probav(site)
    da = load_stac([scene.item], engine=engine)
    travelled = pickle.loads(cloudpickle.dumps(da))
    equal(travelled.sel(band="red")[0], scene.expected["red"])


def test_only_the_chunks_asked_for_are_read(site, engine, monkeypatch):
    import rasterio

    scene = sentinel2(site, "earth-search-c1")
    da = load_stac([scene.item], engine=engine, chunks=100)
    opened = []
    real = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: (opened.append(a[0]), real(*a, **k))[1])
    da.sel(band="red").isel(y=slice(0, 50), x=slice(0, 50)).compute()
    assert len(opened) == 1
    assert opened[0].endswith("B04.tif")


def test_the_status_map_is_read_once_a_chunk(site, engine, monkeypatch):
    import rasterio

    scene = probav(site, date=datetime.date.today().isoformat() + "T10:00:00Z")
    da = load_stac([scene.item], engine=engine)
    opened = []
    real = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: (opened.append(a[0]), real(*a, **k))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        da.compute()
    assert sum(name.endswith("SM.tif") for name in opened) == 1
    assert len(opened) == 5
