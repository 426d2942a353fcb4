"""From items to a GeoZarr store with overviews on a real S3 server, listed in a real STAC API, and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr

import xcloudmask
from tests.services.catalogue import Catalogue
from tests.services.s3 import S3
from tests.stac.scenes import Site, sentinel2
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
