"""From items to a GeoZarr store with overviews on a real S3 server, listed in a real STAC API, and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr

import xcloudmask
from tests.eopf_stores import GEOZARR, L2A, needs_eopf
from tests.scene.test_eopf import described
from tests.services.catalogue import Catalogue
from tests.services.s3 import S3
from tests.services.web import Web
from tests.stac.scenes import Site, sentinel2
from tests.stac.test_eopf import item as real_item
from tests.stac.test_eopf import sample_service, served
from tests.stac.test_write import valid
from tests.store import test_geozarr, test_overviews
from tests.streaming.helpers import files
from xcloudmask.stac import load_stac
from xcloudmask.testing import TOY

pytestmark = pytest.mark.services


def items(site: Site) -> list[dict[str, Any]]:
    found = []
    for day in ("17", "12"):
        item = sentinel2(site, "earth-search-c1", date=f"2024-05-{day}T10:10:31Z", tag=day).item
        item["links"] = [{"rel": "self", "href": f"https://example.com/items/{item['id']}"}]
        found.append(item)
    return found


def on_this_machine(href: str) -> str:
    """Items from elsewhere may not name files of this machine by themselves."""
    return f"file://{href}"


@pytest.fixture
def s3_store(
    s3_server: S3, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, xr.DataArray]:
    """A store of two dates on S3, and what it must hold."""
    s3_server.filesystem().makedirs("catalogued", exist_ok=True)
    for key, value in {"ENDPOINT_URL": s3_server.url, "ACCESS_KEY_ID": s3_server.key,
                       "SECRET_ACCESS_KEY": s3_server.secret}.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{key}", value)
    scene = load_stac(items(site), bands=["red", "nir"], patch_url=on_this_machine)
    cut = {"chunks": {"y": 64, "x": 64}, "shards": {"y": 128, "x": 128}}
    url = f"s3://catalogued/{tmp_path.name}.zarr"
    report = xcloudmask.stream(
        scene, url, predict={"model": TOY}, overviews=(2, 4), progress=False,
        stac="s3://catalogued/catalogue", storage_options=s3_server.storage_options(), **cut,
    )  # fmt: skip
    assert report.complete
    return url, scene.cloudmask.predict(TOY).compute()


def test_from_items_to_s3_to_a_collection_and_back(
    s3_server: S3, s3_store: tuple[str, xr.DataArray], tmp_path: Path
) -> None:
    url, mask = s3_store
    fs, options = s3_server.filesystem(), s3_server.storage_options()
    assert xcloudmask.verify(url, storage_options=options).ok
    said = json.loads(fs.cat(f"catalogued/catalogue/{tmp_path.name}/collection.json"))
    assert said["assets"]["cloud_mask"]["href"] == url
    sources = [link["href"] for link in said["links"] if link["rel"] == "derived_from"]
    assert sorted(sources) == sorted(f"https://example.com/items/{name}" for name in mask.item_id.values)
    children = [link["href"] for link in json.loads(fs.cat("catalogued/catalogue/catalog.json"))["links"]]
    assert f"./{tmp_path.name}/collection.json" in children
    back = load_stac(said, masks=True)
    np.testing.assert_array_equal(back.cloud_mask, mask.sortby("time"))
    coarse = xr.open_zarr(url, group="overviews/2", storage_options=options)
    assert coarse.rio.crs.to_epsg() == 32632
    assert coarse.cloud_mask.rio.resolution() == (20.0, -20.0)
    local = tmp_path / "same.zarr"
    site = Site(tmp_path, str(tmp_path))
    again = load_stac(items(site), bands=["red", "nir"], patch_url=on_this_machine)
    cut = {"chunks": {"y": 64, "x": 64}, "shards": {"y": 128, "x": 128}}
    xcloudmask.stream(again, local, predict={"model": TOY}, overviews=(2, 4), progress=False, **cut)
    inside = url.removeprefix("s3://")
    keys = fs.find(inside)
    there = {key.removeprefix(f"{inside}/"): fs.cat_file(key) for key in keys}
    assert there == files(local)


def test_a_stac_api_finds_masks_and_they_are_loaded_again(
    stac_api: Catalogue, s3_store: tuple[str, xr.DataArray], site: Site, tmp_path: Path
) -> None:
    from pystac_client import Client

    url, mask = s3_store
    collection = xcloudmask.stac_of(url, id="masks-of-two-dates", items=items(site))
    mask[0].cloudmask.to_geotiff(tmp_path / "one.tif")
    item = mask[0].cloudmask.to_stac(str(tmp_path / "one.tif"), id="one-mask").to_dict()
    item["collection"] = collection.id
    stac_api.load([collection.to_dict()], [item])
    client = Client.open(stac_api.url)
    found = client.get_collection(collection.id)
    assert isinstance(found, pystac.Collection)
    np.testing.assert_array_equal(load_stac(found, masks=True).cloud_mask, mask.sortby("time"))
    search = client.search(collections=[collection.id], query={"eo:cloud_cover": {"gte": 0}})
    (hit,) = search.items_as_dicts()
    assert hit["properties"]["eo:cloud_cover"] == item["properties"]["eo:cloud_cover"]
    site_only = client.search(collections=[collection.id]).item_collection()
    one = load_stac(site_only, masks=True, patch_url=on_this_machine)
    np.testing.assert_array_equal(xcloudmask.masks.decode(one.cloud_mask)[0], mask[0])


@needs_eopf
def test_from_items_of_both_eopf_services_to_masks_that_a_catalogue_finds(
    eopf_store: Any, web_server: Web, s3_server: S3, stac_api: Catalogue, tmp_path: Path
) -> None:
    """Groups of Zarr 2 over HTTP and a pyramid of Zarr 3 on S3, to a store and catalogue there, and back."""
    from pystac_client import Client

    served(eopf_store(L2A), web_server.root, f"both/{L2A}.zarr")
    sampled = sample_service(f"{web_server.url}/both/{L2A}.zarr", start_datetime="2025-10-13T10:00:41Z")
    sampled |= {"id": f"{L2A}-later", "links": [{"rel": "self", "href": "https://a.b/later.json"}]}
    explored = real_item(f"{L2A}.szeopf")
    root = explored["assets"]["reflectance"]["href"].split("/measurements")[0]
    fs, options = s3_server.filesystem(), s3_server.storage_options()
    for bucket in (root.split("/")[2], "both"):
        fs.makedirs(bucket, exist_ok=True)
    fs.put(str(eopf_store(GEOZARR)), root.removeprefix("s3://"), recursive=True)

    account = s3_server.gdal_env()
    scene = load_stac([sampled, explored], bands=["red", "nir"], gdal_env=account)
    pixels = described(L2A, ["b04", "b08"]).cloudmask.predict(TOY)
    url = "s3://both/masks.zarr"
    cut = {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}, "progress": False}
    report = xcloudmask.stream(
        scene, url, predict={"model": TOY}, overviews=(2, 4), stac="s3://both/catalogue",
        storage_options=options, **cut,
    )  # fmt: skip
    assert report.complete
    assert xcloudmask.verify(url, storage_options=options).ok

    said = json.loads(fs.cat("both/catalogue/masks/collection.json"))
    said["links"] = [link for link in said["links"] if link["rel"] not in ("root", "parent")]
    collection = pystac.Collection.from_dict(said, migrate=False)
    valid(collection)
    stac_api.load([said], [])
    found = Client.open(stac_api.url).get_collection(collection.id)
    back = load_stac(found, masks=True, gdal_env=account).cloud_mask
    assert [str(time)[:10] for time in back.time.values] == ["2025-10-08", "2025-10-13"]
    for step in back.transpose("time", "y", "x").values:
        assert step.tobytes() == pixels.values.tobytes()
    np.testing.assert_array_equal(back.x, pixels.x)
    np.testing.assert_array_equal(back.y, pixels.y)
    assert len(np.unique(pixels)) == 4

    local = tmp_path / "masks.zarr"
    fs.get("both/masks.zarr", str(local), recursive=True)
    test_overviews.check(local, back, (2, 4))
    test_geozarr.test_every_document_is_right_by_the_schemas_and_by_zarr_cm(local)
    test_geozarr.test_every_document_is_right_by_the_schemas_in_shared(local)
