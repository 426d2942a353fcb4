"""Items of both EOPF services, with the stores that they name served by nginx and SeaweedFS."""

from __future__ import annotations

import copy
import json
import shutil
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from rasterio.transform import from_origin

import xcloudmask
from tests.eopf_stores import CPM3, EOPF, GEOZARR, L1C, L2A, layer, needs_eopf, pixels, write
from tests.stac.helpers import plan_item
from xcloudmask.errors import AssetError, CloudMaskError
from xcloudmask.scene.eopf import Facts
from xcloudmask.stac import load_stac, warp
from xcloudmask.stac.eopf import _sun, product_item, with_arrays
from xcloudmask.stac.transport import Transport
from xcloudmask.store import retry
from xcloudmask.testing import TOY

EXPLORER = "S2A_MSIL2A_20250831T103701_N0511_R008_T31TFL_20250831T145420"


def item(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EOPF / "items" / f"{name}.json").read_text(encoding="utf-8"))
    return document


def sample_service(root: str, **properties: Any) -> dict[str, Any]:
    """An item as the sample service words it: groups SR_10m, SR_20m, SR_60m, and single arrays."""
    groups = {
        f"SR_{size}m": {
            "href": f"{root}/measurements/reflectance/r{size}m",
            "type": "application/vnd.zarr; version=2",
            "gsd": size,
            "xarray:open_dataset_kwargs": {"engine": "eopf-zarr", "op_mode": "native", "chunks": {}},
        }
        for size in (10, 20, 60)
    }
    own = {"href": f"{root}/measurements/reflectance/r10m/b02", "type": "application/vnd.zarr", "gsd": 10}
    product = {"href": root, "type": "application/vnd.zarr", "roles": ["data", "metadata"]}
    said = {"datetime": None, "start_datetime": "2025-10-08T10:00:41.024Z", "proj:code": "EPSG:32632",
            "proj:bbox": [11.39, 41.40, 12.76, 42.43], "view:sun_elevation": 49.3, **properties}  # fmt: skip
    return {
        "id": L2A, "type": "Feature", "collection": "sentinel-2-l2a", "properties": said, "links": [],
        "bbox": [11.39, 41.40, 12.76, 42.43], "assets": {**groups, "B02_10m": own, "product": product},
    }  # fmt: skip


@needs_eopf
@pytest.mark.parametrize("engine", ["stackstac", "odc"])
def test_groups_of_the_sample_service_are_read_through_their_store(eopf_store, engine):
    da = load_stac(sample_service(str(eopf_store(L2A))), engine=engine)
    assert (da.attrs["level"], da.attrs["sensor"], da.rio.crs.to_epsg()) == ("boa", "sentinel-2a", 32632)
    assert da.band.values.tolist() == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert str(da.time.values[0])[:19] == "2025-10-08T10:00:41"
    for band, name, size in (("red", "b04", 180), ("nir", "b08", 180), ("swir16", "b11", 90)):
        raw = pixels("L2A", name, size).astype("float32")
        expected = np.where(raw == 0, np.nan, raw * np.float32(1e-4) - np.float32(0.1))
        np.testing.assert_allclose(
            da.sel(band=band)[0], np.kron(expected, np.ones((180 // size,) * 2)), atol=1e-6
        )
    everything = load_stac(sample_service(str(eopf_store(L2A))), bands="all", resolution=20)
    assert everything.sizes["band"] == 12
    assert load_stac(sample_service(str(eopf_store(L2A))), bands=["B02_10m"]).band.item() == "blue"


@needs_eopf
def test_a_store_is_read_as_files_of_the_same_pixels_are(eopf_store, tmp_path, monkeypatch):
    """Warped, averaged, in other chunks: GDAL is given the pixels around each block, and answers alike."""
    monkeypatch.setattr(warp, "BLOCK", 16)
    made = product_item(str(eopf_store(L2A)), Transport())
    files = copy.deepcopy(made)
    for key, asset in files["assets"].items():
        path = tmp_path / f"{key.replace('/', '_')}.tif"
        raw = pixels("L2A", key[-3:], asset["proj:shape"][0])
        place = from_origin(699960, 4700040, asset["gsd"], asset["gsd"])
        form = {"driver": "GTiff", "count": 1, "height": len(raw), "width": len(raw), "dtype": "uint16"}
        with rasterio.open(path, "w", crs="EPSG:32632", transform=place, **form) as file:
            file.write(raw, 1)
        asset.update(href=str(path), type="image/tiff")
    for options in (
        {"resolution": 30, "resampling": "average"},
        {"resolution": 45, "resampling": "bilinear", "chunks": 17},
        {"crs": "EPSG:3035", "resolution": 70, "resampling": "lanczos"},
        {"bbox": (11.434, 42.41, 11.44, 42.42), "resolution": 10},
    ):
        options["bands"] = ["red", "swir16"]
        found, expected = load_stac(made, **options), load_stac(files, **options)
        np.testing.assert_array_equal(found.values, expected.values, err_msg=str(options))
        assert np.isfinite(found).any()
        assert found.chunks == expected.chunks


@needs_eopf
def test_of_several_sizes_the_nearest_is_read_that_is_no_coarser(eopf_store):
    item = with_arrays([sample_service(str(eopf_store(L2A)))], Transport())[0]
    from xcloudmask.stac.match_assets import match_item

    def read(size):
        return {
            c.band.common_name: c.asset.href[-8:]
            for c in match_item(item, size).choose(["B04", "B08", "B11"])
        }

    assert read(30) == {"red": "r20m/b04", "nir": "r10m/b08", "swir16": "r20m/b11"}
    assert read(60)["red"] == "r60m/b04"
    assert read(None)["red"] == "r10m/b04"


@needs_eopf
def test_what_items_state_wrongly_is_the_stores_own(eopf_store):
    """The zenith as elevation, no datetime or the text "null", degrees beside a UTM code, b8A for b8a."""
    service = sample_service(str(eopf_store(L2A)), datetime="null")
    plan = plan_item(with_arrays([service], Transport())[0])
    assert plan.sun_elevation == pytest.approx(90 - 49.3049, abs=1e-3)
    assert plan.datetime.startswith("2025-10-08T10:00:41")
    assert plan.crs == "EPSG:32632"
    assert plan.offset_rule == "what the store's arrays state"

    document = item(f"{L2A}.szeopf")
    assert "r20m/b8A" in {band["name"] for band in document["assets"]["reflectance"]["bands"]}
    document["links"] = []
    document["assets"]["reflectance"]["href"] = f"{eopf_store(GEOZARR)}/measurements/reflectance"
    da = load_stac(document, bands=["B8A", "red"])
    assert da.band.values.tolist() == ["nir08", "red"]
    assert np.isfinite(da[..., 12:, :]).all()  # but for the corner that was not seen


@needs_eopf
@pytest.mark.parametrize("name", [EXPLORER, f"{L2A}.szeopf"])
def test_a_zenith_is_told_from_an_elevation_by_date_and_place(name):
    document = item(name)
    zenith = document["properties"]["view:sun_elevation"]
    document["assets"] = {
        "red": {"href": "B04.tif", "bands": [{"name": "B04", "raster:scale": 1e-4, "raster:offset": -0.1}]}
    }
    assert plan_item(document).sun_elevation == pytest.approx(90 - zenith)
    document["properties"]["view:sun_elevation"] = 90 - zenith
    assert plan_item(document).sun_elevation == pytest.approx(90 - zenith)


def served(path, root, name) -> None:
    shutil.copytree(path, root / name, dirs_exist_ok=True)


@needs_eopf
@pytest.mark.services
@pytest.mark.parametrize("stored", [GEOZARR, L2A])
def test_a_real_item_is_masked_over_http(web_server, tmp_path, stored):
    """From the item to the mask: one asset `reflectance`, of Zarr format 3 or 2."""
    document = item(EXPLORER)
    root = document["assets"]["reflectance"]["href"].split("/measurements")[0]
    path = write(tmp_path / f"{EXPLORER}.zarr", stored, only="measurements/reflectance/r20m")
    served(path, web_server.root, f"{stored[:7]}.zarr")
    here = f"{web_server.url}/{stored[:7]}.zarr"
    document["bbox"] = document["geometry"] = None  # of another tile than the metadata at hand
    options = {"resolution": 20, "bands": ["red", "nir08", "swir16"]}
    scene = load_stac(document, patch_url=lambda url: url.replace(root, here), retries=0, **options)
    assert scene.attrs == {"level": "boa", "sensor": "sentinel-2a"}
    mask = scene.cloudmask.predict(TOY).compute()
    local = load_stac(product_item(str(path), Transport()), **options)
    np.testing.assert_array_equal(mask, local.cloudmask.predict(TOY))
    assert len(np.unique(mask)) > 1
    np.testing.assert_array_equal(xcloudmask.open(here, **options), local)


@needs_eopf
@pytest.mark.services
def test_a_real_item_is_read_from_s3(s3_server, tmp_path, monkeypatch):
    """Its href is s3://; the account is that of gdal_env, through obstore, or of an fsspec file system."""
    path = write(tmp_path / f"{L2A}.zarr", GEOZARR, only="measurements/reflectance/r20m")
    document = item(f"{L2A}.szeopf")
    root = document["assets"]["reflectance"]["href"].split("/measurements")[0]
    fs = s3_server.filesystem()
    fs.makedirs(root.split("/")[2], exist_ok=True)
    fs.put(str(path), root.removeprefix("s3://"), recursive=True)
    scene = load_stac(document, gdal_env=s3_server.gdal_env(), resolution=20)
    local = load_stac(product_item(str(path), Transport()), resolution=20)
    np.testing.assert_array_equal(scene, local)
    assert np.isfinite(scene).any()
    through = load_stac(document, filesystem=fs, resolution=20, bands=["red"])
    np.testing.assert_array_equal(through, local.sel(band=["red"]))
    for name, value in s3_server.gdal_env().items():
        monkeypatch.setenv(name, {True: "YES", False: "NO"}.get(value, str(value)))
    np.testing.assert_array_equal(xcloudmask.open(root, resolution=20, bands=["red"]), through)
    with pytest.raises(AssetError, match=r"asset 'reflectance'.*cannot be read"):
        load_stac(document, gdal_env=s3_server.gdal_env("wrong"), retries=0)


@needs_eopf
@pytest.mark.services
def test_a_store_without_consolidated_metadata_is_read_over_http(web_server, tmp_path):
    """HTTP lists nothing: the groups that multiscales names are asked for."""
    path = write(tmp_path / "a.zarr", GEOZARR, only="measurements/reflectance/r20m")
    root = json.loads((path / "zarr.json").read_text())
    del root["consolidated_metadata"]
    (path / "zarr.json").write_text(json.dumps(root))
    served(path, web_server.root, "bare.zarr")
    found = product_item(f"{web_server.url}/bare.zarr", Transport(retries=0))
    assert {"r20m/b02", "r20m/b8a", "r20m/b08"} <= set(found["assets"])


@needs_eopf
def test_a_store_that_is_not_there_is_named_with_what_the_item_says_of_it(tmp_path):
    document = sample_service(str(tmp_path / "no.zarr"))
    document["properties"]["auth:schemes"] = {
        "oidc": {"type": "openIdConnect", "openIdConnectUrl": "https://login"}
    }
    for asset in document["assets"].values():
        asset["storage:refs"] = ["cold"]
    document["properties"]["storage:schemes"] = {"cold": {"type": "custom-s3", "storage_class": "GLACIER"}}
    words = r"SR_10m.*no\.zarr.*storage: type custom-s3, storage_class GLACIER; auth: type openIdConnect.*https://login"
    with pytest.raises(AssetError, match=words):
        load_stac(document)
    with (
        pytest.warns(UserWarning, match=r"left out.*no\.zarr"),
        pytest.raises(CloudMaskError, match="no item is left"),
    ):
        load_stac(document, on_error="skip")


@needs_eopf
def test_products_mix_with_files_and_with_each_other(eopf_store):
    both = [sample_service(str(eopf_store(L2A))), {**sample_service(str(eopf_store(L2A))), "id": f"{L2A}-2"}]
    both[1]["properties"] = {**both[1]["properties"], "start_datetime": "2025-10-09T10:00:41Z"}
    da = load_stac(both, bands=["red"], resolution=60)
    assert [str(time)[:10] for time in da.time.values] == ["2025-10-08", "2025-10-09"]
    np.testing.assert_array_equal(da[0], da[1])


@needs_eopf
@pytest.mark.parametrize("product", [L1C, L2A, GEOZARR, CPM3])
@pytest.mark.parametrize("engine", ["stackstac", "odc"])
def test_the_masks_that_came_with_a_product_lie_on_the_grid_of_the_scene(eopf_store, product, engine):
    """Whole numbers of the store, whatever its attributes make of them: scale 1, a fill of 0, none."""
    service = sample_service(str(eopf_store(product)), **{"proj:code": None}) | {"bbox": None}
    ds = load_stac(service, bands=["red"], masks=True, engine=engine)
    l2a = {} if product == L1C else {"scl": ("scl", 90), "cldprb": ("cld", 90), "snwprb": ("snw", 90)}
    expected = {**l2a, "l1c_classification": ("b00", 30)}
    assert {*ds.data_vars} == {"reflectance", *expected}
    np.testing.assert_array_equal(ds.reflectance, load_stac(service, bands=["red"], engine=engine))
    for name, (array, size) in expected.items():
        whole = np.kron(layer(array, size), np.ones((180 // size,) * 2, "u1"))
        assert ds[name].chunks is not None
        np.testing.assert_array_equal(ds[name][0], whole, err_msg=name)
        if name != "snwprb":
            plain = xr.DataArray(whole, dims=("y", "x"))
            np.testing.assert_array_equal(
                xcloudmask.masks.decode(ds[name])[0], xcloudmask.masks.decode(plain, name)
            )
    coarse = load_stac(service, bands=["red"], masks=True, engine=engine, resolution=60)
    np.testing.assert_array_equal(coarse.l1c_classification[0], layer("b00", 30))


@needs_eopf
def test_a_mask_without_a_place_is_left_out_alone(eopf_store, tmp_path):
    root = tmp_path / f"{L2A}.zarr"
    shutil.copytree(eopf_store(L2A), root)
    (root / ".zmetadata").unlink(missing_ok=True)
    shutil.rmtree(root / "conditions/mask/l2a_classification/r20m/x")
    with pytest.warns(UserWarning, match=r"item 'S2A.*mask 'scl' is left out.*r20m.*no 'x'"):
        ds = load_stac(sample_service(str(root)), bands=["red"], masks=True)
    assert {"reflectance", "cldprb"} <= {*ds.data_vars}
    assert "scl" not in ds
    shutil.rmtree(root / "measurements/reflectance/r10m/x")
    with pytest.raises(AssetError, match=r"item 'S2A.*r10m: it has no 'x'"):
        load_stac(sample_service(str(root)), bands=["red"])


@needs_eopf
def test_an_azimuth_that_the_root_lacks_is_that_of_the_mean_angles(eopf_store):
    group = zarr.open_group(eopf_store(L2A), mode="r")
    zenith, azimuth = group["conditions/geometry/mean_sun_angles"][:]
    assert _sun(group, Facts(sun_elevation=50.0)) == (50.0, pytest.approx(azimuth))
    assert _sun(group, Facts(sun_azimuth=20.0)) == (pytest.approx(90 - zenith), 20.0)
    assert _sun(group, Facts(sun_elevation=50.0, sun_azimuth=20.0)) == (50.0, 20.0)


@needs_eopf
def test_the_metadata_of_a_product_are_read_once(eopf_store, monkeypatch):
    from xcloudmask.stac import zarr_store

    opened = []
    real = zarr_store.read_only_store
    monkeypatch.setattr(zarr_store, "read_only_store", lambda *a: opened.append(a) or real(*a))
    zarr_store._group.cache_clear()
    load_stac(sample_service(str(eopf_store(L2A)))).compute()
    assert len(opened) == 1


@needs_eopf
@pytest.mark.services
def test_a_busy_server_is_asked_again(faults, web_server, eopf_store, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)
    served(eopf_store(L2A) / "measurements", web_server.root, f"{L2A}.zarr/measurements")
    for name in (".zmetadata", ".zgroup", ".zattrs"):
        shutil.copy(eopf_store(L2A) / name, web_server.root / f"{L2A}.zarr")
    faults.queue(f"/{L2A}.zarr/.zmetadata", 503, "drop")
    faults.queue(f"/{L2A}.zarr/measurements/reflectance/r20m/b11/0.0", 503)
    item = sample_service(f"{faults.url}/{L2A}.zarr")
    found = load_stac(item, bands=["swir16"], resolution=20, retries=3).compute()
    np.testing.assert_array_equal(
        found, load_stac(sample_service(str(eopf_store(L2A))), bands=["swir16"], resolution=20)
    )
    assert not any(faults.state()["left"].values())


def test_other_zarr_is_not_asked_for_bands():
    """No request is made: its host does not exist."""
    asset = {"href": "abfs://daymet/daymet.zarr", "type": "application/vnd+zarr", "roles": ["data"]}
    item = {
        "id": "x",
        "properties": {"datetime": "2020-01-01T00:00:00Z", "platform": "sentinel-2a"},
        "assets": {"a": asset},
    }
    with pytest.raises(CloudMaskError, match=r"'a' is Zarr, and load_stac reads GeoTIFF.*xr\.open_datatree"):
        load_stac(item)
