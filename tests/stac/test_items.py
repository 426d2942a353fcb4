"""Every form in which people have items, and what is said of what is none."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pystac
import pytest

from tests.stac.scenes import sentinel2
from xcloudmask.errors import BandError, CloudMaskError
from xcloudmask.stac import load_stac
from xcloudmask.stac.items import with_preferred


@pytest.fixture
def scene(site):
    return sentinel2(site, "earth-search-c1")


def red(items, **options):
    return load_stac(items, bands=["red"], **options)


def plain(items):
    """The pixels, and all that is known of them but the address of the item: a file is one."""
    return red(items).drop_vars("item_href").compute()


def arrays(value):
    """Return JSON as Arrow's to_pandas gives it: lists as arrays of objects, missing fields as None."""
    if isinstance(value, dict):
        return {name: arrays(part) for name, part in value.items()} | {"gone": None}
    if isinstance(value, list):
        made = np.empty(len(value), object)
        made[:] = [arrays(part) for part in value]
        return made
    return np.float64(value) if isinstance(value, float) else value


def table(items, *, nested):
    """Return items as a table: with their properties in one column, or each in its own."""
    if nested:
        return pd.DataFrame(items)
    from shapely.geometry import shape

    rows = []
    for item in items:
        row = {name: arrays(value) for name, value in item.items() if name != "properties"}
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), item["bbox"], strict=True))
        rows.append(row | item["properties"] | {"geometry": shape(item["geometry"]), "bbox": box})
    frame = pd.DataFrame(rows)
    return frame.assign(datetime=pd.to_datetime(frame["datetime"], utc=True))


def geoparquet(items, folder):
    """Return the path of a stac-geoparquet file."""
    rustac = pytest.importorskip("rustac")
    rustac.write_sync(str(folder / "items.parquet"), items)
    return folder / "items.parquet"


@pytest.mark.parametrize(
    "form",
    ["nested table", "table", "arrays", "json", "list of json", "bytes", "path", "text path", "geoparquet"],
)
def test_other_forms_of_items_are_taken(scene, tmp_path, form):
    items = [scene.item, {**copy.deepcopy(scene.item), "id": "other", "collection": "sentinel-2-pre-c1-l2a"}]
    older = {"datetime": "2019-05-17T10:10:31Z", "s2:processing_baseline": "03.01", "only": 1.5}
    items[1]["properties"] |= older
    for asset in items[1]["assets"].values():
        asset["raster:bands"][0]["offset"] = 0
    collection = json.dumps({"type": "FeatureCollection", "features": items})
    path = tmp_path / "items.json"
    path.write_text(collection)
    given = {
        "nested table": lambda: table(items, nested=True), "table": lambda: table(items, nested=False),
        "arrays": lambda: [arrays(item) for item in items], "json": lambda: collection,
        "list of json": lambda: json.dumps(items), "bytes": lambda: collection.encode(), "path": lambda: path,
        "text path": lambda: str(path), "geoparquet": lambda: geoparquet(items, tmp_path),
    }  # fmt: skip
    assert plain(given[form]()).identical(plain(items))


def test_relative_addresses_are_those_beside_the_file(scene, tmp_path):
    item = copy.deepcopy(scene.item)
    for asset in item["assets"].values():
        asset["href"] = "./" + asset["href"].removeprefix(f"{tmp_path}/")
    (tmp_path / "item.json").write_text(json.dumps(item))
    assert plain(tmp_path / "item.json").identical(plain(scene.item))


def test_the_address_that_is_preferred_is_taken(scene):
    """Of alternate assets by name or by scheme; the item stays what it was."""
    item = copy.deepcopy(scene.item)
    for asset in item["assets"].values():
        asset["alternate"] = {"mirror": {"href": asset["href"], "title": "a copy"}}
        asset["href"] = "https://example.invalid/gone.tif"
    before = copy.deepcopy(item)
    assert red(item, prefer="mirror").compute().identical(red(scene.item).compute())
    assert item == before
    assert red(item, prefer="https").sizes["band"] == 1
    with pytest.raises(CloudMaskError, match=r"prefer.*'s3'.*https.*mirror"):
        red(item, prefer="s3")
    asset = {
        "href": "https://a/b.tif",
        "alternate": {"copy": {"href": "s3://a/b.tif", "storage:refs": ["x"]}},
    }
    taken = with_preferred([{"id": "a", "assets": {"red": asset}}], "s3")[0]["assets"]["red"]
    assert (taken["href"], taken["storage:refs"]) == ("s3://a/b.tif", ["x"])


def test_what_is_no_geoparquet_is_told(tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(CloudMaskError, match=r"a\.parquet: cannot be read as stac-geoparquet"):
        load_stac(tmp_path / "a.parquet")


def test_a_modifier_gets_what_was_given(scene):
    given = []
    item = pystac.Item.from_dict(copy.deepcopy(scene.item))
    before = item.to_dict()

    def note(each):
        given.append(type(each))
        each.properties["s2:processing_baseline"] = "05.00"

    red([item], modifier=note)
    red([scene.item], modifier=lambda each: given.append(type(each)))
    assert given == [pystac.Item, dict]
    assert item.to_dict() == before


@pytest.mark.parametrize("form", ["object", "list", "dict"])
@pytest.mark.parametrize("kind", ["catalogue", "collection"])
def test_a_catalogue_is_told_how_to_give_its_items(kind, form):
    extent = pystac.Extent(pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[None, None]]))
    made = pystac.Catalog("mine", "x") if kind == "catalogue" else pystac.Collection("mine", "x", extent)
    given = {"object": made, "list": [made], "dict": made.to_dict()}[form]
    with pytest.raises(CloudMaskError, match=r"'mine' is no item.*get_items\(recursive=True\)"):
        load_stac(given)


@pytest.mark.parametrize("where", ["property", "extension"])
@pytest.mark.parametrize("extension", ["mlm", "dlm"])
def test_an_item_of_a_model_is_told_where_it_goes(scene, where, extension):
    model = {**scene.item, "id": "dlm-resnet18"}
    if where == "property":
        model["properties"] = {f"{extension}:name": "resnet18", "proj:epsg": "any"}
    else:
        model["stac_extensions"] = [f"https://schemas.example/{extension}/v1.0.0/schema.json"]
    with pytest.raises(CloudMaskError, match=r"'dlm-resnet18' describes a model.*xcloudmask\.models\.load"):
        load_stac([model])


@pytest.mark.parametrize(
    "wrong",
    [
        pd.DataFrame({"a": range(9000)}), np.arange(90_000).reshape(300, 300), {"a": "x" * 30_000}, 5, [5],
        "{",
        [{"type": "Catalog", "id": "x" * 30_000}], b"[1", "no such file.json", {"id": "a", "assets": 5},
        "x" * 30_000,
    ],
    ids=lambda wrong: type(wrong).__name__,
)  # fmt: skip
def test_wrong_items_are_told_in_few_words(wrong):
    with pytest.raises(CloudMaskError) as caught:
        load_stac(wrong)
    assert len(str(caught.value)) < 1000
    assert "item" in str(caught.value)


def test_two_items_far_apart_build_no_grid_of_the_globe(scene):
    far = copy.deepcopy(scene.item) | {"id": "far", "bbox": None, "geometry": None}
    for asset in far["assets"].values():
        asset["proj:transform"][2] += 3_000_000
        asset["proj:transform"][5] += 3_000_000
    with pytest.raises(CloudMaskError, match=r"9\d,\d+,\d+,\d+ pixels.*bbox="):
        red([scene.item, far])
    with pytest.raises(CloudMaskError, match=r"max_pixels=0 must be a whole number above 0"):
        red([scene.item], max_pixels=0)
    assert red([scene.item, far], max_pixels=10**11, chunks=100_000).size > 9 * 10**10
    with pytest.raises(CloudMaskError, match=r"span 82,944 pixels.*max_pixels="):
        red([scene.item], max_pixels=10_000)
    near = red([scene.item, far], bbox=(10.26, 44.23, 10.27, 44.24))
    assert near.item_id.values.tolist() == [scene.item["id"]]


def test_keys_of_earth_search_that_are_null_are_no_mark(site):
    item = sentinel2(site, "planetary-computer").item
    item["properties"] |= {"earthsearch:boa_offset_applied": None, "earthsearch:payload_id": None}
    want = red(sentinel2(site, "planetary-computer").item)
    assert red(item).compute().identical(want.compute())
    from tests.stac.helpers import plan_item

    assert plan_item(item).catalogue == "planetary-computer"


def test_assets_in_two_crss_are_read_each_in_its_own(site):
    """The grid is that of most bands, with the warning that items in several CRSs give."""
    here = sentinel2(site, "cdse")
    there = sentinel2(site, "cdse", unit="B", epsg=32633, left=120600, top=4910000)
    item = here.item
    item["assets"]["B12_20m"] = there.item["assets"]["B12_20m"]
    item["bbox"] = item["geometry"] = None
    with pytest.warns(UserWarning, match=r"several CRSs: EPSG:32632 \(\d\), EPSG:32633 \(1\)"):
        da = load_stac([item], bands=["red", "nir", "swir22"], bbox=(10.26, 44.23, 10.27, 44.24))
    assert da.rio.crs.to_epsg() == 32632
    assert da.notnull().mean("y").mean("x").values.ravel()[:2].tolist() == [1, 1]
    assert da.sel(band="swir22").shape == (1, da.sizes["y"], da.sizes["x"])
    da.compute()


def test_an_asset_without_an_address_is_named(scene):
    scene.item["assets"]["red"]["href"] = None
    with pytest.raises(BandError, match=rf"item '{scene.item['id']}' 'red' has no address \(href\)") as why:
        red([scene.item])
    assert "did you mean" not in str(why.value)
