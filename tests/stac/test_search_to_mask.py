"""From a search on a real STAC API to pixels, to a mask, to Zarr on a real S3 server."""

from __future__ import annotations


import numpy as np
import pytest
import xarray as xr

from tests.stac.helpers import ENGINES, equal
from tests.stac.scenes import PROFILES, Site
from xcloudmask.errors import BandError, CloudMaskError
from xcloudmask.stac import load_stac

pytestmark = pytest.mark.services

AREA = (10.25, 44.21, 10.30, 44.26)


def collection(name):
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    return {
        "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name, "license": "other",
        "extent": extent, "links": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(stac_api, web_server):
    """Every profile's scene, served by nginx and found by the STAC API."""
    made = {}
    for number, (profile, make) in enumerate(PROFILES.items()):
        made[profile] = make(Site(web_server.root / f"scenes{number}", f"{web_server.url}/scenes{number}"))
    items = [scene.item for scene in made.values()]
    assert len({(item["collection"], item["id"]) for item in items}) == len(items)
    stac_api.load([collection(name) for name in sorted({item["collection"] for item in items})], items)
    return made


@pytest.fixture(scope="module")
def client(stac_api):
    from pystac_client import Client

    return Client.open(stac_api.url)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_found_items_give_the_known_pixels(catalogue, client, profile, engine):
    scene = catalogue[profile]
    search = client.search(collections=[scene.item["collection"]], ids=[scene.item["id"]], bbox=AREA)
    found = search if engine == "odc" else search.item_collection()  # pystac migrates the items to 1.1
    da = load_stac(found, bands=list(scene.expected), engine=engine)
    assert da.item_id.values.tolist() == [scene.item["id"]]
    assert da.attrs["level"] == scene.level
    loaded = da.compute()
    for band, expected in scene.expected.items():
        equal(loaded.sel(band=band)[0], expected, 1e-4 if band.startswith("lwir") else 1e-6)


def test_an_empty_search_says_what_was_asked(client, catalogue):
    search = client.search(collections=["landsat-c2-l2"], datetime="1990-01-01/1990-02-01")
    with pytest.raises(CloudMaskError, match=r"no items .*1990-01-01.*landsat-c2-l2.*Widen datetime"):
        load_stac(search)


def test_a_search_over_several_pages(client, catalogue):
    search = client.search(collections=["sentinel-2-l2a"], limit=2)
    assert len(search.item_collection()) == 6
    da = load_stac(search, bands=["red"], duplicates="keep")
    assert da.sizes["time"] == 6


def test_sensors_of_one_search_on_one_grid(client, catalogue):
    names = ["sentinel-2-l2a", "landsat-c2-l2", "terrascope-probav-s1-toc-333m-cog-v2"]
    search = client.search(collections=names, bbox=AREA, datetime="2016-01-01/2024-12-31")
    grid = {"crs": 32632, "resolution": 10, "bbox": (10.26, 44.23, 10.27, 44.24)}
    loaded = [load_stac(search, engine=e, duplicates="keep", **grid).compute() for e in ENGINES]
    da = loaded[0]
    assert da.identical(loaded[1])
    assert set(da.sensor.values) == {"sentinel-2a", "landsat-8", "proba-v"}
    assert da.band.values.tolist() == ["blue", "red", "nir", "swir16"]
    assert da.indexes["time"].is_monotonic_increasing
    assert bool(((da > 0) & (da < 1.1) | da.isnull()).all())


@pytest.fixture(scope="module")
def bucket(s3_server):
    s3_server.filesystem().makedirs("masks", exist_ok=True)
    return "s3://masks"


@pytest.mark.parametrize("engine", ENGINES)
def test_search_to_zarr_on_s3(catalogue, client, s3_server, bucket, engine):
    scene = catalogue["CDSE L2A"]
    da = load_stac(client.search(ids=[scene.item["id"]]), chunks=128, engine=engine)
    options = s3_server.storage_options()
    store = f"{bucket}/{engine}.zarr"
    da.to_zarr(store, storage_options=options, consolidated=False)
    back = xr.open_zarr(store, storage_options=options, consolidated=False)["reflectance"]
    equal(back.sel(band="nir")[0], scene.expected["nir"])


@pytest.mark.parametrize("profile", ["planetary-computer L2A", "USGS Landsat L1"])
def test_search_to_mask_on_s3(catalogue, client, s3_server, bucket, profile):
    scene = catalogue[profile]
    da = load_stac(client.search(ids=[scene.item["id"]], collections=[scene.item["collection"]]), chunks=128)
    mask = da.cloudmask.predict()
    assert mask.dtype == "uint8"
    options = s3_server.storage_options()
    store = f"{bucket}/{scene.item['id']}.zarr"
    mask.to_zarr(store, storage_options=options, consolidated=False)
    back = xr.open_zarr(store, storage_options=options, consolidated=False)[mask.name]
    missing = np.isnan(np.stack(list(scene.expected.values())))
    assert missing.any()
    assert (back.values[0][missing.any(axis=0)] == 255).all()
    assert (back.values[0] != 255).any()


def test_proba_v_loads_but_no_model_of_today_takes_it(catalogue, client):
    scene = catalogue["Terrascope Proba-V TOA"]
    da = load_stac(client.search(ids=[scene.item["id"]], collections=[scene.item["collection"]]), chunks=128)
    with pytest.raises(BandError, match=r"missing: green"):
        da.cloudmask.predict()
