"""Masks that come with scenes: on their grid, lazily, and decoded bit by bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine

import xcloudmask
from tests.stac.scenes import LEFT, SIZE, TOP, Site, hls, landsat2, probav, sentinel2
from xcloudmask.errors import AssetError, BandError, CloudMaskError
from xcloudmask.stac import load_stac
from xcloudmask.stac.product_masks import find_masks
from xcloudmask.stac.view import view_item

ITEMS = Path(__file__).parents[3] / "shared" / "stac-items"


def with_scl(site: Site, **how: Any) -> tuple[dict[str, Any], np.ndarray]:
    """A Sentinel-2 item with its scene classification at 20 m."""
    scene = sentinel2(site, "earth-search-c1", **how)
    codes = np.random.default_rng(5).integers(0, 12, (SIZE // 20, SIZE // 20), dtype="u1")
    transform = Affine(20, 0, LEFT, 0, -20, TOP)
    href, _ = site.write(f"{scene.item['id']}/SCL.tif", codes, transform, "EPSG:32632", nodata=0)
    place = {"proj:shape": [SIZE // 20] * 2, "proj:transform": list(transform)[:6]}
    scene.item["assets"]["scl"] = {"href": href, "roles": ["data"], **place}
    return scene.item, codes


def test_scl_lies_on_the_grid_of_the_scene_and_decodes(site: Site, engine: str) -> None:
    item, codes = with_scl(site)
    ds = load_stac([item], bands=["red"], masks=True, engine=engine)
    assert list(ds.data_vars) == ["reflectance", "scl"]
    assert ds.scl.chunks is not None
    assert ds.scl.dims == ("time", "y", "x")
    xr.testing.assert_identical(ds.reflectance, load_stac([item], bands=["red"], engine=engine))
    fine = np.repeat(np.repeat(codes, 2, 0), 2, 1)
    np.testing.assert_array_equal(ds.scl[0].fillna(0), fine)
    decoded = xcloudmask.masks.decode(ds.scl)
    np.testing.assert_array_equal(
        decoded[0], xcloudmask.masks.decode(xr.DataArray(fine, dims=("y", "x")), "scl")
    )
    np.testing.assert_array_equal(xcloudmask.masks.decode(decoded), decoded)  # codes of ours stay


def test_a_date_without_a_mask_has_no_data(site: Site) -> None:
    one, codes = with_scl(site)
    two = sentinel2(site, "earth-search-c1", date="2024-05-22T10:10:31Z", tag="b").item
    ds = load_stac([one, two], bands=["red"], masks=True)
    assert bool(ds.scl[1].isnull().all())
    assert (xcloudmask.masks.decode(ds.scl)[1] == 255).all()
    mosaic = load_stac([one], bands=["red"], masks=True, mosaic="day", resolution=60)
    assert set(np.unique(mosaic.scl.fillna(0))) <= set(np.unique(codes).astype(float))


@pytest.mark.parametrize(
    ("make", "name", "product"),
    [(lambda s: landsat2(s, "planetary-computer"), "qa_pixel", "qa_pixel"), (probav, "sm", "probav")],
)
def test_masks_of_other_products(site: Site, make: Any, name: str, product: str) -> None:
    ds = load_stac([make(site).item], masks=True)
    assert ds[name].attrs["product"] == product
    decoded = xcloudmask.masks.decode(ds[name]).compute()
    assert decoded.dtype == np.uint8
    plain = ds[name].compute()
    np.testing.assert_array_equal(decoded, xcloudmask.masks.decode(plain.drop_attrs(), product))


def test_what_has_no_mask_is_loaded_all_the_same(site: Site) -> None:
    assert list(load_stac([hls(site).item], masks=True).data_vars) == ["reflectance"]


@pytest.mark.skipif(not ITEMS.is_dir(), reason="needs ../shared/stac-items: real items")
def test_the_layer_is_found_in_real_items() -> None:
    wanted = {
        "earth-search-v1/sentinel-2-l2a": "scl", "earth-search-v1/sentinel-2-c1-l2a": "scl",
        "planetary-computer/sentinel-2-l2a": "scl", "cdse/sentinel-2-l2a": "scl",
        "planetary-computer/landsat-c2-l2": "qa_pixel", "usgs-landsatlook/landsat-c2l2-sr": "qa_pixel",
        "nasa-cmr/HLSL30.v1.5": "fmask", "earth-search-v1/sentinel-2-l1c": None,
    }  # fmt: skip
    for place, expected in wanted.items():
        items = [json.loads(path.read_text()) for path in (ITEMS / place).glob("*.json")]
        items = [item for item in items if item.get("type") == "Feature"]
        assert items, place
        for item in items:
            found = [mask.attrs.get("product") for mask in find_masks(view_item(item))]
            assert found == ([expected] if expected else []), item["id"]


def ours(site: Site, times: list[str]) -> xr.DataArray:
    values = np.random.default_rng(8).choice(
        np.array([0, 1, 3, 255], "u1"), (len(times), SIZE // 10, SIZE // 10)
    )
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        name="cloud_mask",
        coords={
            "time": np.array(times, "M8[ns]"),
            "y": TOP - 10 * (np.arange(SIZE // 10) + 0.5),
            "x": LEFT + 10 * (np.arange(SIZE // 10) + 0.5),
        },
        attrs={"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"},
    ).rio.write_crs(32632)


def test_our_collection_is_loaded_again(site: Site, tmp_path: Path) -> None:
    mask = ours(site, ["2024-05-17T10:10:31", "2024-05-12T10:10:31"])
    mask.cloudmask.to_zarr(tmp_path / "m.zarr", overviews=True, stac=tmp_path / "c", progress=False)
    collection = xcloudmask.stac_of(tmp_path / "m.zarr")
    path = tmp_path / "c/m/collection.json"
    for given in (collection, collection.to_dict(), json.loads(path.read_text()), path, str(path)):
        ds = load_stac(given, masks=True)
        assert ds.cloud_mask.chunks is not None
        xr.testing.assert_equal(
            ds.cloud_mask.drop_vars("spatial_ref"), mask.sortby("time").drop_vars("spatial_ref")
        )
        np.testing.assert_array_equal(xcloudmask.masks.decode(ds.cloud_mask), ds.cloud_mask)
        assert 0 < float(ds.cloudmask.clear_fraction().mean()) < 1
    with pytest.raises(CloudMaskError, match="is no item"):
        load_stac(collection)


@pytest.mark.parametrize("form", ["zarr", "tif"])
def test_our_item_is_loaded_alone_and_beside_its_scene(site: Site, tmp_path: Path, form: str) -> None:
    mask = ours(site, ["2024-05-17T10:10:31"])
    if form == "zarr":
        mask.cloudmask.to_zarr(tmp_path / "m.zarr", progress=False)
        item = xcloudmask.stac_of(tmp_path / "m.zarr")
    else:
        mask[0].cloudmask.to_geotiff(tmp_path / "m.tif")
        item = mask[0].cloudmask.to_stac(str(tmp_path / "m.tif"))
    alone = load_stac([item], masks=True)
    np.testing.assert_array_equal(xcloudmask.masks.decode(alone.cloud_mask), mask)
    scene, _ = with_scl(site)
    beside = load_stac([scene, item.to_dict()], bands=["red"], masks=True)
    assert list(beside.data_vars) == ["reflectance", "scl", "cloud_mask"] or form == "zarr"
    np.testing.assert_array_equal(xcloudmask.masks.decode(beside.cloud_mask), mask)
    np.testing.assert_array_equal(beside.cloud_mask.x, beside.reflectance.x)
    part = load_stac([scene, item.to_dict()], bands=["red"], masks=True, bbox=(10.26, 44.24, 10.27, 44.25))
    expected = mask.reindex(x=part.x, y=part.y, method="nearest", tolerance=1, fill_value=255)
    inside = xcloudmask.masks.decode(part.cloud_mask)
    np.testing.assert_array_equal(inside, expected)
    late = item.to_dict()
    late["properties"]["datetime"] = "2024-05-18T10:10:31Z"
    if form == "tif":  # a store knows its own times
        assert "cloud_mask" not in load_stac([scene, late], bands=["red"], masks=True)
    with pytest.raises(BandError):
        load_stac([item])


def test_a_store_of_any_kind_that_can_be_described_is_loaded(site: Site) -> None:
    mask = ours(site, ["2024-05-17T10:10:31"])
    mask.cloudmask.to_zarr("memory://described/m.zarr", progress=False)
    item = xcloudmask.stac_of("memory://described/m.zarr")
    np.testing.assert_array_equal(load_stac([item], masks=True).cloud_mask, mask)
    elsewhere = item.to_dict()
    elsewhere["links"] = [{"rel": "self", "href": "https://example.com/m.json"}]
    with pytest.raises(AssetError, match="addresses of kind memory:// are not"):
        load_stac([elsewhere], masks=True)


def test_masks_on_two_grids_are_refused(site: Site, tmp_path: Path) -> None:
    first = ours(site, ["2024-05-17"])
    second = first.assign_coords(x=first.x + 5, time=first.time + np.timedelta64(1, "D"))
    items = []
    for name, mask in (("a", first), ("b", second)):
        mask.cloudmask.to_zarr(tmp_path / f"{name}.zarr", progress=False)
        items.append(xcloudmask.stac_of(tmp_path / f"{name}.zarr"))
    with pytest.raises(CloudMaskError, match="do not lie on one grid"):
        load_stac(items, masks=True)
    assert load_stac(items[:1], masks=True).sizes["time"] == 1


def test_addresses_of_private_hosts_stay_closed(site: Site) -> None:
    item = ours(site, ["2024-05-17T10:10:31"])[0].cloudmask.to_stac("http://127.0.0.1:9/m.zarr").to_dict()
    with pytest.raises(CloudMaskError, match="allow_private_hosts=False"):
        load_stac([item], masks=True, allow_private_hosts=False)


def test_a_mosaic_of_a_day_has_the_masks_of_all_its_tiles(site: Site) -> None:
    """Masks that are items of their own: the second tile was seen 14 seconds after the first."""
    scenes, masks = [], []
    for date, tag in (("2024-05-17T10:20:27Z", "a"), ("2024-05-17T10:20:41Z", "b")):
        scene, codes = with_scl(site, date=date, tag=tag)
        scl = scene["assets"].pop("scl")
        masks.append({**scene, "id": f"{scene['id']}_mask", "assets": {"scl": scl}})
        scene["links"] = [{"rel": "self", "href": f"/data/my items/{tag}.json"}]
        scenes.append(scene)
    both = load_stac([*scenes, *masks], bands=["red"], masks=True, mosaic="day")
    alone = load_stac([*scenes, masks[1]], bands=["red"], masks=True, mosaic="day")
    assert both.item_href.item().split("\n") == ["/data/my items/a.json", "/data/my items/b.json"]
    assert both.sizes["time"] == alone.sizes["time"] == 1
    assert set(np.unique(alone.scl.fillna(0))) == set(np.unique(codes).astype(float))
