"""From a search on a real STAC API to pixels, to a mask, to Zarr on a real S3 server."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import xarray as xr

from tests.stac.brightness import BRIGHT, answer
from tests.stac.cases import PROFILES
from tests.stac.helpers import ENGINES, equal, warns
from tests.stac.scenes import Site
from xcloudmask.errors import CloudMaskError, UnitWarning
from xcloudmask.models import registry
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


@pytest.mark.parametrize(("number", "profile"), list(enumerate(PROFILES)), ids=list(PROFILES))
def test_found_items_give_the_known_pixels(catalogue, client, number, profile):
    """Over HTTP, engines and forms of the search taking turns; test_profiles.py has all with both engines."""
    scene, engine = catalogue[profile], ENGINES[number % 2]
    search = client.search(collections=[scene.item["collection"]], ids=[scene.item["id"]], bbox=AREA)
    found = search if number // 2 % 2 else search.item_collection()  # pystac migrates the items to 1.1
    with warns(UnitWarning, scene.warning) if scene.warning else nullcontext():
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
    found = len(search.item_collection())
    assert found > 2
    with warns(UnitWarning, "boa_offset_applied is false"):  # of one of them
        da = load_stac(search, bands=["red"], duplicates="keep")
    assert da.sizes["time"] == found


def test_sensors_of_one_search_on_one_grid(client, catalogue):
    names = ["sentinel-2-l2a", "landsat-c2-l2", "terrascope-probav-s1-toc-333m-cog-v2"]
    search = client.search(collections=names, bbox=AREA, datetime="2016-01-01/2024-12-31")
    grid = {"crs": 32632, "resolution": 10, "bbox": (10.26, 44.23, 10.27, 44.24)}
    with warns(UnitWarning, "boa_offset_applied is false"):
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


def _search(client, scene):
    return client.search(ids=[scene.item["id"]], collections=[scene.item["collection"]], bbox=AREA)


def _through_s3(mask, s3_server, store):
    options = s3_server.storage_options()
    mask.to_zarr(store, storage_options=options, consolidated=False)
    return xr.open_zarr(store, storage_options=options, consolidated=False)[mask.name]


@pytest.mark.parametrize("engine", ENGINES)
def test_search_to_mask_on_s3(catalogue, client, s3_server, bucket, engine, monkeypatch):
    """Sentinel-2, Landsat and Proba-V: the mask on S3 is the one that follows from the pixels written."""
    monkeypatch.setitem(registry.registered, BRIGHT.name, BRIGHT)
    for profile in ("CDSE L2A", "planetary-computer Landsat L2", "Terrascope Proba-V TOA"):
        scene = catalogue[profile]
        near = next(name for name in ("nir", "nir08") if name in scene.expected)
        names = ["blue", "red", near, "swir16"]
        da = load_stac(_search(client, scene), bands=names, chunks=100, engine=engine)
        mask = da.cloudmask.predict(model="bright", working_resolution="native")
        back = _through_s3(mask, s3_server, f"{bucket}/{engine}-{scene.item['id']}.zarr")
        classes, sure = answer([scene.expected[name] for name in names])
        assert {0, 1, 255} <= set(np.unique(classes[sure])), profile
        np.testing.assert_array_equal(back.values[0][sure], classes[sure], err_msg=profile)
        assert back.rio.crs == da.rio.crs


@pytest.mark.parametrize("profile", ["planetary-computer L2A", "USGS Landsat L1"])
def test_search_to_mask_with_no_argument(catalogue, client, s3_server, bucket, profile):
    scene = catalogue[profile]
    da = load_stac(_search(client, scene), chunks=128)
    mask = da.cloudmask.predict()
    assert mask.dtype == "uint8"
    back = _through_s3(mask, s3_server, f"{bucket}/auto-{scene.item['id']}.zarr")
    reflective = [values for name, values in scene.expected.items() if name in da.band.values]
    missing = np.isnan(np.stack(reflective)).any(axis=0)
    assert missing.any()
    assert (back.values[0][missing] == 255).all()
    assert (back.values[0][~missing] != 255).mean() > 0.99


def test_proba_v_is_masked_by_a_model_for_any_bands_with_a_warning(catalogue, client):
    scene = catalogue["Terrascope Proba-V TOA"]
    da = load_stac(_search(client, scene), chunks=128)
    with pytest.warns(UserWarning, match="made for 20 to 40 m; .sensei. answers"):
        mask = da.cloudmask.predict()
    assert mask.attrs["model"] == "sensei"


def test_a_wrong_key_for_the_mask_is_refused(catalogue, client, s3_server, bucket):
    da = load_stac(_search(client, catalogue["Terrascope Proba-V TOA"]))
    with pytest.raises(PermissionError):
        da.to_zarr(f"{bucket}/x.zarr", storage_options=s3_server.storage_options("wrong"), consolidated=False)
